//! What was asked for on the command line?

use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::failure::{Failure, Stage};

/// Just above the range that systemd-nspawn takes its ids from, and far from accounts and /etc/subuid.
const UID_BASE: u32 = 0x7000_0000;

/// Where the worker's cgroup nodes are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupChoice {
    /// `/mayfly` for root, the delegated group we are in for others.
    Auto,
    /// Below this group, named as in /proc/PID/cgroup.
    Below(PathBuf),
    /// Not at all; needs `allow_degraded`.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Make the house and put sandboxd into it.
    Launch,
    /// Remove what earlier lives left, and end.
    Clean,
    /// Say what the host offers, and end.
    Probe,
}

#[derive(Debug)]
pub struct Options {
    pub task: Task,
    pub home: PathBuf,
    pub sandboxd: PathBuf,
    pub instance: String,
    pub slots: u32,
    pub uid_base: u32,
    pub cgroup: CgroupChoice,
    pub control_fd: RawFd,
    pub is_degraded_allowed: bool,
    pub is_ablation_allowed: bool,
    /// Bytes all sandboxes and sandboxd may hold together; by default nine tenths of the host's.
    pub memory_budget: Option<u64>,
    /// Tasks of all sandboxes and sandboxd together; by default three quarters of the host's process ids.
    pub pids_budget: Option<u64>,
}

/// Reads the arguments after the program's name.
pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options {
        task: Task::Launch,
        home: PathBuf::new(),
        sandboxd: PathBuf::new(),
        instance: String::new(),
        slots: 64,
        uid_base: UID_BASE,
        cgroup: CgroupChoice::Auto,
        control_fd: 3,
        is_degraded_allowed: false,
        is_ablation_allowed: false,
        memory_budget: None,
        pids_budget: None,
    };
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--probe" => options.task = Task::Probe,
            "--clean-only" => options.task = Task::Clean,
            "--allow-degraded" => options.is_degraded_allowed = true,
            "--ablation-allowed" => options.is_ablation_allowed = true,
            _ => {
                let value = args.next().ok_or_else(|| refused(&format!("{flag} needs a value")))?;
                set(&mut options, &flag, value)?;
            }
        }
    }
    check(options)
}

fn set(options: &mut Options, flag: &str, value: String) -> Result<(), Failure> {
    match flag {
        "--home" => options.home = PathBuf::from(value),
        "--sandboxd" => options.sandboxd = PathBuf::from(value),
        "--instance" => options.instance = value,
        "--slots" => options.slots = number(flag, &value)?,
        "--uid-base" => options.uid_base = number(flag, &value)?,
        "--control-fd" => options.control_fd = number(flag, &value)?,
        "--memory-budget" => options.memory_budget = Some(number(flag, &value)?),
        "--pids-budget" => options.pids_budget = Some(number(flag, &value)?),
        "--cgroup" => {
            options.cgroup = match value.as_str() {
                "auto" => CgroupChoice::Auto,
                "none" => CgroupChoice::None,
                path => CgroupChoice::Below(PathBuf::from(path)),
            }
        }
        _ => return Err(refused(&format!("unknown flag {flag}"))),
    }
    Ok(())
}

fn check(options: Options) -> Result<Options, Failure> {
    let needs_home = options.task != Task::Probe;
    let needs_sandboxd = options.task == Task::Launch;
    if needs_home && !options.home.is_absolute() {
        return Err(refused("--home needs an absolute path"));
    }
    if needs_sandboxd && options.sandboxd.as_os_str().is_empty() {
        return Err(refused("--sandboxd needs a path"));
    }
    // It becomes a file name and a cgroup's name.
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if needs_sandboxd && !(1..=64).contains(&options.instance.len()) || !options.instance.bytes().all(is_name) {
        return Err(refused("--instance needs 1 to 64 of a-z, 0-9 and -"));
    }
    if options.slots == 0 || options.control_fd < 3 {
        return Err(refused("--slots needs at least 1, --control-fd at least 3"));
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| refused(&format!("{flag} needs a number, not {value:?}")))
}

fn refused(message: &str) -> Failure {
    let usage = "mayfly-launcher --home PATH --sandboxd PATH --instance ID [--slots N] [--uid-base N] \
         [--cgroup auto|PATH|none] [--control-fd N] [--memory-budget BYTES] [--pids-budget N] [--allow-degraded] \
         [--ablation-allowed], or --home PATH --clean-only, or --probe";
    Failure {
        code: crate::failure::Code::SetupFailed,
        stage: Stage::Options,
        errno: 0,
        message: message.to_owned(),
        remedy: usage.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Options, Failure> {
        parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_launch_names_home_sandboxd_and_instance() {
        let options = parse_words("--home /h --sandboxd /s --instance a-1 --cgroup /mine --slots 8").unwrap();
        assert_eq!(options.task, Task::Launch);
        assert_eq!(options.cgroup, CgroupChoice::Below(PathBuf::from("/mine")));
        assert_eq!(options.uid_base, 1_879_048_192);
    }

    #[test]
    fn an_instance_cannot_be_a_path() {
        for instance in ["../x", "a/b", "A", ".", ""] {
            let words = ["--home", "/h", "--sandboxd", "/s", "--instance", instance];
            assert!(parse(words.into_iter().map(str::to_owned)).is_err(), "{instance}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_usage() {
        for words in ["--homes /h", "--slots x", "--slots", "--home relative --clean-only", ""] {
            assert_eq!(parse_words(words).unwrap_err().stage, Stage::Options, "{words}");
        }
    }

    #[test]
    fn cleaning_and_probing_need_little() {
        assert_eq!(parse_words("--home /h --clean-only").unwrap().task, Task::Clean);
        assert_eq!(parse_words("--probe").unwrap().task, Task::Probe);
    }
}
