//! What does this host offer, which layer of the isolation would be on, and what closes each gap?
//!
//! The report behind `mayfly doctor`. Asks the kernel by trying, in children that end at once; nothing of it stays.

mod host;
mod trial;

use serde_json::{Value, json};

use crate::options::Options;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    On,
    /// Works in another way, or less of it does.
    Degraded,
    Missing,
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    status: Status,
    /// Whether Mayfly serves without it.
    is_required: bool,
    detail: String,
    remedy: String,
}

impl Check {
    fn on(name: &'static str, detail: impl Into<String>) -> Check {
        Check { name, status: Status::On, is_required: true, detail: detail.into(), remedy: String::new() }
    }

    fn degraded(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { status: Status::Degraded, remedy: remedy.into(), ..Check::on(name, detail) }
    }

    fn missing(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { status: Status::Missing, remedy: remedy.into(), ..Check::on(name, detail) }
    }

    fn optional(self) -> Check {
        Check { is_required: false, ..self }
    }

    fn to_json(&self) -> Value {
        let status = match self.status {
            Status::On => "on",
            Status::Degraded => "degraded",
            Status::Missing => "missing",
        };
        let remedy = if self.remedy.is_empty() { Value::Null } else { json!(self.remedy) };
        json!({
            "name": self.name,
            "status": status,
            "required": self.is_required,
            "detail": self.detail,
            "remedy": remedy,
        })
    }
}

/// `{ checks: [{ name, status, required, detail, remedy }] }`, in the order in which a person would mend them.
pub fn report(options: &Options) -> Value {
    let mut checks = vec![host::kernel(), host::ids(options)];
    checks.extend(host::helpers());
    checks.extend(host::cgroup(options));
    checks.extend(trial::namespaces(options));
    checks.extend([host::user_namespaces_max(), trial::proc_subset(options), trial::overlay(options)]);
    checks.extend(host::seccomp());
    checks.extend([host::pidfd(), host::landlock()]);
    json!({ "checks": checks.iter().map(Check::to_json).collect::<Vec<_>>() })
}
