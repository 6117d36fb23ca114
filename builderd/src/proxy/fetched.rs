//! What a step asked for, and what of that is known by its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry::Digest;
use serde::{Deserialize, Serialize};

/// Bytes of methods and addresses that are kept of one step; what comes after them is only known to be there.
const MOST_KEPT: usize = 4 << 20;

/// What an entry takes besides those.
const ENTRY: usize = 128;

/// The requests of one step so far.
#[derive(Debug, Default)]
pub struct Requests(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    overflowed: bool,
    log: Vec<Logged>,
    files: Vec<(String, Digest)>,
    missed: Vec<Missed>,
}

#[derive(Debug)]
struct Logged {
    method: String,
    url: String,
    status: u16,
    /// Where the server sent the step on to.
    target: Option<String>,
}

/// What a step took from the network, for provenance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    pub files: Vec<(String, Digest)>,
    pub missed: Vec<Missed>,
}

/// A request whose answer is not known by a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Missed {
    pub method: String,
    pub url: String,
    /// In BuildKit's words.
    pub reason: String,
}

impl Requests {
    /// Notes that a request was answered; `target` is where the server sent the step on to.
    pub(super) fn answered(&self, method: &str, url: &str, status: u16, target: Option<String>) {
        let mut kept = self.lock();
        if kept.has_room(method.len() + url.len() + target.as_ref().map_or(0, String::len)) {
            kept.log.push(Logged {
                method: method.to_owned(),
                url: url.to_owned(),
                status,
                target,
            });
        }
    }

    /// Notes the whole answer to a request.
    pub(super) fn file(&self, url: &str, digest: Digest) {
        let mut kept = self.lock();
        if kept.has_room(url.len()) {
            kept.files.push((url.to_owned(), digest));
        }
    }

    /// Notes that the answer to a request is not known.
    pub(super) fn missed(&self, method: &str, url: &str, reason: &str) {
        let mut kept = self.lock();
        if kept.has_room(method.len() + url.len()) {
            kept.missed.push(Missed {
                method: method.to_owned(),
                url: url.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    /// The requests as lines of the step's log; nothing if there was none.
    pub fn summary(&self) -> String {
        let kept = self.lock();
        let mut summary = String::new();
        if !kept.log.is_empty() {
            summary.push_str("proxy network requests:\n");
        }
        for Logged {
            method, url, status, ..
        } in &kept.log
        {
            // Writing to a string cannot fail.
            let _infallible = writeln!(summary, "- {method} {url} -> {status}");
        }
        if kept.overflowed {
            summary.push_str("- further requests are not shown\n");
        }
        summary
    }

    /// The files that the step got, each under all addresses that led to it, and what is missing.
    pub fn fetched(&self) -> Fetched {
        let kept = self.lock();
        let mut files: BTreeSet<(String, Digest)> = BTreeSet::new();
        let mut digests: BTreeMap<&str, &Digest> = BTreeMap::new();
        for (url, digest) in &kept.files {
            files.insert((url.clone(), digest.clone()));
            digests.insert(url, digest);
        }
        let mut led_to: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for logged in &kept.log {
            if let Some(target) = &logged.target {
                led_to.entry(target).or_default().push(&logged.url);
            }
        }
        // From each file back to what led to it, and on.
        let mut open: Vec<(&str, &Digest)> = digests.iter().map(|(url, digest)| (*url, *digest)).collect();
        while let Some((url, digest)) = open.pop() {
            for from in led_to.get(url).into_iter().flatten() {
                if !digests.contains_key(from) {
                    digests.insert(from, digest);
                    files.insert(((*from).to_owned(), digest.clone()));
                    open.push((from, digest));
                }
            }
        }
        let mut missed: Vec<Missed> = kept.missed.clone();
        if kept.overflowed {
            missed.push(Missed {
                method: String::new(),
                url: String::new(),
                reason: "too_many_requests".to_owned(),
            });
        }
        missed.sort();
        missed.dedup();
        Fetched {
            files: files.into_iter().collect(),
            missed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes += bytes + ENTRY;
        self.overflowed |= self.bytes > MOST_KEPT;
        !self.overflowed
    }
}
