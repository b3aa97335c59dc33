//! A compiled filter: at most 4096 instructions, and the bytes they travel as.

use std::fmt;

use crate::sys::seccomp::SockFilter;

/// The architecture whose system calls a filter of this build admits (linux/audit.h).
#[cfg(target_arch = "x86_64")]
pub const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const AUDIT_ARCH: u32 = 0xc000_00b7;

/// BPF_MAXINSNS of linux/bpf_common.h.
const INSTRUCTIONS_MAX: usize = 4096;
/// `struct sock_filter`: u16 code, u8 jt, u8 jf, u32 k.
const INSTRUCTION_BYTES: usize = 8;

/// Classic BPF over `struct seccomp_data`. The kernel verifies it at load; this type only keeps its length legal.
#[derive(Clone)]
pub struct Program(Vec<SockFilter>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramError {
    /// None, or more than the kernel takes.
    Length { instructions: usize },
    /// Not a whole number of instructions.
    Truncated { bytes: usize },
}

impl Program {
    pub fn new(instructions: Vec<SockFilter>) -> Result<Self, ProgramError> {
        if instructions.is_empty() || instructions.len() > INSTRUCTIONS_MAX {
            return Err(ProgramError::Length { instructions: instructions.len() });
        }
        Ok(Self(instructions))
    }

    pub fn instructions(&self) -> &[SockFilter] {
        &self.0
    }

    /// The memory of a `sock_filter` array: what is written where the loading process will read it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * INSTRUCTION_BYTES);
        for instruction in &self.0 {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProgramError> {
        let (words, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        if !rest.is_empty() {
            return Err(ProgramError::Truncated { bytes: bytes.len() });
        }
        let instruction = |&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; INSTRUCTION_BYTES]| SockFilter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        };
        Self::new(words.iter().map(instruction).collect())
    }
}

/// One instruction a line, as `bpf_dbg` prints its bytecode: code, jt, jf, k.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.iter().map(|i| format!("{:#06x} {} {} {:#x}", i.code, i.jt, i.jf, i.k));
        f.debug_list().entries(lines).finish()
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { instructions } => {
                write!(f, "a filter of {instructions} instructions: the kernel takes 1 to {INSTRUCTIONS_MAX}")
            }
            Self::Truncated { bytes } => write!(f, "{bytes} bytes are no whole number of BPF instructions"),
        }
    }
}

impl std::error::Error for ProgramError {}
