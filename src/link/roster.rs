//! When to ask the broker who is there: once at a time, and once more if something changed
//! meanwhile, however often it did.

use crate::wire::{ClientFrame, Correlated};
use std::time::Duration;

/// What is known of the roster's freshness.
pub(super) struct RosterAsk {
    /// The request under way, and when it counts as lost.
    asked: Option<(String, Duration)>,
    stale: bool,
    answer_max: Duration,
}

impl RosterAsk {
    pub(super) fn new(answer_max: Duration) -> Self {
        Self { asked: None, stale: false, answer_max }
    }

    /// Somebody came or went.
    pub(super) fn changed(&mut self) {
        self.stale = true;
    }

    /// A list arrived.
    pub(super) fn answered(&mut self, request_id: Option<&str>) {
        let ours = |asked: &(String, Duration)| request_id.is_none_or(|id| id == asked.0);
        if self.asked.as_ref().is_some_and(ours) {
            self.asked = None;
        }
    }

    /// The request to send at `now`, if it is time for one.
    pub(super) fn request(
        &mut self,
        now: Duration,
        mint: impl FnOnce() -> String,
    ) -> Option<ClientFrame> {
        if self.asked.as_ref().is_some_and(|(_, lost_at)| *lost_at <= now) {
            self.asked = None;
        }
        if !self.stale || self.asked.is_some() {
            return None;
        }
        let id = mint();
        self.stale = false;
        self.asked = Some((id.clone(), now.saturating_add(self.answer_max)));
        Some(ClientFrame::ListPeers(Correlated { request_id: Some(id) }))
    }

    /// When to look again, if an answer is what the next request waits for.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.asked.as_ref().filter(|_| self.stale).map(|(_, lost_at)| *lost_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(roster: &mut RosterAsk, at_s: u64) -> bool {
        roster.request(Duration::from_secs(at_s), || "r".into()).is_some()
    }

    #[test]
    fn many_changes_are_one_request_under_way_and_one_more() {
        let mut roster = RosterAsk::new(Duration::from_secs(15));
        assert!(!ask(&mut roster, 0));
        roster.changed();
        assert!(ask(&mut roster, 0));
        for _ in 0..100 {
            roster.changed();
            assert!(!ask(&mut roster, 1));
        }
        roster.answered(Some("somebody else's"));
        assert!(!ask(&mut roster, 2));
        roster.answered(Some("r"));
        assert!(ask(&mut roster, 3));
        roster.answered(None);
        assert!(!ask(&mut roster, 4));
    }

    #[test]
    fn an_answer_that_never_comes_does_not_end_the_asking() {
        let mut roster = RosterAsk::new(Duration::from_secs(15));
        roster.changed();
        assert!(ask(&mut roster, 0));
        assert_eq!(roster.deadline(), None);
        roster.changed();
        assert_eq!(roster.deadline(), Some(Duration::from_secs(15)));
        assert!(ask(&mut roster, 15));
    }
}
