//! From a profile to a BPF program, and an interpreter that proves it.
//!
//! A profile (`images/profiles/*.json`) says of every system call what happens to it and why. [`compile`] turns it
//! into the program that sandboxd's child loads just before exec. [`interpret`] runs such a program over one call
//! without the kernel and shares no code with the compiler, so that the tests can compare the two.

mod compile;
mod constants;
pub mod interpret;
mod names;
mod profile;
mod program;
#[cfg(test)]
mod tests;

pub use compile::compile;
pub use names::{syscall_name, syscall_number, syscalls};
pub use profile::{Action, Condition, Entry, Group, Profile, ProfileError, Test};
pub use program::{AUDIT_ARCH, Program, ProgramError};
