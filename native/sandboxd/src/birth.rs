//! From a request to build until the nursery has borne the sandbox's first process, or has not.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::ablate::Layer;
use mayfly_core::board::{now_ns, short_ns};
use mayfly_core::packet;
use mayfly_core::protocol::{Birth, Event, Failure, Order, Remains};
use mayfly_core::stage::{At, SetupError, Stage};
use rustix::process::Pid;

use crate::daemon::Daemon;
use crate::slot::{Ending, Group, Sandbox, Slot, Unborn};
use crate::watch::Source;

/// A build takes milliseconds; one that takes this long is stuck and gives its slot back.
pub const BUILD_WITHIN_NS: u64 = 20_000_000_000;
/// How many orders the nursery has at once: it makes one sandbox at a time, and what is sent cannot be overtaken.
const ORDERS_AHEAD: usize = 2;

impl Daemon {
    pub fn build(
        &mut self,
        slot: u32,
        generation: u32,
        function: u32,
        is_awaited: bool,
        known_leaf: Option<u32>,
    ) -> io::Result<()> {
        if !matches!(self.slots.get(slot as usize), Some(Slot::Empty)) {
            // The worker built where it must not: tell it, and touch nothing.
            return self.fail(
                slot,
                generation,
                &SetupError { stage: Stage::Clone, source: io::ErrorKind::ResourceBusy.into() },
            );
        }
        self.board.clear(slot);
        let since_ns = now_ns();
        match self.prepare(slot, generation, function) {
            Ok(order) => {
                let order = Unborn { is_awaited, is_leaf_known: known_leaf == Some(order.group.leaf_of), ..order };
                self.slots[slot as usize] = Slot::Ordered { order, since_ns };
            }
            Err(error) => return self.fail(slot, generation, &error),
        }
        self.stuck_at_ns = self.stuck_at_ns.min(since_ns + BUILD_WITHIN_NS);
        // Calls that wait, in their order, go before what is only to be kept ready.
        let awaited = self.orders.iter().take_while(|other| self.is_awaited(**other)).count();
        self.orders.insert(if is_awaited { awaited } else { self.orders.len() }, slot);
        self.send_orders()
    }

    fn is_awaited(&self, slot: u32) -> bool {
        matches!(&self.slots[slot as usize], Slot::Ordered { order, .. } if order.is_awaited)
    }

    fn fail(&mut self, slot: u32, generation: u32, error: &SetupError) -> io::Result<()> {
        let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
        let failure = Failure::Stage { stage: error.stage, errno };
        self.tell(Event::Failed { slot, generation, failure })
    }

    fn prepare(&mut self, slot: u32, generation: u32, id: u32) -> Result<Unborn, SetupError> {
        let missing = || SetupError { stage: Stage::Spec, source: io::ErrorKind::NotFound.into() };
        let started = now_ns();
        let group = self.group_for(slot, generation, id).ok_or_else(missing)?.at(Stage::Cgroup)?;
        let mut stage_ns = vec![0; Stage::COUNT];
        stage_ns[Stage::Cgroup as usize] = short_ns(now_ns() - started);
        let (control, theirs) = packet::pair().at(Stage::Clone)?;
        let control_of_child = Some(theirs);
        Ok(Unborn {
            generation,
            control,
            control_of_child,
            group,
            is_leaf_known: false,
            stage_ns,
            is_awaited: false,
            id: None,
            doom: None,
        })
    }

    /// The group of the slot's last sandbox, if it was of the same function, or a new one.
    fn group_for(&mut self, slot: u32, generation: u32, id: u32) -> Option<io::Result<Group>> {
        let function = self.functions.get(&id)?;
        let limits = function.ablation.keeps(Layer::Cgroup).then_some(&function.limits);
        if let Some(kept) = self.kept_groups.remove(&slot) {
            if kept.function == id {
                return Some(Ok(kept));
            }
            // Nobody is in it.
            let _ = kept.leaf.remove();
        }
        Some(self.cgroups.create_leaf(id, slot, limits).map(|leaf| Group { function: id, leaf, leaf_of: generation }))
    }

    pub fn forget_groups(&mut self, function: u32) {
        for (_, gone) in self.kept_groups.extract_if(|_, kept| kept.function == function) {
            let _ = gone.leaf.remove();
        }
    }

    /// A few at a time: what waits here can still be overtaken.
    fn send_orders(&mut self) -> io::Result<()> {
        while self.ordered < ORDERS_AHEAD
            && let Some(slot) = self.orders.pop_front()
        {
            let Slot::Ordered { order, .. } = &mut self.slots[slot as usize] else { continue };
            let theirs = order.control_of_child.take().filter(|_| order.doom.is_none());
            let (Some(theirs), Some(function)) = (theirs, self.functions.get(&order.group.function)) else {
                self.unborn(slot, Failure::Stage { stage: Stage::Clone, errno: libc::ECANCELED })?;
                continue;
            };
            let leaf = &order.group.leaf;
            let attach: Vec<_> = leaf.attach().collect();
            let (id, next_id) = self.ids.take();
            order.id = Some(id);
            let message = Order {
                slot,
                id,
                next_id,
                has_pid_namespace: function.ablation.keeps(Layer::PidNs),
                attach_count: attach.len(),
                has_cgroup: leaf.into_cgroup().is_some(),
            };
            let mut descriptors = vec![theirs.as_fd(), function.spec.as_fd()];
            descriptors.extend(attach);
            descriptors.extend(leaf.into_cgroup());
            self.nursery.order(&message, &descriptors)?;
            self.ordered += 1;
        }
        Ok(())
    }

    /// What came of orders.
    pub fn hear_nursery(&mut self) -> io::Result<()> {
        while let Some((answer, pidfd)) = self.nursery.answer()? {
            self.ordered -= 1;
            match (answer, pidfd) {
                (Birth::Born { slot, pid }, Some(pidfd)) => self.born(slot, pid, pidfd)?,
                (Birth::Born { .. }, None) => return Err(io::ErrorKind::InvalidData.into()),
                (Birth::Failed { slot, stage, errno }, _) => self.unborn(slot, Failure::Stage { stage, errno })?,
            }
        }
        self.send_orders()
    }

    fn born(&mut self, slot: u32, pid: i32, pidfd: OwnedFd) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Slot::Ordered { order, since_ns } = std::mem::replace(state, Slot::Empty) else {
            return Err(io::Error::other("the nursery bore what was not ordered"));
        };
        let Unborn { generation, control, group, is_leaf_known, mut stage_ns, is_awaited, doom, id, .. } = order;
        let (init, id) = Pid::from_raw(pid).zip(id).ok_or(io::ErrorKind::InvalidData)?;
        let waited = short_ns(now_ns() - since_ns);
        stage_ns[Stage::Clone as usize] = waited.saturating_sub(stage_ns[Stage::Cgroup as usize]);
        let sandbox = Sandbox { generation, id, init, pidfd, control, listener: None, group, is_leaf_known, stage_ns };
        let watched = self.watch_sandbox(slot, &sandbox);
        let state = &mut self.slots[slot as usize];
        *state = Slot::Building { sandbox, since_ns, is_awaited };
        if let Some(end) = doom {
            state.kill(end);
        }
        if let Err(error) = watched {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            state.kill(Ending::Failed(Failure::Stage { stage: Stage::Clone, errno }));
            // Its death may wake nobody, so it is looked for.
            self.unburied.push(slot);
        }
        Ok(())
    }

    /// No process came of the order.
    fn unborn(&mut self, slot: u32, failure: Failure) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Slot::Ordered { mut order, .. } = std::mem::replace(state, Slot::Empty) else { return Ok(()) };
        let end = order.doom.take().unwrap_or(Ending::Failed(failure));
        if let Some(id) = order.id {
            self.ids.give_back(id);
        }
        // Nobody was ever in it.
        let _ = order.group.leaf.remove();
        self.conclude(slot, order.generation, end, Remains::default())
    }

    fn watch_sandbox(&self, slot: u32, sandbox: &Sandbox) -> io::Result<()> {
        Source::Init.watch(&self.watch, &sandbox.pidfd, slot, sandbox.generation)?;
        Source::Control.watch(&self.watch, &sandbox.control, slot, sandbox.generation)?;
        match sandbox.group.leaf.oom_events() {
            Some(events) => Source::OutOfMemory.watch(&self.watch, events, slot, sandbox.generation),
            None => Ok(()),
        }
    }
}
