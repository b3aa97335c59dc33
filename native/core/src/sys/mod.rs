//! The kernel calls that rustix does not wrap; the only module with `unsafe` in it.
