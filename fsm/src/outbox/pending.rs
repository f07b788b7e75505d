//! What a waiting row may do: be claimed, expire, or learn that an earlier attempt got through.

use super::{Change, Dead, Done, Inflight, Pending, Row, Step};
use crate::id::{BrokerMessageId, Millis};
use alloc::string::String;

/// The broker's word that it has the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The broker's id for it.
    pub broker_message_id: BrokerMessageId,
    /// Its place in the broker's history, when the broker keeps one.
    pub history_id: Option<String>,
    /// When the answer arrived.
    pub delivered_at: Millis,
    /// How many members it waits for, when the broker tells what becomes of it (§4.13).
    pub recipients: Option<u32>,
}

impl Ack {
    pub(super) fn into_done(self) -> (Done, Change) {
        let Self { broker_message_id, history_id, delivered_at, recipients } = self;
        let change = Change::Done {
            broker_message_id: broker_message_id.clone(),
            history_id: history_id.clone(),
            delivered_at,
            recipients,
        };
        (Done { broker_message_id, history_id, delivered_at }, change)
    }
}

impl Row<Pending> {
    /// Takes the row for one attempt. Only with an open link, and only just before its frame is
    /// written (§4.6).
    pub fn claim(self) -> Step<Pending, Inflight> {
        let earlier_unanswered = self.state.may_have_been_sent;
        self.step(Inflight { earlier_unanswered }, Change::Claimed)
    }

    /// Gives the row up because it is older than `max_age` (§4.9).
    pub fn expire(self) -> Step<Pending, Dead> {
        let may_have_been_sent = self.state.may_have_been_sent;
        let last_error: String = if may_have_been_sent {
            "expired: older than the mesh's max age; an attempt was never answered, so it may have been sent".into()
        } else {
            "expired: older than the mesh's max age; it was never sent".into()
        };
        let change = Change::Dead { last_error: last_error.clone(), may_have_been_sent };
        self.step(Dead { last_error, may_have_been_sent }, change)
    }

    /// An answer to an attempt that was given up arrived after all, and it is a success: the one
    /// late result that counts (§4.5.2).
    pub fn acked_late(self, ack: Ack) -> Step<Pending, Done> {
        let (done, change) = ack.into_done();
        self.step(done, change)
    }
}
