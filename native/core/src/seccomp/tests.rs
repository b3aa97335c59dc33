//! The compiled program against a reading of the profile that knows nothing of trees, ranges and jumps.

use super::interpret::{Call, interpret};
use super::*;

const NATIVE: &str = include_str!("../../../../images/profiles/native.json");
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// A number above every known one.
const NUMBERS: u32 = 600;

/// What the profile says of a call, entry by entry.
fn expected(profile: &Profile, call: &Call) -> u32 {
    let value = |action: Action| match action {
        Action::Allow => 0x7fff_0000,
        Action::Errno(errno) => 0x0005_0000 + u32::from(errno),
        Action::Notify => 0x7fc0_0000,
        Action::Kill => 0x8000_0000,
    };
    if call.arch != AUDIT_ARCH || (cfg!(target_arch = "x86_64") && call.nr >= 0x4000_0000) {
        return value(Action::Kill);
    }
    let Some(name) = syscall_name(call.nr) else { return value(profile.unknown) };
    let Some((entry, action)) = profile.entries().find(|(entry, _)| entry.name == name) else {
        return value(profile.unlisted);
    };
    let holds = |condition: &Condition| {
        let wide = call.args[usize::from(condition.arg)];
        let low = u32::try_from(wide & 0xffff_ffff).unwrap();
        match &condition.test {
            Test::In(values) => values.contains(&low),
            Test::NotIn(values) => !values.contains(&low),
            Test::Between(first, last) => *first <= low && low <= *last,
            Test::WithoutBits(mask) => low & mask == 0,
            Test::Null => wide == 0,
        }
    };
    value(if entry.when.iter().all(holds) { action } else { entry.otherwise.unwrap() })
}

fn entry_of(profile: &Profile, nr: u32) -> Option<&Entry> {
    let name = syscall_name(nr)?;
    profile.entries().map(|(entry, _)| entry).find(|entry| entry.name == name)
}

/// Values on both sides of everything the profile compares `arg` of this call with, each with a clean and with a
/// dirty upper half.
fn interesting(profile: &Profile, nr: u32, arg: u8) -> Vec<u64> {
    let entry = entry_of(profile, nr);
    let mut low = vec![0, 1, u32::MAX];
    for condition in entry.iter().flat_map(|entry| &entry.when).filter(|condition| condition.arg == arg) {
        match &condition.test {
            Test::In(values) | Test::NotIn(values) => low.extend(values),
            Test::Between(first, last) => low.extend([*first, *last]),
            Test::WithoutBits(mask) => {
                let bits = (0..32).map(|bit| 1 << bit).filter(|bit| mask & bit != 0);
                low.extend(bits.chain([*mask, !mask]));
            }
            Test::Null => {}
        }
    }
    let near = low.iter().flat_map(|&value| [value.wrapping_sub(1), value, value.wrapping_add(1)]);
    let mut wide: Vec<u64> = near.flat_map(|value| [u64::from(value), u64::from(value) | 0xdead_beef << 32]).collect();
    wide.sort_unstable();
    wide.dedup();
    wide
}

/// The arguments a number is tried with: each that has conditions over its interesting values, all combinations.
fn argument_vectors(profile: &Profile, nr: u32) -> Vec<[u64; 6]> {
    let mut vectors = vec![[0; 6]];
    for arg in 0..6 {
        if entry_of(profile, nr).is_none_or(|entry| entry.when.iter().all(|condition| condition.arg != arg)) {
            continue;
        }
        let values = interesting(profile, nr, arg);
        let with = |vector: &[u64; 6], value: u64| {
            let mut vector = *vector;
            vector[usize::from(arg)] = value;
            vector
        };
        vectors = vectors.iter().flat_map(|vector| values.iter().map(move |&value| with(vector, value))).collect();
    }
    vectors
}

/// Every number, architecture and argument vector; the longest way through the program comes back.
fn assert_same(profile: &Profile, program: &Program) -> usize {
    let gates = [0x3fff_ffff, 0x4000_0000, 0x4000_0000 + 59, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let mut steps = 0;
    for nr in (0..NUMBERS).chain(gates) {
        for args in argument_vectors(profile, nr) {
            // The architecture is asked first, so that one vector of arguments is enough for the foreign ones.
            let foreign = [AUDIT_ARCH_I386, 0xc000_00b7, 0xc000_003e, 0];
            for arch in std::iter::once(AUDIT_ARCH).chain(foreign.into_iter().filter(|_| args == [0; 6])) {
                let call = Call { nr, arch, instruction_pointer: 0x1234_5678_9abc_def0, args };
                let verdict = interpret(program.instructions(), &call).unwrap();
                assert_eq!(verdict.value, expected(profile, &call), "{} {call:x?}", syscall_name(nr).unwrap_or("?"));
                steps = steps.max(verdict.steps);
            }
        }
    }
    steps
}

fn native() -> Profile {
    Profile::parse(NATIVE).unwrap()
}

#[test]
fn native_compiles_to_what_it_says() {
    let program = compile(&native()).unwrap();
    let steps = assert_same(&native(), &program);
    let length = program.instructions().len();
    // 219 and 24 on x86_64: a filter that grows past these has lost its merging or its balance.
    assert!(length <= 260, "{length} instructions");
    assert!(steps <= 28, "{steps} instructions for one call");
}

#[test]
fn native_decides_about_every_known_call() {
    let profile = native();
    let silent: Vec<_> = syscalls()
        .iter()
        .map(|&(name, _)| name)
        .filter(|name| !profile.entries().any(|(entry, _)| entry.name == *name))
        .collect();
    assert_eq!(silent, Vec::<&str>::new());
}

#[test]
fn a_program_survives_the_way_to_the_child() {
    let program = compile(&native()).unwrap();
    let bytes = program.to_bytes();
    assert_eq!(bytes.len(), 8 * program.instructions().len());
    assert_eq!(Program::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    assert_eq!(Program::from_bytes(&bytes[1..]).unwrap_err(), ProgramError::Truncated { bytes: bytes.len() - 1 });
    assert_eq!(Program::from_bytes(&[]).unwrap_err(), ProgramError::Length { instructions: 0 });
    assert_eq!(Program::from_bytes(&[0; 8 * 4097]).unwrap_err(), ProgramError::Length { instructions: 4097 });
}

#[test]
fn names_and_numbers_agree() {
    for &(name, number) in syscalls() {
        assert_eq!((syscall_name(number), syscall_number(name)), (Some(name), Some(number)));
    }
    let numbers: Vec<_> = syscalls().iter().map(|&(_, number)| number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "a number is given twice");
    assert_eq!(syscall_name(0x4000_0000), None);
}

/// A small generator (xorshift64*): the tests need variety that repeats, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % limit
    }

    fn word(&mut self) -> u32 {
        // Few bits most of the time, as constants are.
        u32::try_from(self.below(1 << 31)).unwrap() >> self.below(31)
    }

    fn action(&mut self) -> Action {
        match self.below(4) {
            0 => Action::Allow,
            1 => Action::Notify,
            2 => Action::Kill,
            _ => Action::Errno(u16::try_from(1 + self.below(133)).unwrap()),
        }
    }

    fn condition(&mut self) -> Condition {
        let list = |random: &mut Self| (0..1 + random.below(6)).map(|_| random.word()).collect();
        let test = match self.below(5) {
            0 => Test::In(list(self)),
            1 => Test::NotIn(list(self)),
            2 => {
                let (a, b) = (self.word(), self.word());
                Test::Between(a.min(b), a.max(b))
            }
            3 => Test::WithoutBits((self.word() & self.word()).max(1)),
            _ => Test::Null,
        };
        Condition { arg: u8::try_from(self.below(6)).unwrap(), test }
    }

    fn profile(&mut self) -> Profile {
        let density = 1 + self.below(8);
        let with_conditions = 1 + self.below(8);
        let mut groups: Vec<Group> = Vec::new();
        for &(name, _) in syscalls() {
            if self.below(density) != 0 {
                continue;
            }
            let is_checked = self.below(with_conditions) == 0;
            let when = (0..if is_checked { 1 + self.below(2) } else { 0 }).map(|_| self.condition()).collect();
            let otherwise = is_checked.then(|| self.action());
            let entry = Entry { name: name.into(), reason: "drawn".into(), when, otherwise };
            groups.push(Group { about: "drawn".into(), action: self.action(), syscalls: vec![entry] });
        }
        let (unlisted, unknown) = (self.action(), self.action());
        Profile { name: "drawn".into(), about: "drawn".into(), unlisted, unknown, groups }
    }
}

#[test]
fn any_profile_compiles_to_what_it_says() {
    for seed in 1..=24 {
        let profile = Random(seed).profile();
        let program = compile(&profile).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_same(&profile, &program);
    }
}

mod refused {
    use super::*;

    /// A profile whose only entry is this.
    fn parse(entry: &str) -> Result<Profile, ProfileError> {
        Profile::parse(&format!(
            r#"{{"name": "p", "about": "a", "unlisted": "notify", "unknown": {{"errno": "ENOSYS"}},
                "groups": [{{"about": "g", "action": "allow", "syscalls": [{entry}]}}]}}"#
        ))
    }

    fn why(entry: &str) -> String {
        parse(entry).expect_err(entry).to_string()
    }

    #[test]
    fn the_form_itself_is_accepted() {
        parse(r#"{"name": "read", "reason": "r"}"#).unwrap();
        parse(r#"{"name": "clone", "reason": "r", "when": [{"arg": 0, "without_bits": ["CLONE_NEWNS", 1]}], "otherwise": "kill"}"#).unwrap();
    }

    #[test]
    fn unknown_names_keys_and_constants() {
        assert!(why(r#"{"name": "reed", "reason": "r"}"#).contains("no such system call"));
        assert!(why(r#"{"name": "read", "reason": "r", "args": []}"#).contains("unknown field"));
        let arg = |test: &str| format!(r#"{{"name": "fcntl", "reason": "r", "when": [{test}], "otherwise": "kill"}}"#);
        assert!(why(&arg(r#"{"arg": 1, "in": ["F_NONE"]}"#)).contains("unknown constant F_NONE"));
        assert!(why(&arg(r#"{"arg": 1, "eq": 1}"#)).contains("unknown field"));
        assert!(
            why(
                r#"{"name": "read", "reason": "r", "when": [{"arg": 0, "in": [1]}], "otherwise": {"errno": "AF_UNIX"}}"#
            )
            .contains("unknown errno")
        );
    }

    #[test]
    fn conditions_that_say_nothing() {
        for test in [
            r#"{"arg": 1}"#,
            r#"{"arg": 1, "in": []}"#,
            r#"{"arg": 1, "null": false}"#,
            r#"{"arg": 1, "without_bits": [0]}"#,
            r#"{"arg": 1, "between": [2, 1]}"#,
            r#"{"arg": 6, "in": [1]}"#,
            r#"{"arg": 1, "in": [1], "not_in": [2]}"#,
            r#"{"arg": 1, "in": [4294967296]}"#,
        ] {
            why(&format!(r#"{{"name": "fcntl", "reason": "r", "when": [{test}], "otherwise": "kill"}}"#));
        }
    }

    #[test]
    fn entries_without_a_reason_named_twice_or_half_conditional() {
        assert!(why(r#"{"name": "read", "reason": " "}"#).contains("who needs it"));
        assert!(why(r#"{"name": "read", "reason": "r"}, {"name": "read", "reason": "r"}"#).contains("named twice"));
        assert!(why(r#"{"name": "read", "reason": "r", "otherwise": "kill"}"#).contains("go together"));
        assert!(why(r#"{"name": "read", "reason": "r", "when": [{"arg": 0, "in": [1]}]}"#).contains("go together"));
        assert!(
            why(r#"{"name": "read", "reason": "r", "when": [{"arg": 0, "in": [1]}], "otherwise": "allow"}"#)
                .contains("differs")
        );
    }

    #[test]
    fn defaults_that_let_through() {
        let open = NATIVE.replacen(r#""unlisted": "notify""#, r#""unlisted": "allow""#, 1);
        assert!(Profile::parse(&open).unwrap_err().to_string().contains("cannot be allow"));
    }
}

mod interpreter {
    use super::*;
    use crate::seccomp::interpret::Fault;
    use crate::sys::seccomp::SockFilter;

    const CALL: Call = Call {
        nr: 7,
        arch: 3,
        instruction_pointer: 0x0000_000a_0000_000b,
        args: [0x0000_0001_0000_0002, 0, 0, 0, 0, 9],
    };

    fn run(program: &[(u16, u8, u8, u32)]) -> Result<u32, Fault> {
        let program: Vec<_> = program.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect();
        interpret(&program, &CALL).map(|verdict| verdict.value)
    }

    #[test]
    fn reads_every_field_of_the_call() {
        let words = [(0, 7), (4, 3), (8, 0xb), (12, 0xa), (16, 2), (20, 1), (56, 9), (60, 0)];
        for (offset, value) in words {
            assert_eq!(run(&[(0x20, 0, 0, offset), (0x16, 0, 0, 0)]), Ok(value), "offset {offset}");
        }
    }

    #[test]
    fn computes_and_jumps() {
        // A = 7 * 6 - 2; X = A; scratch[3] = X; A = scratch[3] & 0x28
        let program = [(0x20, 0, 0, 0), (0x24, 0, 0, 6), (0x14, 0, 0, 2), (0x07, 0, 0, 0), (0x03, 0, 0, 3)];
        assert_eq!(run(&[&program[..], &[(0x60, 0, 0, 3), (0x54, 0, 0, 0x28), (0x16, 0, 0, 0)]].concat()), Ok(40));
        for (code, k, holds) in [(0x15, 7, true), (0x25, 7, false), (0x35, 7, true), (0x45, 8, false), (0x45, 5, true)]
        {
            let program = [(0x20, 0, 0, 0), (code, 1, 0, k), (0x06, 0, 0, 0), (0x06, 0, 0, 1)];
            assert_eq!(run(&program), Ok(u32::from(holds)), "{code:#x} {k}");
        }
        assert_eq!(run(&[(0x05, 0, 0, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)]), Ok(2));
    }

    #[test]
    fn finds_what_the_kernel_would_refuse() {
        assert_eq!(run(&[(0x20, 0, 0, 64)]), Err(Fault::Load { at: 0, offset: 64 }));
        assert_eq!(run(&[(0x20, 0, 0, 2)]), Err(Fault::Load { at: 0, offset: 2 }));
        assert_eq!(run(&[(0x28, 0, 0, 0)]), Err(Fault::Instruction { at: 0, code: 0x28 }));
        assert_eq!(run(&[(0x05, 0, 0, u32::MAX), (0x06, 0, 0, 0)]), Err(Fault::End { at: 0x1_0000_0000 }));
        assert_eq!(run(&[(0x00, 0, 0, 1)]), Err(Fault::End { at: 1 }));
        assert_eq!(run(&[(0x34, 0, 0, 0)]), Err(Fault::DivisionByZero { at: 0 }));
        assert_eq!(run(&[(0x02, 0, 0, 16)]), Err(Fault::Scratch { at: 0, slot: 16 }));
    }
}
