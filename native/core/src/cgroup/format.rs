//! How are cgroup files written and read as text, without allocating?

use std::io;

/// Room for the longest text written: two 20-digit numbers and a space.
const TEXT_BYTES: usize = 48;

/// A value on its way into a cgroup file.
#[derive(Debug)]
pub(super) struct Text {
    bytes: [u8; TEXT_BYTES],
    length: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; TEXT_BYTES], length: 0 }
    }
}

impl Text {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn word(&mut self, word: &str) {
        let end = self.length + word.len();
        self.bytes[self.length..end].copy_from_slice(word.as_bytes());
        self.length = end;
    }

    pub(super) fn number(&mut self, mut value: u64) {
        const DIGITS: &[u8; 10] = b"0123456789";
        let start = self.length;
        loop {
            let digit = usize::try_from(value % 10).unwrap_or(0);
            self.bytes[self.length] = DIGITS[digit];
            self.length += 1;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.bytes[start..self.length].reverse();
    }

    /// The number, or the interface's word for "no limit" when it is `none`.
    pub(super) fn number_or_max(&mut self, value: u64, none: u64, word: &str) {
        if value == none { self.word(word) } else { self.number(value) }
    }
}

/// The single number of a file such as cpuacct.usage.
pub(super) fn counter(text: &[u8]) -> io::Result<u64> {
    parse(text.trim_ascii()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The number after `key` in a file of `key value` lines such as cpu.stat.
pub(super) fn field(text: &[u8], key: &[u8]) -> io::Result<u64> {
    text.split(|&byte| byte == b'\n')
        .find_map(|line| parse(line.strip_prefix(key)?.strip_prefix(b" ")?))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for value in [0, 7, 10, 1024, u64::MAX] {
            let mut text = Text::default();
            text.number(value);
            assert_eq!(text.as_bytes(), value.to_string().as_bytes());
        }
    }

    #[test]
    fn the_longest_text_fits() {
        let mut text = Text::default();
        text.number(u64::MAX);
        text.word(" ");
        text.number(u64::MAX);
        assert_eq!(text.as_bytes().len(), 41);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, b"oom_kill").unwrap(), 3);
        assert!(field(text, b"oom").is_err());
    }

    #[test]
    fn counters_end_at_the_newline() {
        assert_eq!(counter(b"42\n").unwrap(), 42);
        assert!(counter(b"max\n").is_err());
        assert!(counter(b"").is_err());
    }
}
