//! The named steps of building a sandbox, which errors and timings carry.

use std::fmt;
use std::io;

macro_rules! stages {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// In the order in which a sandbox is built; the numbers cross the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[repr(u8)]
        pub enum Stage { $($variant),+ }

        impl Stage {
            pub const ALL: &[Stage] = &[$(Stage::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Stage::$variant => $name),+ }
            }
        }
    };
}

stages! {
    Ahead = "ahead",
    TimeNamespace = "time_namespace",
    Loopback = "loopback",
    Cgroup = "cgroup",
    Clone = "clone",
    Spec = "spec",
    CgroupAttach = "cgroup_attach",
    Namespaces = "namespaces",
    Hostname = "hostname",
    Tmpfs = "tmpfs",
    Overlay = "overlay",
    Proc = "proc",
    Dev = "dev",
    Writable = "writable",
    PivotRoot = "pivot_root",
    UserNamespace = "user_namespace",
    IdMap = "id_map",
    NestedNamespaces = "nested_namespaces",
    Privileges = "privileges",
    Channels = "channels",
    Rlimits = "rlimits",
    Cwd = "cwd",
    Seccomp = "seccomp",
    Exec = "exec",
    Park = "park",
}

impl Stage {
    pub const COUNT: usize = Stage::ALL.len();
}

/// A stage that failed, and why.
#[derive(Debug)]
pub struct SetupError {
    pub stage: Stage,
    pub source: io::Error,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage.name(), self.source)
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Attaches the stage to an error where the call is made.
pub trait At<T> {
    /// # Errors
    /// The error it is called on, with its stage.
    fn at(self, stage: Stage) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Result<T, SetupError> {
        self.map_err(|source| SetupError { stage, source: source.into() })
    }
}
