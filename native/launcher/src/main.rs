//! The launcher: makes the house within the house, puts sandboxd into it and ends.
//!
//! Root of the host or an ordinary user at first; what it starts is root of M and nobody outside. It never stays: its
//! exit code 0 means that sandboxd runs. Every failure is one JSON line on stderr.

mod failure;
mod groups;
mod home;
mod house;
mod idmap;
mod ids;
mod janitor;
mod options;
mod probe;
mod record;
mod rooms;

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use mayfly_core::sys::process::adopt;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit};

use failure::{At, Failure, Stage};
use home::{Home, Owner};
use house::Plans;
use ids::Ids;
use options::{Options, Task};
use record::{Process, Record};
use rooms::Layers;

/// sandboxd's share of descriptors for a sandbox, with room: about 18 were counted.
const DESCRIPTORS_PER_SLOT: u64 = 24;

fn main() -> ExitCode {
    let result = options::parse(std::env::args().skip(1)).and_then(|options| match options.task {
        Task::Launch => launch(&options),
        Task::Clean => clean(&options),
        Task::Probe => print(&probe::report(&options)),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &serde_json::Value) -> Result<(), Failure> {
    writeln!(io::stdout(), "{report}").at(Stage::Options, "printing the report")
}

/// At the end of a life, when sandboxd is gone: possibly as the service id itself.
fn clean(options: &Options) -> Result<(), Failure> {
    let owner = if geteuid().is_root() {
        Owner { uid: options.uid_base, gid: options.uid_base }
    } else {
        Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    };
    janitor::clean(&Home::open(&options.home, owner)?)
}

fn launch(options: &Options) -> Result<(), Failure> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let control = adopt(options.control_fd).at(Stage::Options, format!("--control-fd {}", options.control_fd))?;
    let ids = Ids::choose(options.uid_base, options.slots)?;
    let home = Home::open(&options.home, Owner { uid: ids.root_uid(), gid: ids.root_gid() })?;
    let _ = home.name_holder(std::process::id());
    janitor::clean(&home)?;
    let sandboxd = open_sandboxd(options)?;
    let plan = groups::plan(options)?;
    let mut record = Record {
        instance: options.instance.clone(),
        boot_id: record::boot_id().at(Stage::Record, "reading the boot id")?,
        process: Process::of(std::process::id()).at(Stage::Record, "reading /proc")?,
        cgroups: plan.paths(),
    };
    record.write(&home).at(Stage::Record, "writing the record of this life")?;
    // From here on the kernel holds things of ours.
    let result = start(options, &home, &plan, ids, sandboxd, control);
    match result {
        Ok(pid) => settle(&home, &mut record, pid),
        Err(failure) => {
            // Its own error would hide the one that matters, and the next start cleans again.
            let _ = janitor::clean(&home);
            Err(failure)
        }
    }
}

fn start(
    options: &Options,
    home: &Home,
    plan: &groups::Plan,
    ids: Ids,
    sandboxd: OwnedFd,
    control: OwnedFd,
) -> Result<u32, Failure> {
    raise_descriptor_limit(options.slots);
    let groups = plan.build(&ids, options)?;
    let layers = match ids {
        Ids::Service { .. } => {
            Layers::Detached(rooms::detach_layers(home.layers()).at(Stage::Layers, "detaching the layers' mount")?)
        }
        Ids::User { .. } => Layers::Path(home.path.join("layers")),
    };
    let lock = home.lock().try_clone_to_owned().at(Stage::Lock, "passing the lock on")?;
    let mut argv = vec!["mayfly-sandboxd".to_owned()];
    for (flag, value) in [
        ("--control", control.as_raw_fd().to_string()),
        ("--slots", options.slots.to_string()),
        ("--ids", ids.width().to_string()),
        ("--instance", options.instance.clone()),
        ("--cgroup", groups.handover.to_arg()),
        ("--lock", lock.as_raw_fd().to_string()),
    ] {
        argv.extend([flag.to_owned(), value]);
    }
    if !plan.missing.is_empty() {
        argv.push("--degraded".to_owned());
    }
    if options.is_ablation_allowed {
        argv.push("--ablation-allowed".to_owned());
    }
    let argv: Result<_, _> = argv.into_iter().map(CString::new).collect();
    let argv = argv.at(Stage::Exec, "an argument of sandboxd")?;
    house::build(Plans { ids, groups, layers, sandboxd, argv, inherited: vec![control, lock] })
}

/// Names sandboxd in the record and the lock, now that there is one. It may already be gone again: its worker sees
/// that on the socket.
fn settle(home: &Home, record: &mut Record, pid: u32) -> Result<(), Failure> {
    if let Ok(process) = Process::of(pid) {
        record.process = process;
        record.write(home).at(Stage::Record, "naming sandboxd in the record")?;
        let _ = home.name_holder(pid);
    }
    Ok(())
}

/// By descriptor: it may lie in a folder that M's root, who execs it, cannot walk through.
fn open_sandboxd(options: &Options) -> Result<OwnedFd, Failure> {
    let (path, remedy) = (options.sandboxd.display(), "build it: npm run setup");
    let file = openat(CWD, &options.sandboxd, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.at(Stage::Sandboxd, format!("opening {path}")).map_err(|failure| failure.with_remedy(remedy))?;
    let stat = fstat(&file).at(Stage::Sandboxd, "stat")?;
    // Readable by others too, or the kernel makes sandboxd undumpable and refuses it its children's id maps.
    let is_program = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o005 == 0o005;
    if !is_program {
        let message = format!("{path} is not a program that anybody may read and execute");
        return Err(Failure::host_unfit(Stage::Sandboxd, message, format!("chmod 755 {path}")));
    }
    Ok(file)
}

/// As far as the host lets us; a worker that runs short of descriptors says so itself.
fn raise_descriptor_limit(slots: u32) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(slots) * DESCRIPTORS_PER_SLOT + 1024;
    let raised = limit.maximum.map(|maximum| maximum.max(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: raised }).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
