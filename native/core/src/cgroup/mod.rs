//! Limits and usage of a sandbox, whatever cgroup hierarchy the host has.
//!
//! `mode` finds out what there is, the launcher makes the worker's nodes and passes them on as a `Handover`, `open`
//! turns that into the one trait sandboxd builds with, and `LimitFiles` is what the hot path writes and reads.
//!
//! ```text
//! <mount>/mayfly-<id> / <instance> / f<function> / s<slot>
//!                  worker node  function node  leaf: one sandbox, made when it is bound, since it cannot move
//! ```

mod files;
mod format;
mod handover;
mod hybrid;
mod leaf;
mod mode;
mod nodes;
mod none;
mod v1;
mod v2;

use std::io;
use std::sync::Arc;

use leaf::Fittings;

pub use files::{CPU_PERIOD_US, CallLimits, File, LimitFiles, Usage};
pub use handover::{Controller, Handover};
pub use leaf::{Held, Incidents, Leaf};
pub use mode::{Hierarchy, Mode, Offer, probe};

/// Limits of a function as a whole, over all its sandboxes; `None` leaves that to the worker's node above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
}

/// How sandboxd makes and removes groups.
pub trait Cgroups: std::fmt::Debug {
    fn mode(&self) -> Mode;

    fn create_function(&self, function: u32, limits: &NodeLimits) -> io::Result<()>;

    /// EBUSY while one of its leaves exists.
    fn remove_function(&self, function: u32) -> io::Result<()>;

    /// `None` writes no limit: the switch with which tests show what the limits stop. On failure nothing stays.
    fn create_leaf(&self, function: u32, slot: u32, limits: Option<&CallLimits>) -> io::Result<Leaf>;
}

/// The implementation for what the launcher found.
#[must_use]
pub fn open(handover: Handover) -> Box<dyn Cgroups> {
    let nodes = Arc::new(handover);
    match nodes.mode {
        Mode::V1 => Box::new(v1::V1 { nodes }),
        Mode::V2 => Box::new(v2::V2 { nodes }),
        Mode::Hybrid => Box::new(hybrid::Hybrid { nodes }),
        Mode::None => Box::new(none::NoCgroups),
    }
}

/// Makes a leaf's group and lets the cgroup version fit it out; when that fails, removes the group again.
fn build_leaf(
    nodes: &Arc<Handover>,
    path: String,
    limits: Option<&CallLimits>,
    fit: impl FnOnce(&Handover, &str) -> io::Result<Fittings>,
) -> io::Result<Leaf> {
    nodes::create(nodes, &path)?;
    let fitted = fit(nodes, &path).and_then(|fittings| {
        if let Some(limits) = limits {
            fittings.files.apply(&CallLimits::NONE, limits)?;
        }
        Ok(fittings)
    });
    match fitted {
        Ok(fittings) => Ok(Leaf::new(Arc::clone(nodes), path, fittings)),
        Err(error) => {
            // Nobody entered it, so that this cannot be EBUSY; the error worth telling is the first.
            let _ = nodes::remove(nodes, &path);
            Err(error)
        }
    }
}
