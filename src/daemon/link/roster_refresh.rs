//! When to ask the broker who is there: once at a time, once more if something changed meanwhile,
//! however often it did, and only so often: a list may be large, and who comes and goes is for
//! others to decide.

use claudemesh_base::wire::{ClientFrame, Correlated};
use std::time::Duration;

/// The least time between two requests, in the long run.
const PAUSE: Duration = Duration::from_secs(1);
/// How far a few requests may run ahead of that: who has just come is to be known at once.
const AHEAD_MAX: Duration = Duration::from_secs(4);

/// What is known of the roster's freshness.
pub(super) struct RosterRefresh {
    /// The request under way, and when it counts as lost.
    asked: Option<(String, Duration)>,
    /// When the next request would be, if all came after their pause.
    due_at: Duration,
    stale: bool,
    answer_max: Duration,
}

impl RosterRefresh {
    pub(super) fn new(answer_max: Duration) -> Self {
        Self { asked: None, due_at: Duration::ZERO, stale: false, answer_max }
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
        if !self.stale || self.asked.is_some() || now < self.not_before() {
            return None;
        }
        let id = mint();
        self.stale = false;
        self.due_at = self.due_at.max(now).saturating_add(PAUSE);
        self.asked = Some((id.clone(), now.saturating_add(self.answer_max)));
        Some(ClientFrame::ListPeers(Correlated { request_id: Some(id) }))
    }

    /// When to look again, if there is a request to send: once the one under way counts as lost,
    /// or the pause is over.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lost_at = self.asked.as_ref().map(|(_, lost_at)| *lost_at);
        self.stale.then(|| lost_at.unwrap_or_default().max(self.not_before()))
    }

    const fn not_before(&self) -> Duration {
        self.due_at.saturating_sub(AHEAD_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(roster: &mut RosterRefresh, at_s: u64) -> bool {
        roster.request(Duration::from_secs(at_s), || "r".into()).is_some()
    }

    #[test]
    fn many_changes_are_one_request_under_way_and_one_more() {
        let mut roster = RosterRefresh::new(Duration::from_secs(15));
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
    fn changes_that_follow_each_other_fast_are_not_followed_as_fast_for_long() {
        let mut roster = RosterRefresh::new(Duration::from_secs(15));
        let mut changed_at = |ms| {
            roster.answered(Some("r"));
            roster.changed();
            roster.request(Duration::from_millis(ms), || "r".into()).is_some()
        };
        let many = (0..10_000).filter(|ms| changed_at(60_000 + ms)).count();
        // Five at once, and one a second after that.
        assert_eq!(many, 5 + 9);
        assert!(changed_at(70_000) && !changed_at(70_001));
        let after_a_quiet_time = (0..100).filter(|ms| changed_at(80_000 + ms)).count();
        assert_eq!(after_a_quiet_time, 5);
        assert_eq!(roster.deadline(), Some(Duration::from_secs(81)));
        roster.answered(Some("r"));
        assert!(roster.request(Duration::from_secs(81), || "r".into()).is_some());
        assert_eq!(roster.deadline(), None, "nothing changed since");
    }

    #[test]
    fn an_answer_that_never_comes_does_not_end_the_asking() {
        let mut roster = RosterRefresh::new(Duration::from_secs(15));
        roster.changed();
        assert!(ask(&mut roster, 0));
        assert_eq!(roster.deadline(), None);
        roster.changed();
        assert_eq!(roster.deadline(), Some(Duration::from_secs(15)));
        assert!(ask(&mut roster, 15));
    }
}
