//! Limits and usage of a sandbox, whatever cgroup hierarchy the host has.
