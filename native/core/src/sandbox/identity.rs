//! Who the sandbox's processes are: nobody. A user namespace in which two ids exist, and none of the privileges that
//! being root there would bring.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::{await_maps, write_all};
use crate::ablate::Layer;
use crate::protocol::Spec;
use crate::stage::{At, SetupError, Stage};
use crate::sys;

/// Enters the user namespace that was made for this sandbox (userns.rs).
pub fn join_user_namespace(namespace: OwnedFd, lap: &mut dyn FnMut(Stage)) -> Result<(), SetupError> {
    // Before the namespace: afterwards setgroups is denied for good.
    rustix::thread::set_thread_groups(&[]).at(Stage::UserNamespace)?;
    sys::process::setns(namespace.as_fd(), libc::CLONE_NEWUSER).at(Stage::UserNamespace)?;
    lap(Stage::UserNamespace);
    Ok(())
}

/// Makes the sandbox's user namespace, in which 0 is the image owner and `spec.uid` the sandbox's own id. `sysctls` is
/// M's /proc/sys/user; looking a name up in it from here gives our namespace's.
pub fn make_user_namespace(
    spec: &Spec,
    control: BorrowedFd<'_>,
    sysctls: BorrowedFd<'_>,
    lap: &mut dyn FnMut(Stage),
) -> Result<(), SetupError> {
    if spec.ablation.keeps(Layer::Groups) {
        rustix::thread::set_thread_groups(&[]).at(Stage::UserNamespace)?;
    }
    if spec.ablation.keeps(Layer::UserNs) {
        sys::process::unshare_namespaces(libc::CLONE_NEWUSER).at(Stage::UserNamespace)?;
    }
    lap(Stage::UserNamespace);
    if spec.ablation.keeps(Layer::UserNs) {
        await_maps(control, spec.uid, spec.gid).at(Stage::IdMap)?;
    }
    lap(Stage::IdMap);
    if spec.ablation.keeps(Layer::NestedNs) {
        // Without a nested user namespace no other kind can be made either, for want of a capability.
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(sysctls, "max_user_namespaces", flags, Mode::empty());
        file.map_err(io::Error::from).and_then(|file| write_all(file.as_fd(), b"0")).at(Stage::NestedNamespaces)?;
    }
    lap(Stage::NestedNamespaces);
    Ok(())
}

/// Takes away what is left. Without a user namespace of its own (an ablation) the function is `id`, as M numbers it.
pub fn drop_privileges(spec: &Spec, id: u32, lap: &mut dyn FnMut(Stage)) -> Result<(), SetupError> {
    let does_drop = spec.ablation.keeps(Layer::Caps);
    if does_drop {
        drop_bounding_set().at(Stage::Privileges)?;
        // 0x2f: no root, no set-uid fix-up, no kept capabilities, each locked.
        let bits = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED;
        rustix::thread::set_capabilities_secure_bits(bits).at(Stage::Privileges)?;
    }
    let is_mapped = spec.ablation.keeps(Layer::UserNs);
    let (uid, gid) = if is_mapped { (spec.uid, spec.gid) } else { (id, id) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Stage::Privileges)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Stage::Privileges)?;
    if does_drop {
        rustix::thread::clear_ambient_capability_set().at(Stage::Privileges)?;
        let empty = CapabilitySet::empty();
        let sets = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
        rustix::thread::set_capabilities(None, sets).at(Stage::Privileges)?;
    }
    if spec.ablation.keeps(Layer::NoNewPrivs) {
        rustix::thread::set_no_new_privs(true).at(Stage::Privileges)?;
    }
    // init shares its uid with the function: without this the function could write init's memory (row E14).
    let dumpable =
        if spec.ablation.keeps(Layer::Dumpable) { DumpableBehavior::NotDumpable } else { DumpableBehavior::Dumpable };
    rustix::process::set_dumpable_behavior(dumpable).at(Stage::Privileges)?;
    lap(Stage::Privileges);
    Ok(())
}

/// Up to the first number the kernel does not know, which is EINVAL.
fn drop_bounding_set() -> io::Result<()> {
    for bit in 0..64 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
