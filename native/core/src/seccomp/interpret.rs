//! Runs a classic BPF program over one system call, as the kernel would. Written from the BPF paper's instruction set
//! and what seccomp(2) admits of it, and sharing nothing with the compiler but the instruction's layout: two
//! programmers who misread the same table would have to misread it alike.

use crate::sys::seccomp::SockFilter;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub nr: u32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// What the kernel's verifier would have refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No such instruction, or none that a seccomp filter may use.
    Instruction {
        at: usize,
        code: u16,
    },
    /// A load outside the call, or not of an aligned word.
    Load {
        at: usize,
        offset: u32,
    },
    /// A jump or the last instruction leads past the end.
    End {
        at: usize,
    },
    /// A slot outside the sixteen of scratch memory.
    Scratch {
        at: usize,
        slot: u32,
    },
    DivisionByZero {
        at: usize,
    },
}

/// What the program returned, and how many instructions that took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub value: u32,
    pub steps: usize,
}

/// Jumps only lead forward, so every program ends.
pub fn interpret(program: &[SockFilter], call: &Call) -> Result<Verdict, Fault> {
    let mut machine = Machine { accumulator: 0, index: 0, scratch: [0; 16] };
    let (mut at, mut steps) = (0, 0);
    loop {
        let instruction = program.get(at).ok_or(Fault::End { at })?;
        steps += 1;
        match machine.step(at, instruction, call)? {
            Next::Return(value) => return Ok(Verdict { value, steps }),
            Next::Skip(count) => {
                at = usize::try_from(count).ok().and_then(|n| at.checked_add(n)).ok_or(Fault::End { at })? + 1
            }
        }
    }
}

enum Next {
    Return(u32),
    Skip(u32),
}

struct Machine {
    accumulator: u32,
    index: u32,
    scratch: [u32; 16],
}

impl Machine {
    fn step(&mut self, at: usize, i: &SockFilter, call: &Call) -> Result<Next, Fault> {
        let illegal = Err(Fault::Instruction { at, code: i.code });
        // The three low bits are the class; each class reads the rest of the code in its own way.
        match i.code & 0x07 {
            0x00 => self.accumulator = self.loaded(at, i, call)?,
            0x01 => self.index = self.loaded(at, i, call)?,
            0x02 if i.code == 0x02 => *self.slot(at, i.k)? = self.accumulator,
            0x03 if i.code == 0x03 => *self.slot(at, i.k)? = self.index,
            0x04 => self.accumulator = self.computed(at, i)?,
            0x05 => return self.jump(at, i),
            0x06 => match i.code & 0x18 {
                0x00 => return Ok(Next::Return(i.k)),
                0x10 => return Ok(Next::Return(self.accumulator)),
                _ => return illegal,
            },
            0x07 => match i.code {
                0x07 => self.index = self.accumulator,
                0x87 => self.accumulator = self.index,
                _ => return illegal,
            },
            _ => return illegal,
        }
        Ok(Next::Skip(0))
    }

    /// Into either register: a constant, scratch memory, the call's length, or (A only) a word of the call.
    fn loaded(&mut self, at: usize, i: &SockFilter, call: &Call) -> Result<u32, Fault> {
        match i.code & !0x01 {
            0x00 => Ok(i.k),
            0x60 => Ok(*self.slot(at, i.k)?),
            0x80 => Ok(64),
            0x20 if i.code == 0x20 => word(call, i.k).ok_or(Fault::Load { at, offset: i.k }),
            _ => Err(Fault::Instruction { at, code: i.code }),
        }
    }

    fn slot(&mut self, at: usize, slot: u32) -> Result<&mut u32, Fault> {
        let index = usize::try_from(slot).unwrap_or(usize::MAX);
        self.scratch.get_mut(index).ok_or(Fault::Scratch { at, slot })
    }

    fn operand(&self, i: &SockFilter) -> u32 {
        if i.code & 0x08 == 0 { i.k } else { self.index }
    }

    fn computed(&self, at: usize, i: &SockFilter) -> Result<u32, Fault> {
        let (a, b) = (self.accumulator, self.operand(i));
        match i.code & 0xf0 {
            0x00 => Ok(a.wrapping_add(b)),
            0x10 => Ok(a.wrapping_sub(b)),
            0x20 => Ok(a.wrapping_mul(b)),
            0x30 => a.checked_div(b).ok_or(Fault::DivisionByZero { at }),
            0x40 => Ok(a | b),
            0x50 => Ok(a & b),
            0x60 => Ok(a.wrapping_shl(b)),
            0x70 => Ok(a.wrapping_shr(b)),
            0x80 => Ok(a.wrapping_neg()),
            0xa0 => Ok(a ^ b),
            _ => Err(Fault::Instruction { at, code: i.code }),
        }
    }

    fn jump(&self, at: usize, i: &SockFilter) -> Result<Next, Fault> {
        let (a, b) = (self.accumulator, self.operand(i));
        let holds = match i.code & 0xf0 {
            0x00 if i.code == 0x05 => return Ok(Next::Skip(i.k)),
            0x10 => a == b,
            0x20 => a > b,
            0x30 => a >= b,
            0x40 => a & b != 0,
            _ => return Err(Fault::Instruction { at, code: i.code }),
        };
        Ok(Next::Skip(u32::from(if holds { i.jt } else { i.jf })))
    }
}

/// The aligned 32-bit word at `offset` of the call's memory.
fn word(call: &Call, offset: u32) -> Option<u32> {
    let mut memory = [0u8; 64];
    memory[0..4].copy_from_slice(&call.nr.to_ne_bytes());
    memory[4..8].copy_from_slice(&call.arch.to_ne_bytes());
    memory[8..16].copy_from_slice(&call.instruction_pointer.to_ne_bytes());
    for (at, arg) in call.args.iter().enumerate() {
        memory[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_ne_bytes());
    }
    let (words, _) = memory.as_chunks::<4>();
    let index = usize::try_from(offset / 4).ok().filter(|_| offset.is_multiple_of(4))?;
    words.get(index).map(|bytes| u32::from_ne_bytes(*bytes))
}
