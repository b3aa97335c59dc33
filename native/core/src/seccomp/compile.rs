//! Turns a profile into classic BPF.
//!
//! The numbers are cut into ranges of equal treatment and searched as a balanced tree, since the kernel runs a filter
//! once per number when it is loaded: a tree halves the cost of an install against a list. A call with conditions
//! gets a small block at its leaf.
//!
//! BPF only jumps forward, so the program is written from its end: whatever an instruction jumps to is there already
//! and its distance is known.

use super::names::{syscall_number, syscalls};
use super::profile::{Action, Condition, Profile, ProfileError, Test};
use super::program::{AUDIT_ARCH, Program};
use crate::sys::seccomp::SockFilter;

/// linux/bpf_common.h: the class (LD 0, JMP 5, RET 6) plus what it does.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `struct seccomp_data`: int nr, u32 arch, u64 instruction_pointer, u64 args[6]. Both architectures are little-endian.
const NR: u32 = 0;
const ARCH: u32 = 4;
const fn low_half(arg: u8) -> u32 {
    16 + 8 * arg as u32
}

/// Numbers from here on are x32's on x86_64: the same calls under other numbers, so that a list by number would miss
/// them. An i386 call has another `arch`.
const X32_SYSCALL_BIT: u32 = 0x4000_0000;

/// A conditional jump skips at most 255 instructions. One is kept for the trampoline that the other target may need.
const REACH: usize = 254;

pub fn compile(profile: &Profile) -> Result<Program, ProfileError> {
    let mut out = Assembler::default();
    let mut root = out.tree(&ranges(profile));
    if cfg!(target_arch = "x86_64") {
        let kill = out.leaf(&Leaf::Return(Action::Kill));
        root = out.branch(JUMP_GREATER_EQUAL, X32_SYSCALL_BIT, kill, root);
    }
    let native = out.load_before(root, NR);
    let kill = out.leaf(&Leaf::Return(Action::Kill));
    let gate = out.branch(JUMP_EQUAL, AUDIT_ARCH, native, kill);
    out.load_before(gate, ARCH);

    let instructions = out.reversed.len();
    Program::new(out.reversed.into_iter().rev().collect()).map_err(|_| ProfileError::TooLong { instructions })
}

/// What happens to a call once its number is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Return(Action),
    Check { conditions: Vec<Condition>, then: Action, otherwise: Action },
}

/// The numbers from `first` up to the next range's.
struct Range {
    first: u32,
    leaf: Leaf,
}

/// Covers every number; neighbours differ.
fn ranges(profile: &Profile) -> Vec<Range> {
    let mut leaves: Vec<(u32, Leaf)> = syscalls().iter().map(|&(_, nr)| (nr, Leaf::Return(profile.unlisted))).collect();
    for (entry, action) in profile.entries() {
        let Some(nr) = syscall_number(&entry.name) else { continue };
        let at = leaves.partition_point(|&(number, _)| number < nr);
        leaves[at].1 = match entry.otherwise {
            Some(otherwise) => Leaf::Check { conditions: entry.when.clone(), then: action, otherwise },
            None => Leaf::Return(action),
        };
    }

    let unknown = Leaf::Return(profile.unknown);
    let mut ranges = vec![Range { first: 0, leaf: unknown.clone() }];
    let mut begin = |first: u32, leaf: Leaf| {
        let last = ranges.last_mut().expect("the first range is there from the start");
        if last.first == first {
            last.leaf = leaf;
        } else if last.leaf != leaf {
            ranges.push(Range { first, leaf });
        }
    };
    for (at, (nr, leaf)) in leaves.iter().enumerate() {
        begin(*nr, leaf.clone());
        if leaves.get(at + 1).is_none_or(|&(next, _)| next != nr + 1) {
            begin(nr + 1, unknown.clone());
        }
    }
    ranges
}

/// An instruction that was written: its index from the program's end.
#[derive(Debug, Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Assembler {
    reversed: Vec<SockFilter>,
    /// Leaves already written, to be jumped to again while they are in reach.
    written: Vec<(Leaf, Label)>,
}

impl Assembler {
    /// A balanced search for the range that holds the number in the accumulator.
    fn tree(&mut self, ranges: &[Range]) -> Label {
        let [only] = ranges else {
            let middle = ranges.len() / 2;
            let right = self.tree(&ranges[middle..]);
            let left = self.tree(&ranges[..middle]);
            return self.branch(JUMP_GREATER_EQUAL, ranges[middle].first, right, left);
        };
        self.leaf(&only.leaf)
    }

    /// A leaf within reach of the next instruction. A second RET costs what a trampoline to the first would.
    fn leaf(&mut self, leaf: &Leaf) -> Label {
        let latest = self.written.iter().rev().find(|(known, _)| known == leaf).map(|&(_, label)| label);
        if let Some(label) = latest.filter(|&label| self.skip(label) <= REACH) {
            return label;
        }
        let label = match leaf {
            Leaf::Return(action) => self.push(RETURN, 0, 0, return_value(*action)),
            Leaf::Check { conditions, then, otherwise } => {
                let no = self.leaf(&Leaf::Return(*otherwise));
                let yes = self.leaf(&Leaf::Return(*then));
                conditions.iter().rev().fold(yes, |next, condition| self.condition(condition, next, no))
            }
        };
        self.written.push((leaf.clone(), label));
        label
    }

    fn condition(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let low = low_half(condition.arg);
        let test = match &condition.test {
            Test::In(values) => self.any_of(values, yes, no),
            Test::NotIn(values) => self.any_of(values, no, yes),
            Test::Between(first, last) => {
                let below_last = self.branch(JUMP_GREATER, *last, no, yes);
                self.branch(JUMP_GREATER_EQUAL, *first, below_last, no)
            }
            Test::WithoutBits(mask) => self.branch(JUMP_ANY_BIT, *mask, no, yes),
            Test::Null => {
                let high_is_zero = self.branch(JUMP_EQUAL, 0, yes, no);
                let high = self.load_before(high_is_zero, low + 4);
                self.branch(JUMP_EQUAL, 0, high, no)
            }
        };
        self.load_before(test, low)
    }

    fn any_of(&mut self, values: &[u32], found: Label, none: Label) -> Label {
        values.iter().rev().fold(none, |rest, &value| self.branch(JUMP_EQUAL, value, found, rest))
    }

    fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let no = self.near(no);
        let yes = self.near(yes);
        let offset = |label| u8::try_from(self.skip(label)).expect("near() keeps targets within 255");
        let (jt, jf) = (offset(yes), offset(no));
        self.push(code, jt, jf, k)
    }

    /// The label itself, or a jump to it where a conditional jump would not reach.
    fn near(&mut self, label: Label) -> Label {
        let skip = self.skip(label);
        if skip <= REACH {
            return label;
        }
        self.push(JUMP, 0, 0, u32::try_from(skip).expect("a program has at most 4096 instructions"))
    }

    /// Loads a word of the call and falls into `next`, which therefore must be what was written last.
    fn load_before(&mut self, next: Label, offset: u32) -> Label {
        assert_eq!(self.skip(next), 0, "a load falls through into its test");
        self.push(LOAD_WORD, 0, 0, offset)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next one written and `label`.
    fn skip(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }
}

/// The kernel's word for an action (linux/seccomp.h): the action above, its data below.
fn return_value(action: Action) -> u32 {
    match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    }
}
