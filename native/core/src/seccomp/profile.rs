//! What a profile says: for every system call what happens to it, and why. Strict: an unknown key, an unknown name, a
//! call named twice or one without a reason is an error, because each is a filter that means something else than its
//! author thinks.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;

use super::constants;
use super::names::{is_foreign, syscall_number};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub name: String,
    /// What this profile is for, in one sentence.
    pub about: String,
    /// For a call that exists but that no group names.
    pub unlisted: Action,
    /// For a number that no kernel known to this build has given out. ENOSYS is what lets a program built for a newer
    /// kernel fall back.
    pub unknown: Action,
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What these calls have in common, as a heading.
    pub about: String,
    pub action: Action,
    pub syscalls: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    /// Who needs it, or why it is refused.
    pub reason: String,
    /// The group's action holds only if all of these do.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// What happens otherwise; given exactly where `when` is.
    pub otherwise: Option<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    /// The call does nothing and returns this error.
    #[serde(deserialize_with = "errno")]
    Errno(u16),
    /// The call blocks and its listener learns its name; what follows is the death of the process.
    Notify,
    /// SIGSYS for every thread, unnamed.
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ConditionText")]
pub struct Condition {
    /// 0 to 5.
    pub arg: u8,
    pub test: Test,
}

/// All but `Null` see the low 32 bits, as the kernel does of an `int` argument: the upper half is not the caller's
/// promise, and comparing it would let a call differ from what the kernel then does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    In(Vec<u32>),
    NotIn(Vec<u32>),
    /// Inclusive, unsigned.
    Between(u32, u32),
    /// None of these bits is set.
    WithoutBits(u32),
    /// A pointer that is null, all 64 bits of it.
    Null,
}

#[derive(Debug)]
pub enum ProfileError {
    /// No JSON, or not of a profile's form.
    Form(serde_json::Error),
    UnknownSyscall {
        syscall: String,
    },
    NamedTwice {
        syscall: String,
    },
    NoReason {
        syscall: String,
    },
    /// `when` without `otherwise`, the reverse, or an `otherwise` that changes nothing.
    Otherwise {
        syscall: String,
    },
    /// A default that lets through what nobody thought of.
    OpenDefault {
        field: &'static str,
    },
    TooLong {
        instructions: usize,
    },
}

impl Profile {
    pub fn parse(json: &str) -> Result<Self, ProfileError> {
        let profile: Self = serde_json::from_str(json).map_err(ProfileError::Form)?;
        profile.check()?;
        Ok(profile)
    }

    /// Every entry with the action of its group.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, Action)> {
        self.groups.iter().flat_map(|group| group.syscalls.iter().map(|entry| (entry, group.action)))
    }

    fn check(&self) -> Result<(), ProfileError> {
        for (field, action) in [("unlisted", self.unlisted), ("unknown", self.unknown)] {
            if action == Action::Allow {
                return Err(ProfileError::OpenDefault { field });
            }
        }
        let mut seen = HashSet::new();
        for (entry, action) in self.entries() {
            let syscall = || entry.name.clone();
            if syscall_number(&entry.name).is_none() && !is_foreign(&entry.name) {
                return Err(ProfileError::UnknownSyscall { syscall: syscall() });
            }
            if !seen.insert(&entry.name) {
                return Err(ProfileError::NamedTwice { syscall: syscall() });
            }
            if entry.reason.trim().is_empty() {
                return Err(ProfileError::NoReason { syscall: syscall() });
            }
            if entry.when.is_empty() != entry.otherwise.is_none() || entry.otherwise == Some(action) {
                return Err(ProfileError::Otherwise { syscall: syscall() });
            }
        }
        Ok(())
    }
}

/// A condition as written: `arg` and exactly one test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionText {
    arg: u8,
    r#in: Option<Vec<Constant>>,
    not_in: Option<Vec<Constant>>,
    between: Option<(Constant, Constant)>,
    without_bits: Option<Vec<Constant>>,
    null: Option<bool>,
}

impl TryFrom<ConditionText> for Condition {
    type Error = &'static str;

    fn try_from(text: ConditionText) -> Result<Self, Self::Error> {
        let values = |list: Vec<Constant>| list.into_iter().map(|constant| constant.0).collect::<Vec<_>>();
        let tests = [
            text.r#in.map(|list| Test::In(values(list))),
            text.not_in.map(|list| Test::NotIn(values(list))),
            text.between.map(|(low, high)| Test::Between(low.0, high.0)),
            text.without_bits.map(|list| Test::WithoutBits(values(list).into_iter().fold(0, |mask, bit| mask | bit))),
            text.null.map(|_| Test::Null),
        ];
        let mut given = tests.into_iter().flatten();
        let (Some(test), None) = (given.next(), given.next()) else { return Err("a condition has exactly one test") };
        let is_void = match &test {
            Test::In(list) | Test::NotIn(list) => list.is_empty(),
            Test::Between(low, high) => low > high,
            Test::WithoutBits(mask) => *mask == 0,
            Test::Null => text.null == Some(false),
        };
        if is_void {
            return Err("a condition's test is empty");
        }
        if text.arg > 5 {
            return Err("a call has the arguments 0 to 5");
        }
        Ok(Self { arg: text.arg, test })
    }
}

/// A number, or the name of one in constants.rs.
#[derive(Deserialize)]
#[serde(try_from = "ConstantText")]
struct Constant(u32);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a constant is a number or a name")]
enum ConstantText {
    Number(u32),
    Name(String),
}

impl TryFrom<ConstantText> for Constant {
    type Error = String;

    fn try_from(text: ConstantText) -> Result<Self, Self::Error> {
        match text {
            ConstantText::Number(number) => Ok(Self(number)),
            ConstantText::Name(name) => constants::value(&name).map(Self).ok_or(format!("unknown constant {name}")),
        }
    }
}

fn errno<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let name = String::deserialize(deserializer)?;
    let value = constants::value(&name).filter(|_| name.starts_with('E')).and_then(|value| u16::try_from(value).ok());
    value.ok_or_else(|| serde::de::Error::custom(format!("unknown errno {name}")))
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(source) => write!(f, "not a seccomp profile: {source}"),
            Self::UnknownSyscall { syscall } => write!(f, "{syscall}: no such system call"),
            Self::NamedTwice { syscall } => write!(f, "{syscall}: named twice"),
            Self::NoReason { syscall } => write!(f, "{syscall}: an entry says who needs it, or why it is refused"),
            Self::Otherwise { syscall } => {
                write!(f, "{syscall}: `when` and `otherwise` go together, and `otherwise` differs from the action")
            }
            Self::OpenDefault { field } => write!(f, "{field}: a default cannot be allow"),
            Self::TooLong { instructions } => write!(f, "{instructions} instructions; the kernel takes 4096"),
        }
    }
}

impl std::error::Error for ProfileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Form(source) => Some(source),
            _ => None,
        }
    }
}
