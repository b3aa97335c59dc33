//! What runs where nothing can be limited and `--allow-degraded` accepts that: leaves without files.

use std::io;
use std::sync::Arc;

use super::files::CallLimits;
use super::handover::Handover;
use super::leaf::{Fittings, Leaf};
use super::{Cgroups, Mode, NodeLimits};

#[derive(Debug)]
pub(super) struct NoCgroups;

impl Cgroups for NoCgroups {
    fn mode(&self) -> Mode {
        Mode::None
    }

    fn create_function(&self, _function: u32, _limits: &NodeLimits) -> io::Result<()> {
        Ok(())
    }

    fn remove_function(&self, _function: u32) -> io::Result<()> {
        Ok(())
    }

    fn create_leaf(&self, _function: u32, _slot: u32, _limits: Option<&CallLimits>) -> io::Result<Leaf> {
        Ok(Leaf::new(Arc::new(Handover::new(Mode::None)), String::new(), Fittings::default()))
    }
}
