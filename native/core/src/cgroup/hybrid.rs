//! How does a hybrid host limit a sandbox? As v1 does, with a v2 leaf beside it in which the first process is born,
//! so that the whole sandbox can be killed at once and needs no cpuacct group.

use std::io;
use std::sync::Arc;

use super::files::CallLimits;
use super::handover::Handover;
use super::leaf::{Fittings, Leaf};
use super::{Cgroups, Mode, NodeLimits, build_leaf, nodes, v1, v2};

#[derive(Debug)]
pub(super) struct Hybrid {
    pub nodes: Arc<Handover>,
}

impl Cgroups for Hybrid {
    fn mode(&self) -> Mode {
        Mode::Hybrid
    }

    fn create_function(&self, function: u32, limits: &NodeLimits) -> io::Result<()> {
        v1::create_function(&self.nodes, function, limits)
    }

    fn remove_function(&self, function: u32) -> io::Result<()> {
        nodes::remove(&self.nodes, &nodes::function_path(function))
    }

    fn create_leaf(&self, function: u32, slot: u32, limits: Option<&CallLimits>) -> io::Result<Leaf> {
        build_leaf(&self.nodes, nodes::leaf_path(function, slot), limits, fit)
    }
}

fn fit(nodes: &Handover, path: &str) -> io::Result<Fittings> {
    let mut fittings = v1::fit(nodes, path)?;
    let unified = v2::entrance(nodes, path)?;
    fittings.into_cgroup = unified.into_cgroup;
    fittings.files.extend(unified.files);
    Ok(fittings)
}
