//! What the launcher, sandboxd and the addon share: the kernel's calls, the limits, the messages and the filter.
//! Knows nothing of JavaScript, of HTTP or of which function is worth a sandbox.

pub mod ablate;
pub mod board;
pub mod cgroup;
pub mod link;
pub mod packet;
pub mod protocol;
pub mod sandbox;
pub mod seccomp;
pub mod stage;
pub mod sys;
pub mod watch;
