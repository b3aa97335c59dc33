//! Counts the lines, words and bytes of every payload, as wc(1) does.

mod mayfly_link;

fn main() -> std::io::Result<()> {
    while let Some(text) = mayfly_link::receive()? {
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        if text.contains(&0) {
            mayfly_link::fail("the payload holds a NUL byte: it is no text")?;
        } else {
            mayfly_link::reply(format!("{lines} {words} {}\n", text.len()).as_bytes())?;
        }
    }
    Ok(())
}
