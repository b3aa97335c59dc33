//! Why is there no house? One value that says it to a program (code, stage, errno) and to a person (message, remedy).

use std::fmt;
use std::io;

use serde_json::{Value, json};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            const ALL: &[$name] = &[$($name::$variant),+];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            fn from_name(name: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
    };
}

names! {
    /// The steps of making the house, in their order; the names are part of what callers see.
    Stage {
        Options = "options",
        Home = "home",
        Lock = "lock",
        Janitor = "janitor",
        Ids = "ids",
        Record = "record",
        Cgroup = "cgroup",
        Sandboxd = "sandboxd",
        Layers = "layers",
        Fork = "fork",
        CgroupEnter = "cgroup_enter",
        Privileges = "privileges",
        Namespaces = "namespaces",
        IdMap = "id_map",
        Proc = "proc",
        Devices = "devices",
        Root = "root",
        Staging = "staging",
        PivotRoot = "pivot_root",
        Exec = "exec",
    }
}

names! {
    /// Whose problem it is: the host, or who started us, lacks something; another worker lives in this MAYFLY_HOME; a
    /// step failed that should not have.
    Code {
        HostUnfit = "HOST_UNFIT",
        HomeBusy = "HOME_BUSY",
        SetupFailed = "SETUP_FAILED",
    }
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub stage: Stage,
    /// 0 where no system call failed.
    pub errno: i32,
    pub message: String,
    pub remedy: String,
}

impl Failure {
    #[must_use]
    pub fn host_unfit(stage: Stage, message: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure { code: Code::HostUnfit, stage, errno: 0, message: message.into(), remedy: remedy.into() }
    }

    #[must_use]
    pub fn setup(stage: Stage, error: &io::Error, what: &str) -> Failure {
        let errno = error.raw_os_error().unwrap_or(0);
        let message = format!("{what}: {error}");
        Failure { code: Code::SetupFailed, stage, errno, message, remedy: String::new() }
    }

    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Failure {
        Failure { remedy: remedy.into(), ..self }
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code.name(),
            "stage": self.stage.name(),
            "errno": self.errno,
            "message": self.message,
            "remedy": self.remedy,
        })
    }

    /// The reverse, for what a child of ours reports.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Failure> {
        let text = |key: &str| value.get(key)?.as_str();
        Some(Failure {
            code: Code::from_name(text("code")?)?,
            stage: Stage::from_name(text("stage")?)?,
            errno: i32::try_from(value.get("errno")?.as_i64()?).ok()?,
            message: text("message")?.to_owned(),
            remedy: text("remedy")?.to_owned(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(f)
    }
}

/// Attaches the stage, and what was being done, where a call is made.
pub trait At<T> {
    fn at(self, stage: Stage, what: impl AsRef<str>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, stage: Stage, what: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|error| Failure::setup(stage, &error.into(), what.as_ref()))
    }
}
