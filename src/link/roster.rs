//! When to ask the broker who is there: once at a time, once more if something changed meanwhile,
//! however often it did, and never twice within a moment: a list may be large, and who comes and
//! goes is for others to decide.

use crate::wire::{ClientFrame, Correlated};
use std::time::Duration;

/// The least time between two requests.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of the roster's freshness.
pub(super) struct RosterAsk {
    /// The request under way, and when it counts as lost.
    asked: Option<(String, Duration)>,
    /// Before this, nothing is asked.
    not_before: Duration,
    stale: bool,
    answer_max: Duration,
}

impl RosterAsk {
    pub(super) fn new(answer_max: Duration) -> Self {
        Self { asked: None, not_before: Duration::ZERO, stale: false, answer_max }
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
        if !self.stale || self.asked.is_some() || now < self.not_before {
            return None;
        }
        let id = mint();
        self.stale = false;
        self.not_before = now.saturating_add(PAUSE);
        self.asked = Some((id.clone(), now.saturating_add(self.answer_max)));
        Some(ClientFrame::ListPeers(Correlated { request_id: Some(id) }))
    }

    /// When to look again, if there is a request to send: once the one under way counts as lost,
    /// or the pause is over.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lost_at = self.asked.as_ref().map(|(_, lost_at)| *lost_at);
        self.stale.then(|| lost_at.unwrap_or_default().max(self.not_before))
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
    fn changes_that_follow_each_other_fast_are_not_followed_as_fast() {
        let at = |roster: &mut RosterAsk, ms| {
            roster.request(Duration::from_millis(ms), || "r".into()).is_some()
        };
        let mut roster = RosterAsk::new(Duration::from_secs(15));
        roster.changed();
        assert!(at(&mut roster, 5000), "the first is asked for at once");
        for ms in [5001, 5500, 5999] {
            roster.answered(Some("r"));
            roster.changed();
            assert!(!at(&mut roster, ms));
            assert_eq!(roster.deadline(), Some(Duration::from_secs(6)));
        }
        assert!(at(&mut roster, 6000));
        roster.answered(Some("r"));
        assert_eq!(roster.deadline(), None);
        roster.changed();
        assert!(at(&mut roster, 60_000), "after a quiet time it is asked for at once");
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
