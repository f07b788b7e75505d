//! What an attempt may come to: an acknowledgement, a refusal, or nothing.

use super::{Ack, Change, Dead, Done, Inflight, Pending, Row, Step};
use crate::id::Millis;
use crate::refusal::TransientRefusal;
use alloc::string::String;

impl Row<Inflight> {
    /// The broker has the message.
    pub fn acked(self, ack: Ack) -> Step<Inflight, Done> {
        let (done, change) = ack.into_done();
        self.step(done, change)
    }

    /// The broker will never take it, and said why in `reason` (§4.6, phase C).
    pub fn refused(self, reason: String) -> Step<Inflight, Dead> {
        // An answer to this attempt says nothing about an earlier one that was never answered.
        let may_have_been_sent = self.state.earlier_unanswered;
        let change = Change::Dead { last_error: reason.clone(), may_have_been_sent };
        self.step(Dead { last_error: reason, may_have_been_sent }, change)
    }

    /// The broker cannot take it now, and said why in `reason` (§4.6, phase B).
    pub fn deferred(
        self,
        why: TransientRefusal,
        reason: String,
        next_attempt_at: Millis,
    ) -> Step<Inflight, Pending> {
        let may_have_been_sent = self.state.earlier_unanswered;
        self.returned(next_attempt_at, reason, may_have_been_sent, why.counts_as_attempt())
    }

    /// Nobody answered in time, or the connection went away: the broker may have it (§4.5.3).
    pub fn lost(self, reason: String, next_attempt_at: Millis) -> Step<Inflight, Pending> {
        self.returned(next_attempt_at, reason, true, true)
    }

    /// The frame was never written, so nothing was attempted.
    pub fn unsent(self, reason: String, next_attempt_at: Millis) -> Step<Inflight, Pending> {
        let may_have_been_sent = self.state.earlier_unanswered;
        self.returned(next_attempt_at, reason, may_have_been_sent, false)
    }

    fn returned(
        self,
        next_attempt_at: Millis,
        reason: String,
        may_have_been_sent: bool,
        counts: bool,
    ) -> Step<Inflight, Pending> {
        let change = Change::Returned {
            next_attempt_at,
            last_error: Some(reason.clone()),
            may_have_been_sent,
            counts,
        };
        let pending = Pending { next_attempt_at, last_error: Some(reason), may_have_been_sent };
        self.step(pending, change)
    }
}
