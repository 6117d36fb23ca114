//! What a policy lets go, and in which order. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, SystemTime};

use crate::filter::Filter;
use crate::store::usage::{Content, Usage};

/// What may be removed, and until when. Zeros do not restrict.
#[derive(Clone, Debug, Default)]
pub struct PrunePolicy {
    /// What is meant; all if it is empty.
    pub filter: Filter,
    /// Also what the daemon keeps for itself.
    pub all: bool,
    /// What was used within this time stays.
    pub keep_duration: Duration,
    /// So many bytes stay in any case.
    pub reserved_space: u64,
    /// More bytes than this go.
    pub max_used_space: u64,
    /// So many bytes of the disk should be free.
    pub min_free_space: u64,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Everything,
    /// Until no more than so many bytes are used.
    DownTo(u64),
}

impl PrunePolicy {
    pub(super) fn goal(&self, used: u64, free: u64) -> Goal {
        let limits = [self.reserved_space, self.max_used_space, self.min_free_space];
        if limits == [0; 3] {
            return Goal::Everything;
        }
        let most = match self.max_used_space {
            0 => used,
            limit => limit.min(used),
        };
        let wanted = self.min_free_space.saturating_sub(free);
        let left = most.min(used.saturating_sub(wanted)).max(self.reserved_space);
        match (left, self.max_used_space, self.min_free_space) {
            // Only a reserve: everything beyond it may go.
            (_, 0, 0) => Goal::DownTo(self.reserved_space),
            (left, ..) => Goal::DownTo(left),
        }
    }

    fn lets_go(&self, entry: &Usage, now: SystemTime) -> bool {
        !entry.in_use
            && (self.all || entry.content != Content::Internal)
            && entry.is_older_than(self.keep_duration, now)
            && entry.is_meant_by(&self.filter)
    }
}

/// The entries to remove, in this order: those that were used long ago and seldom first, but never one that something
/// that stays was made on.
pub(super) fn plan(entries: &[Usage], policy: &PrunePolicy, now: SystemTime, free: u64) -> Vec<usize> {
    let mut used: u64 = entries.iter().map(|entry| entry.size).sum();
    let goal = policy.goal(used, free);
    let by_id: HashMap<&str, usize> = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| (entry.id.as_str(), index))
        .collect();
    let parents = |index: usize| {
        let parents = entries.get(index).map(|entry| &entry.parents[..]);
        let parents = parents.unwrap_or_default().iter();
        parents.filter_map(|parent| by_id.get(parent.as_str()).copied())
    };
    let mut children = vec![0_u32; entries.len()];
    for index in 0..entries.len() {
        for parent in parents(index) {
            children[parent] += 1;
        }
    }
    let ranks = ranks(entries);
    let mut ready: BinaryHeap<Reverse<(u64, usize)>> = (0..entries.len())
        .filter(|index| children[*index] == 0 && policy.lets_go(&entries[*index], now))
        .map(|index| Reverse((ranks[index], index)))
        .collect();
    let mut removed = Vec::new();
    while let Some(Reverse((_, index))) = ready.pop() {
        if matches!(goal, Goal::DownTo(limit) if used <= limit) {
            break;
        }
        used = used.saturating_sub(entries[index].size);
        removed.push(index);
        for parent in parents(index) {
            children[parent] -= 1;
            if children[parent] == 0 && policy.lets_go(&entries[parent], now) {
                ready.push(Reverse((ranks[parent], parent)));
            }
        }
    }
    removed
}

/// The place of each entry: last use and number of uses count the same.
fn ranks(entries: &[Usage]) -> Vec<u64> {
    let mut ranks = vec![0; entries.len()];
    let mut add_places = |of: &dyn Fn(&Usage) -> u128| {
        let mut values: Vec<u128> = entries.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        let places = values.len().max(1) as u64;
        for (rank, entry) in ranks.iter_mut().zip(entries) {
            let place = values.partition_point(|value| *value < of(entry)) as u64;
            *rank += place * (1 << 32) / places;
        }
    };
    add_places(&|entry| {
        let since = entry.last_used.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_nanos()
    });
    add_places(&|entry| u128::from(entry.uses));
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    /// `name`, or `name<parent`; used so many seconds ago, so often, and so large.
    fn entry(name: &str, age: u64, uses: u64, size: u64) -> Usage {
        let (id, parent) = name.split_once('<').unwrap_or((name, ""));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - age);
        Usage {
            id: id.to_owned(),
            content: match id.split_once('-') {
                Some(("local", _)) => Content::Local,
                Some(("internal", _)) => Content::Internal,
                _ => Content::Regular,
            },
            description: String::new(),
            parents: (!parent.is_empty())
                .then(|| parent.to_owned())
                .into_iter()
                .collect(),
            size,
            mutable: false,
            in_use: id.ends_with('!'),
            created_at: time,
            last_used: time,
            uses,
        }
    }

    fn planned(entries: &[Usage], policy: &PrunePolicy, free: u64) -> Vec<String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let planned = plan(entries, policy, now, free);
        planned
            .into_iter()
            .map(|index| entries[index].id.clone())
            .collect()
    }

    fn policy(filter: &[&str], limits: [u64; 3], keep: u64, all: bool) -> PrunePolicy {
        let [reserved_space, max_used_space, min_free_space] = limits;
        PrunePolicy {
            filter: Filter::parse(filter).unwrap(),
            all,
            keep_duration: Duration::from_secs(keep),
            reserved_space,
            max_used_space,
            min_free_space,
        }
    }

    #[test]
    fn goals_follow_from_limits() {
        for ([reserved, max, min_free], used, free, goal) in [
            ([0, 0, 0], 100, 0, Goal::Everything),
            ([10, 0, 0], 100, 0, Goal::DownTo(10)),
            ([0, 50, 0], 100, 0, Goal::DownTo(50)),
            ([0, 50, 0], 30, 0, Goal::DownTo(30)),
            ([0, 0, 20], 100, 30, Goal::DownTo(100)),
            ([0, 0, 20], 100, 5, Goal::DownTo(85)),
            ([0, 50, 20], 100, 5, Goal::DownTo(50)),
            ([0, 90, 20], 100, 5, Goal::DownTo(85)),
            ([90, 95, 20], 100, 5, Goal::DownTo(90)),
            ([0, 0, 500], 100, 5, Goal::DownTo(0)),
        ] {
            let policy = policy(&[], [reserved, max, min_free], 0, false);
            assert_eq!(policy.goal(used, free), goal, "{reserved} {max} {min_free}");
        }
    }

    #[test]
    fn what_goes_is_what_the_policy_says_leaves_first() {
        let entries = [
            entry("base", 500, 9, 100),
            entry("step<base", 500, 3, 50),
            entry("used!<base", 1, 1, 10),
            entry("local-a", 900, 1, 30),
            entry("local-b", 10, 5, 20),
            entry("internal-a", 900, 1, 5),
        ];
        for (filter, limits, keep, all, expected) in [
            (&[][..], [0; 3], 0, false, &["local-a", "step", "local-b"][..]),
            (
                &[],
                [0; 3],
                0,
                true,
                &["local-a", "internal-a", "step", "local-b"],
            ),
            (&["type==source.local"], [0; 3], 0, false, &["local-a", "local-b"]),
            (&[], [0; 3], 100, false, &["local-a", "step"]),
            (&[], [0, 190, 0], 0, false, &["local-a"]),
            (&[], [0, 1000, 0], 0, false, &[]),
            (&[], [180, 0, 0], 0, false, &["local-a", "step"]),
            (&["id==base"], [0; 3], 0, false, &[]),
            (&["inuse"], [0; 3], 0, false, &[]),
            (&[""], [0; 3], 600, false, &["local-a"]),
        ] {
            let policy = policy(filter, limits, keep, all);
            assert_eq!(planned(&entries, &policy, 0), expected, "{policy:?}");
        }
    }

    #[test]
    fn parents_follow_their_last_child() {
        let entries = [
            entry("a", 900, 0, 1),
            entry("b<a", 900, 0, 1),
            entry("c<b", 100, 9, 1),
            entry("d<b", 10, 9, 1),
            entry("gone<nobody", 1, 9, 1),
        ];
        let planned = planned(&entries, &PrunePolicy::default(), 0);
        assert_eq!(planned, ["c", "d", "b", "a", "gone"]);
    }

    #[test]
    fn of_equal_age_what_was_used_less_goes_first() {
        let entries = [
            entry("often", 5, 100, 1),
            entry("once", 5, 1, 1),
            entry("old", 50, 100, 1),
        ];
        let planned = planned(&entries, &policy(&[], [0, 2, 0], 0, false), 0);
        assert_eq!(planned, ["once"]);
    }
}
