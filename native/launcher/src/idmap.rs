//! How does M get its ids? Root writes the maps; for an ordinary user the helpers of the package uidmap do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

use crate::failure::{At, Failure, Stage};
use crate::ids::{Ids, Range};

/// Writes both maps of the user namespace that `child` has just made.
pub fn write(child: Pid, ids: &Ids) -> Result<(), Failure> {
    let child = child.as_raw_nonzero().get();
    let count = ids.width() - 1;
    match ids {
        Ids::Service { base } => {
            for map in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{child}/{map}"), format!("0 {base} {}\n", ids.width()))
                    .at(Stage::IdMap, map)?;
            }
            Ok(())
        }
        Ids::User { uid, gid, subuids, subgids } => {
            run("newuidmap", child, *uid, *subuids, count)?;
            run("newgidmap", child, *gid, *subgids, count)
        }
    }
}

/// 0 is the user, 1 to `count` their subordinate ids.
fn run(helper: &str, child: i32, own: u32, range: Range, count: u32) -> Result<(), Failure> {
    let Some(program) = find(helper) else {
        let remedy = "install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora), or start as root";
        return Err(Failure::host_unfit(Stage::IdMap, format!("{helper} is not installed"), remedy));
    };
    let numbers = [child.unsigned_abs(), 0, own, 1, 1, range.start, count];
    let output = Command::new(program).args(numbers.map(|number| number.to_string())).output();
    let output = output.at(Stage::IdMap, format!("starting {helper}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let remedy = "compare /etc/subuid and /etc/subgid with the ids above; the helper must be setuid root";
    Err(Failure::host_unfit(Stage::IdMap, format!("{helper}: {}", said.trim()), remedy))
}

/// Where a helper is, PATH or not: it may be short for a service.
pub fn find(helper: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin".into(), "/bin".into()]);
    folders.map(|folder| folder.join(helper)).find(|program| Path::new(program).is_file())
}
