//! Names of topics to the ids that a broker of today's network wants: there a send to an id that it
//! does not know is acknowledged and lost, so nothing is sent before its topic was seen in the
//! broker's own list (`specs/wire.md`).
//!
//! Knows no socket: it says when to ask, and is told what the broker answered.

use claudemesh_base::wire::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many names may wait for a newer list at once; more are looked up when these are done.
const WANTED_MAX: usize = 256;

/// What a link knows of the topics of its mesh, from its latest list.
pub(super) struct Topics(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Name to id; `None` before the first list.
    ids: Option<BTreeMap<String, String>>,
    /// Names that the list at hand lacks, and that are looked for in the next one.
    wanted: BTreeSet<String>,
    /// Names that were looked for, and that the list which came then lacks.
    missing: BTreeSet<String>,
    /// When the list was last asked for, on the monotonic clock.
    asked_at: Option<Duration>,
}

/// What is to be done about a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Send to this id.
    Id(String),
    /// The list is on its way, or `ask` for it now; try again.
    NotYet {
        /// Nobody asked for it yet.
        ask: bool,
    },
    /// There is no such topic.
    Missing,
}

impl Topics {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Looks a topic up by name or id at `now`; a list counts as lost after `answer_max`.
    pub(super) fn find(&self, topic: &str, now: Duration, answer_max: Duration) -> Lookup {
        let mut known = self.lock();
        if let Some(ids) = &known.ids {
            if let Some(id) = ids.get(topic) {
                return Lookup::Id(id.clone());
            }
            if ids.values().any(|id| id == topic) {
                return Lookup::Id(topic.to_owned());
            }
            // Said once: the topic may be created before the next message to it.
            if known.missing.remove(topic) {
                return Lookup::Missing;
            }
        }
        if known.wanted.len() < WANTED_MAX {
            known.wanted.insert(topic.to_owned());
        }
        let is_under_way = known.asked_at.is_some_and(|at| now < at.saturating_add(answer_max));
        if !is_under_way {
            known.asked_at = Some(now);
        }
        Lookup::NotYet { ask: !is_under_way }
    }

    /// The broker's list.
    pub(super) fn learned(&self, topics: &[Topic]) {
        let mut known = self.lock();
        let ids: BTreeMap<String, String> =
            topics.iter().map(|topic| (topic.name.clone(), topic.id.clone())).collect();
        let wanted = std::mem::take(&mut known.wanted);
        known.missing = wanted
            .into_iter()
            .filter(|name| !ids.contains_key(name) && !ids.values().any(|id| id == name))
            .collect();
        known.ids = Some(ids);
        known.asked_at = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
