//! What a broker's `ack` says, in our words.

use crate::link::WORDS_CHARS_MAX;
use crate::port::SendOutcome;
use claudemesh_base::wire;
use claudemesh_fsm::id::{BrokerMessageId, Millis};
use claudemesh_fsm::outbox::Ack;

/// The most bytes of a broker's id that are believed.
const ID_BYTES_MAX: usize = 256;
/// The status of an id that was used for another message (§4.5b).
const CONFLICT: u16 = 409;
/// Codes with which a broker says that it has the message (§4.5b); older ones give none.
const ACCEPTED: [u16; 2] = [200, 201];

/// What a broker answered; `None` if it is neither yes nor no.
pub(super) fn read(ack: wire::AckFrame, at: Millis) -> Option<SendOutcome> {
    let (code, permanent) = (ack.code, ack.permanent);
    if let Some(reason) = ack.error {
        let reason = reason.chars().take(WORDS_CHARS_MAX).collect();
        return Some(SendOutcome::Refused { code, permanent, reason });
    }
    if let Some(failing) = code.filter(|code| !ACCEPTED.contains(code)) {
        let reason = match failing {
            CONFLICT => "idempotency_key_reused".to_owned(),
            other => format!("the broker answered with code {other} and no word"),
        };
        return Some(SendOutcome::Refused { code, permanent, reason });
    }
    let named = ack.broker_message_id.filter(|id| !id.is_empty()).unwrap_or(ack.message_id);
    if named.is_empty() || named.len() > ID_BYTES_MAX {
        return None;
    }
    Some(SendOutcome::Acked(Ack {
        broker_message_id: BrokerMessageId::trusted(named),
        history_id: ack.history_id.filter(|id| id.len() <= ID_BYTES_MAX),
        delivered_at: at,
        recipients: ack.recipients,
    }))
}
