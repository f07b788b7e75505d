//! The acknowledgement of a `send`: every answer in its words (§4.5b, §17.2).

use crate::ledger::{AcceptOutcome, Refusal};
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::AckFrame;
use claudemesh_fsm::dedupe::{CONFLICT, ERROR};

/// The longest correlation id that is echoed.
const CORRELATION_BYTES_MAX: usize = 255;
/// What the legacy network says too.
pub(crate) const BLOCKED: &str = "blocked by recipient grants (sender lacks dm capability)";
/// What the legacy network says too.
pub(crate) const NO_PEER: &str = "no connected peer for target (not online, or targetSpec is your own key without another session)";

/// The answer to a message that was taken, now or before, or whose id belongs to another one.
pub(crate) fn outcome_ack(outcome: &AcceptOutcome) -> AckFrame {
    match outcome {
        AcceptOutcome::First { message, recipients } => AckFrame {
            message_id: message.push.message_id.clone(),
            queued: true,
            code: Some(201),
            broker_message_id: Some(message.push.message_id.clone()),
            history_id: Some(message.seq.to_string()),
            duplicate: Some(false),
            recipients: u32::try_from(recipients.len()).ok(),
            ..AckFrame::default()
        },
        AcceptOutcome::Duplicate(seen) => AckFrame {
            message_id: seen.broker_message_id.as_str().to_owned(),
            queued: true,
            code: Some(200),
            broker_message_id: Some(seen.broker_message_id.as_str().to_owned()),
            history_id: seen.history_id.clone(),
            duplicate: Some(true),
            history_available: Some(seen.history_available),
            first_seen_at: Some(iso(seen.first_seen_at)),
            recipients: seen.recipients,
            ..AckFrame::default()
        },
        AcceptOutcome::Mismatch { broker_message_id, broker_fingerprint_prefix } => AckFrame {
            error: Some(ERROR.to_owned()),
            code: Some(409),
            broker_message_id: Some(broker_message_id.clone()),
            conflict: Some(CONFLICT.to_owned()),
            broker_fingerprint_prefix: Some(broker_fingerprint_prefix.clone()),
            permanent: Some(true),
            ..AckFrame::default()
        },
    }
}

/// A refusal in the words and codes the sending side classifies (§4.6).
pub(crate) fn refusal_ack(refusal: &Refusal) -> AckFrame {
    let (code, is_permanent, words) = match refusal {
        Refusal::Invalid(why) => (400, true, why.clone()),
        Refusal::TooLarge { bytes, limit } => {
            (413, true, format!("payload too large: {bytes} bytes > MAX_MESSAGE_BYTES={limit}"))
        }
        Refusal::RateLimited => (429, false, "rate limit: slow down".to_owned()),
        Refusal::DiskFull => return try_later(),
        Refusal::NotAMember => (403, true, "not a member: the membership has ended".to_owned()),
        Refusal::UnknownRecipient => {
            let words = "unknown recipient: targetSpec must be a member's or a session's 64-hex key, @group, #topic or *";
            (404, true, words.to_owned())
        }
        Refusal::BannedRecipient => {
            (404, true, "unknown recipient: its membership is suspended".to_owned())
        }
        Refusal::Blocked => (403, true, BLOCKED.to_owned()),
        Refusal::UnknownTopic(topic) => (404, true, format!("unknown topic: {topic:?}")),
        Refusal::MayNotWrite(why) => (403, true, format!("forbidden: {why}")),
        Refusal::OnlyYourself => (503, false, NO_PEER.to_owned()),
        Refusal::QueueFull => {
            let words = "recipient_queue_full: the recipient's queue has no room; try again later";
            (503, false, words.to_owned())
        }
    };
    AckFrame {
        error: Some(words),
        code: Some(code),
        permanent: Some(is_permanent),
        ..AckFrame::default()
    }
}

/// Nothing can be stored just now, and that may pass.
pub(crate) fn try_later() -> AckFrame {
    let words = "the broker cannot store messages just now; try again".to_owned();
    AckFrame { error: Some(words), code: Some(503), permanent: Some(false), ..AckFrame::default() }
}

/// An ack for a `send` that could not even be read.
pub(crate) fn malformed_ack(id: Option<String>, why: &str) -> AckFrame {
    AckFrame {
        id: truncated(id.unwrap_or_default()),
        ..refusal_ack(&Refusal::Invalid(why.to_owned()))
    }
}

/// Text that is echoed, cut to a bound.
pub(crate) fn truncated(mut text: String) -> String {
    if text.len() > CORRELATION_BYTES_MAX {
        let end = (0..=CORRELATION_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}
