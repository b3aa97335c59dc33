//! Do limits reach the kernel, and does the kernel's evidence come back? Runs on the host's real hierarchies, in nodes
//! of its own that it removes; where it may not make any, it says so and passes.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_core::cgroup::{
    CallLimits, Cgroups, Controller, File, Handover, Hierarchy, Leaf, LimitFiles, Mode, NodeLimits, Offer, open, probe,
};

const MIB: u64 = 1024 * 1024;
const LIMITS: CallLimits = CallLimits { cpu_quota_us: 50_000, cpu_weight: 200, memory_bytes: 32 * MIB, pids: 16 };

/// A worker's nodes as the launcher makes them, gone when the test ends.
struct House {
    cgroups: Box<dyn Cgroups>,
    handover: Handover,
    nodes: Vec<PathBuf>,
}

impl House {
    fn build(test: &str) -> Option<House> {
        House::build_for(test, probe().expect("mountinfo is readable"))
    }

    /// As on a host without a v2 mount, which a hybrid one can pretend to be.
    fn build_v1(test: &str) -> Option<House> {
        let mut offer = probe().expect("mountinfo is readable");
        let cpuacct = Path::new("/sys/fs/cgroup/cpuacct");
        if offer.mode != Mode::Hybrid || !cpuacct.exists() {
            eprintln!("skipped: no v1 hierarchies here");
            return None;
        }
        offer.mode = Mode::V1;
        offer.hierarchies.retain(|hierarchy| !hierarchy.is_v2());
        let accounts = Hierarchy { mount: cpuacct.to_owned(), controllers: vec![Controller::Cpuacct] };
        offer.hierarchies.push(accounts);
        House::build_for(test, offer)
    }

    fn build_for(test: &str, offer: Offer) -> Option<House> {
        let name = format!("mayfly-test-{}-{test}", std::process::id());
        let mut handover = Handover::new(offer.mode);
        let mut nodes = Vec::new();
        for hierarchy in &offer.hierarchies {
            let node = hierarchy.mount.join(&name);
            if let Err(error) = std::fs::create_dir(&node) {
                eprintln!("skipped: cannot make {}: {error}", node.display());
                return None;
            }
            if offer.mode == Mode::V2 {
                std::fs::write(node.join("cgroup.subtree_control"), "+cpu +memory +pids")
                    .expect("controllers are delegated");
            }
            handover.add(&hierarchy.controllers, std::fs::File::open(&node).expect("a node can be opened").into());
            nodes.push(node);
        }
        if offer.mode == Mode::None {
            eprintln!("skipped: this host has no cgroup controllers");
            return None;
        }
        let cgroups = open(handover.clone());
        cgroups
            .create_function(1, &NodeLimits { memory_bytes: Some(64 * MIB), pids: Some(32) })
            .expect("a function's node");
        Some(House { cgroups, handover, nodes })
    }

    /// What a limit file of the leaf says, read through the host's own mount.
    fn text(&self, file: &str) -> String {
        let paths = self.nodes.iter().map(|node| node.join("f1/s1").join(file));
        let path = paths.into_iter().find(|path| path.exists()).expect("a file of the leaf");
        std::fs::read_to_string(path).expect("a readable file").trim().to_owned()
    }

    fn leaf(&self, limits: &CallLimits) -> Leaf {
        self.cgroups.create_leaf(1, 1, Some(limits)).expect("a leaf")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for node in &self.nodes {
            for path in [node.join("f1/s1"), node.join("f1"), node.clone()] {
                let _ = std::fs::remove_dir(path);
            }
        }
    }
}

/// A shell inside the leaf. It waits for a line before it acts, so that all it does is counted.
fn start(leaf: &Leaf, script: &str) -> Child {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell");
    for procs in leaf.attach() {
        rustix::io::write(procs, shell.id().to_string().as_bytes()).expect("attached");
    }
    if let Some(dir) = leaf.into_cgroup() {
        let flags = rustix::fs::OFlags::WRONLY;
        let procs = rustix::fs::openat(dir, "cgroup.procs", flags, rustix::fs::Mode::empty()).expect("cgroup.procs");
        rustix::io::write(procs, shell.id().to_string().as_bytes()).expect("attached");
    }
    shell.stdin.as_mut().expect("a pipe").write_all(b"go\n").expect("the shell reads");
    shell
}

/// Removes the leaf as sandboxd does: the kernel says EBUSY for a moment after the last process was reaped.
fn remove(leaf: &Leaf) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = leaf.remove() {
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert!(Instant::now() < deadline, "the leaf stays busy");
        std::thread::yield_now();
    }
}

#[test]
fn limits_are_the_kernels_own_from_the_start_and_after_a_change() {
    let Some(house) = House::build("limits") else { return };
    let leaf = house.leaf(&LIMITS);
    let lower = CallLimits { cpu_quota_us: 1000, cpu_weight: 1, memory_bytes: 8 * MIB, pids: 3 };
    // Down, up and down again: memory and memory+swap must never cross.
    let mut current = LIMITS;
    for wanted in [lower, LIMITS, lower] {
        leaf.files().apply(&current, &wanted).unwrap();
        current = wanted;
    }
    assert_eq!(house.text("pids.max"), "3");
    match house.cgroups.mode() {
        Mode::V2 => {
            assert_eq!(house.text("cpu.max"), "1000 100000");
            assert_eq!(house.text("cpu.weight"), "1");
            assert_eq!(house.text("memory.max"), (8 * MIB).to_string());
        }
        _ => {
            assert_eq!(house.text("cpu.cfs_quota_us"), "1000");
            assert_eq!(house.text("cpu.cfs_period_us"), "100000");
            assert_eq!(house.text("cpu.shares"), "10");
            assert_eq!(house.text("memory.limit_in_bytes"), (8 * MIB).to_string());
        }
    }
    leaf.files().lift_cpu_quota().unwrap();
    let lifted = if house.cgroups.mode() == Mode::V2 { house.text("cpu.max") } else { house.text("cpu.cfs_quota_us") };
    assert!(["max 100000", "-1"].contains(&lifted.as_str()), "{lifted}");
    remove(&leaf);
    house.cgroups.remove_function(1).unwrap();
}

#[test]
fn files_work_the_same_in_the_process_they_are_handed_to() {
    let Some(house) = House::build("handout") else { return };
    let leaf = house.leaf(&LIMITS);
    let handed: LimitFiles = leaf
        .hand_out()
        .into_iter()
        .map(|(file, fd)| (File::from_u8(file as u8).unwrap(), fd.try_clone_to_owned().unwrap()))
        .collect();
    handed.apply(&LIMITS, &CallLimits { pids: 5, ..LIMITS }).unwrap();
    assert_eq!(house.text("pids.max"), "5");
    assert!(handed.usage().is_ok());
    remove(&leaf);
}

#[test]
fn no_limit_is_written_when_none_is_given() {
    let Some(house) = House::build("ablation") else { return };
    let leaf = house.cgroups.create_leaf(1, 1, None).unwrap();
    assert_eq!(house.text("pids.max"), "max");
    remove(&leaf);
}

#[test]
fn cpu_time_and_throttling_are_counted() {
    let Some(house) = House::build("cpu") else { return };
    let leaf = house.leaf(&CallLimits { cpu_quota_us: 5000, ..LIMITS });
    let mut spinner = start(&leaf, "while :; do :; done");
    let deadline = Instant::now() + Duration::from_secs(10);
    while leaf.files().cpu_ns().unwrap() < 20_000_000 {
        assert!(Instant::now() < deadline, "no CPU time is counted");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(leaf.remove().unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert_eq!(leaf.processes().unwrap(), [spinner.id()]);
    leaf.files().lift_cpu_quota().unwrap();
    spinner.kill().unwrap();
    spinner.wait().unwrap();
    assert!(leaf.incidents().unwrap().throttled_count > 0);
    remove(&leaf);
}

#[test]
fn v1_alone_takes_cpu_time_from_cpuacct() {
    let Some(house) = House::build_v1("v1") else { return };
    let leaf = house.leaf(&LIMITS);
    assert!(leaf.into_cgroup().is_none());
    assert!(leaf.files().get(File::CpuacctUsage).is_some() && leaf.files().get(File::CpuStat).is_none());
    start(&leaf, "x=1; while [ $x -lt 20000 ]; do x=$((x + 1)); done").wait().unwrap();
    assert!(leaf.files().usage().unwrap().cpu_ns > 1_000_000);
    remove(&leaf);
}

#[test]
fn a_refused_fork_is_counted() {
    let Some(house) = House::build("pids") else { return };
    let leaf = house.leaf(&CallLimits { pids: 1, ..LIMITS });
    start(&leaf, "(exit 0); exit 0").wait().unwrap();
    assert!(leaf.incidents().unwrap().pids_denied_count > 0);
    remove(&leaf);
}

#[test]
fn running_out_of_its_own_memory_leaves_both_traces() {
    let Some(house) = House::build("memory") else { return };
    let leaf = house.leaf(&CallLimits { memory_bytes: 8 * MIB, ..LIMITS });
    start(&leaf, "x=1234567890; while :; do x=$x$x; done").wait().unwrap();
    let incidents = leaf.incidents().unwrap();
    assert!(incidents.oom_kills > 0 && incidents.memory_limit_hits > 0, "{incidents:?}");
    assert!(leaf.files().usage().unwrap().memory_peak_bytes > 7 * MIB);
    if house.handover.dir(Controller::Memory).is_some() && house.cgroups.mode() != Mode::V2 {
        let mut count = [0; 8];
        rustix::io::read(leaf.oom_events().unwrap(), &mut count).unwrap();
        assert!(u64::from_ne_bytes(count) > 0);
        leaf.files().reset_memory_peak().unwrap();
        assert!(leaf.files().usage().unwrap().memory_peak_bytes < 8 * MIB);
    }
    remove(&leaf);
}

#[test]
fn a_leaf_of_the_dead_is_made_as_new() {
    let Some(house) = House::build("again") else { return };
    let mut leaf = house.leaf(&CallLimits { memory_bytes: 8 * MIB, ..LIMITS });
    start(&leaf, "x=1234567890; while :; do x=$x$x; done").wait().unwrap();
    let incidents = leaf.incidents().unwrap();
    assert!(incidents.oom_kills > 0, "{incidents:?}");
    // As a call would have left it.
    leaf.files()
        .apply(&LIMITS, &CallLimits { cpu_quota_us: 10_000, memory_bytes: 4 * MIB, pids: 2, cpu_weight: 1 })
        .unwrap();
    if house.cgroups.mode() == Mode::V2 && leaf.files().reset_memory_peak().is_err() {
        // Below Linux 6.12 a peak is for life.
        assert!(leaf.make_new(&LIMITS, &incidents).is_err());
        return remove(&leaf);
    }
    leaf.make_new(&LIMITS, &incidents).unwrap();
    let seen = leaf.incidents().unwrap();
    assert_eq!((seen.oom_kills, seen.memory_limit_hits), (0, 0), "{seen:?}");
    assert!(leaf.files().usage().unwrap().memory_peak_bytes <= 2 * MIB);
    // 8 MiB, and what the shell needs to double it.
    let growth = "x=12345678; i=0; while [ $i -lt 20 ]; do x=$x$x; i=$((i+1)); done";
    let ended = start(&leaf, growth).wait().unwrap();
    assert_eq!((ended.code(), leaf.incidents().unwrap().oom_kills), (Some(0), 0), "4 MiB would not do");
    assert!(leaf.files().usage().unwrap().memory_peak_bytes > 8 * MIB);
    let mut busy = start(&leaf, "read x");
    assert!(leaf.make_new(&LIMITS, &seen).is_err(), "somebody is in it");
    busy.kill().unwrap();
    busy.wait().unwrap();
    remove(&leaf);
}

#[test]
fn a_leaf_that_cannot_be_limited_leaves_nothing_behind() {
    let Some(house) = House::build("failure") else { return };
    let impossible = CallLimits { cpu_quota_us: 1, ..LIMITS };
    assert_eq!(house.cgroups.create_leaf(1, 1, Some(&impossible)).unwrap_err().kind(), ErrorKind::InvalidInput);
    house.cgroups.remove_function(1).unwrap();
}

#[test]
fn the_argument_of_the_command_line_carries_the_nodes() {
    let Some(house) = House::build("argument") else { return };
    let take = |number: i32| -> std::io::Result<OwnedFd> {
        let dir = house.handover.hierarchies().find(|dir| std::os::fd::AsRawFd::as_raw_fd(dir) == number).unwrap();
        dir.as_fd().try_clone_to_owned()
    };
    let handover = Handover::from_arg(&house.handover.to_arg(), take).unwrap();
    let leaf = open(handover).create_leaf(1, 2, Some(&LIMITS)).unwrap();
    remove(&leaf);
}
