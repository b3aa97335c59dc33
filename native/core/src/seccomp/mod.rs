//! From a profile to a BPF program, and an interpreter that proves it.
