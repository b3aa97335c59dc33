//! Who is M? Which ids of the host the house is made of, and may it have them?

use std::fs;

use rustix::process::{getegid, geteuid};

use crate::failure::{Failure, Stage};

/// What M needs besides the slots: root, the image owner, and the first slot's id (mayfly_core::sandbox).
const WIDTH_MAX: u32 = 65_536;

/// The ids of M. Its root is `root_uid` on the host either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Started as root: a range of ids that nobody else has.
    Service { base: u32 },
    /// Started by an ordinary user: their own id, and their subordinate ones from 1 on.
    User { uid: u32, gid: u32, subuids: Range, subgids: Range },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: u32,
    pub count: u32,
}

impl Range {
    fn overlaps(self, other: Range) -> bool {
        u64::from(self.start) < u64::from(other.start) + u64::from(other.count)
            && u64::from(other.start) < u64::from(self.start) + u64::from(self.count)
    }

    fn of_line<'a>(line: &'a str, owners: &[&str]) -> Option<(&'a str, Range)> {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = Range { start: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        (owners.is_empty() || owners.contains(&owner)).then_some((owner, range))
    }
}

impl Ids {
    /// Decides by who we are.
    pub fn choose(base: u32, slots: u32) -> Result<Ids, Failure> {
        let ids = if geteuid().is_root() { service(base)? } else { user()? };
        let needed = mayfly_core::sandbox::FIRST_ID.saturating_add(slots).saturating_add(1);
        if needed > ids.width() {
            return Err(Failure::host_unfit(
                Stage::Ids,
                format!("{slots} slots need {needed} ids, there are {}", ids.width()),
                "ask for fewer slots, or give the user a wider range in /etc/subuid and /etc/subgid",
            ));
        }
        Ok(ids)
    }

    /// How many ids M has, 0 included.
    #[must_use]
    pub fn width(&self) -> u32 {
        match self {
            Ids::Service { .. } => WIDTH_MAX,
            Ids::User { subuids, subgids, .. } => 1 + subuids.count.min(subgids.count).min(WIDTH_MAX - 1),
        }
    }

    /// M's root as the host sees it: the owner of MAYFLY_HOME and of the cgroup nodes.
    #[must_use]
    pub fn root_uid(&self) -> u32 {
        match self {
            Ids::Service { base } => *base,
            Ids::User { uid, .. } => *uid,
        }
    }

    #[must_use]
    pub fn root_gid(&self) -> u32 {
        match self {
            Ids::Service { base } => *base,
            Ids::User { gid, .. } => *gid,
        }
    }
}

/// A range that is anybody's would let a sandbox's process own files, or signal processes, of theirs.
fn service(base: u32) -> Result<Ids, Failure> {
    let range = Range { start: base, count: WIDTH_MAX };
    if base == 0 || base.checked_add(WIDTH_MAX).is_none() {
        return Err(Failure::host_unfit(Stage::Ids, format!("{base} leaves no room for {WIDTH_MAX} ids"), REMEDY));
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let taken = lines(file)
            .iter()
            .filter_map(|line| Range::of_line(line, &[]))
            .map(own)
            .find(|(_, other)| range.overlaps(*other));
        if let Some((owner, other)) = taken {
            let message =
                format!("{file} gives {}:{} to {owner}, which overlaps {base}:{WIDTH_MAX}", other.start, other.count);
            return Err(Failure::host_unfit(Stage::Ids, message, REMEDY));
        }
    }
    for file in ["/etc/passwd", "/etc/group"] {
        let in_range = |(_, id): &(String, u32)| range.overlaps(Range { start: *id, count: 1 });
        // An operator may have given the service id a name.
        let is_other = |(name, id): &(String, u32)| !(name == "mayfly" && *id == base);
        let account = lines(file).iter().filter_map(|line| account(line)).filter(is_other).find(in_range);
        if let Some((name, id)) = account {
            return Err(Failure::host_unfit(Stage::Ids, format!("{file} gives the id {id} to {name}"), REMEDY));
        }
    }
    Ok(Ids::Service { base })
}

const REMEDY: &str = "set MAYFLY_UID_BASE to the start of 65536 ids that nobody has";

fn user() -> Result<Ids, Failure> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let number = uid.to_string();
    let accounts = lines("/etc/passwd");
    let name = accounts.iter().filter_map(|line| account(line)).find(|(_, id)| *id == uid).map(|(name, _)| name);
    let name = name.unwrap_or_else(|| number.clone());
    let range = |file: &str| {
        let ranges = lines(file);
        let ranges = ranges.iter().filter_map(|line| Range::of_line(line, &[&name, &number])).map(|(_, range)| range);
        ranges.max_by_key(|range| range.count).ok_or_else(|| {
            Failure::host_unfit(
                Stage::Ids,
                format!("{file} gives no ids to {name}"),
                format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}, or start as root"),
            )
        })
    };
    Ok(Ids::User { uid, gid, subuids: range("/etc/subuid")?, subgids: range("/etc/subgid")? })
}

/// Name and id of a line of /etc/passwd or /etc/group.
fn account(line: &str) -> Option<(String, u32)> {
    let mut fields = line.split(':');
    Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
}

/// A file that does not exist gives nobody anything.
fn lines(file: &str) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn own((owner, range): (&str, Range)) -> (String, Range) {
    (owner.to_owned(), range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_by_a_single_id() {
        let range = Range { start: 1000, count: 10 };
        assert!(range.overlaps(Range { start: 1009, count: 1 }));
        assert!(!range.overlaps(Range { start: 1010, count: 1 }));
        assert!(!range.overlaps(Range { start: 0, count: 1000 }));
        assert!(range.overlaps(Range { start: 0, count: u32::MAX }));
    }

    #[test]
    fn lines_of_subordinate_ids_belong_to_a_name_or_a_number() {
        let range = Range { start: 100_000, count: 65_536 };
        assert_eq!(Range::of_line("ada:100000:65536", &["ada", "1000"]), Some(("ada", range)));
        assert_eq!(Range::of_line("1000:100000:65536", &["ada", "1000"]), Some(("1000", range)));
        assert_eq!(Range::of_line("bob:100000:65536", &["ada", "1000"]), None);
        assert_eq!(Range::of_line("ada:x:1", &["ada"]), None);
    }

    #[test]
    fn a_users_ids_are_their_own_and_the_subordinate_ones() {
        let range = Range { start: 100_000, count: 1_000_000 };
        let ids = Ids::User { uid: 1000, gid: 100, subuids: range, subgids: Range { count: 2000, ..range } };
        assert_eq!((ids.root_uid(), ids.root_gid(), ids.width()), (1000, 100, 2001));
    }

    #[test]
    fn the_service_range_is_nobody_elses() {
        assert!(service(0).is_err());
        assert!(service(u32::MAX - 10).is_err());
        // Every host has an account in there.
        assert_eq!(service(1).unwrap_err().stage, Stage::Ids);
    }
}
