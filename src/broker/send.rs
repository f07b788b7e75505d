//! One `send` of a client: phase B1, and the words of every answer (§4.5b, §17.1, §17.2).

use super::Broker;
use super::ledger::{Accepted, Letter, NotAccepted, Refusal, Sender, Target, reusable_bytes};
use super::route::{Lines, Outgoing, Parcel};
use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::db::Tx;
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::{
    self, AckFrame, BrokerFrame, FRAME_BYTES_MAX, MENTIONS_MAX, PushFrame, SendFrame, to_text,
};
use claudemesh_fsm::dedupe::{CONFLICT, ERROR};
use claudemesh_fsm::envelope::Priority;
use claudemesh_fsm::id::{ClientMessageId, Fingerprint, Millis};
use std::cell::OnceCell;
use std::sync::Arc;

/// The longest correlation id that is echoed.
const CORRELATION_BYTES_MAX: usize = 255;
/// The longest `replyToId`.
const REPLY_BYTES_MAX: usize = 255;
/// A nonce is 24 bytes, 32 characters of base64; today's reminders send none.
const NONCE_BYTES_MAX: usize = 64;
/// What today's network says too.
pub(crate) const BLOCKED: &str = "blocked by recipient grants (sender lacks dm capability)";
/// What today's network says too.
pub(crate) const NO_PEER: &str = "no connected peer for target (not online, or targetSpec is your own key without another session)";
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Accepts a message or refuses it; the ack goes out on `lines` after the commit, the pushes after
/// the ack.
pub(crate) async fn send(broker: &Arc<Broker>, sender: Sender, lines: Lines, frame: SendFrame) {
    let correlation: String = frame.id.clone().unwrap_or_default();
    let correlation = bounded(correlation);
    let client_id = frame.client_message_id.clone();
    let letter = letter(broker, frame);
    if let (Err(refusal), None) = (&letter.checked, &letter.client) {
        broker.counters.refusals.add(1);
        reply(&lines, refused(refusal), correlation, client_id);
        return;
    }
    let admit = admission(broker, &sender, letter.client.as_ref().map(|(id, _)| id.clone()));
    let after = {
        let (broker, sender) = (Arc::clone(broker), sender.clone());
        move |outcome: &Result<Accepted, NotAccepted>| {
            reply(&lines, answer(&broker, outcome), correlation, client_id);
            if let Ok(Accepted::First { seq, topic, recipients, letter }) = outcome {
                fan_out(&broker, &sender, *seq, topic.as_deref(), recipients, letter);
            }
        }
    };
    // The answer went out in `after`; awaiting only bounds what this connection has in flight.
    let _ = broker.ledger.accept(sender, letter, admit, after).await;
}

fn letter(broker: &Broker, frame: SendFrame) -> Letter {
    let now = broker.runtime.now();
    let (client, checked) = match client_key(&frame) {
        Ok(client) => (client, check(&frame)),
        Err(refusal) => (None, Err(refusal)),
    };
    let days = broker.settings.dedupe_retention_days;
    Letter {
        id: broker.runtime.mint_id(),
        client,
        checked,
        target_spec: frame.target_spec,
        priority: frame.priority,
        nonce: frame.nonce,
        ciphertext: frame.ciphertext,
        ext_nonce: frame.ext_nonce,
        ext_ciphertext: frame.ext_ciphertext,
        reply_to_id: frame.reply_to_id,
        now,
        dedupe_expires_at: days.map(|days| now.plus(u64::from(days) * MS_PER_DAY)),
    }
}

/// What the send deduplicates on: an id and a fingerprint, or neither.
fn client_key(frame: &SendFrame) -> Result<Option<(String, Fingerprint)>, Refusal> {
    let (Some(id), Some(fingerprint)) = (&frame.client_message_id, &frame.request_fingerprint)
    else {
        return Ok(None);
    };
    let id = ClientMessageId::parse(id)
        .map_err(|error| Refusal::Invalid(format!("client_message_id {error}")))?;
    let fingerprint = Fingerprint::from_hex(fingerprint)
        .ok_or_else(|| Refusal::Invalid("request_fingerprint must be 64 hex digits".to_owned()))?;
    Ok(Some((id.into_string(), fingerprint)))
}

/// Phase B1 without the database: size and shape.
fn check(frame: &SendFrame) -> Result<Target, Refusal> {
    let ext = [&frame.ext_nonce, &frame.ext_ciphertext];
    let ext_bytes: usize = ext.into_iter().flatten().map(String::len).sum();
    let bytes = frame.ciphertext.len() + frame.nonce.len() + frame.target_spec.len() + ext_bytes;
    if bytes > FRAME_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes, limit: FRAME_BYTES_MAX });
    }
    let invalid = |text: &str| Err(Refusal::Invalid(text.to_owned()));
    if Priority::parse(&frame.priority).is_none() {
        return invalid("priority must be now, next or low");
    }
    if frame.nonce.len() > NONCE_BYTES_MAX || !is_base64(&frame.nonce) {
        return invalid("nonce must be base64 of 24 bytes");
    }
    if !is_base64(&frame.ciphertext) {
        return invalid("ciphertext must be base64");
    }
    if !ext.into_iter().flatten().all(|text| is_base64(text)) {
        return invalid("ext_nonce and ext_ciphertext must be base64");
    }
    if frame.mentions.len() > MENTIONS_MAX {
        return invalid("mentions must be at most 16 names");
    }
    if let Some(reply) = &frame.reply_to_id
        && (reply.len() > REPLY_BYTES_MAX || reply.chars().any(char::is_control))
    {
        return invalid("replyToId must be at most 255 characters without control characters");
    }
    target(&frame.target_spec)
}

fn target(spec: &str) -> Result<Target, Refusal> {
    if spec.chars().any(char::is_control) {
        return Err(Refusal::Invalid("targetSpec must have no control characters".to_owned()));
    }
    if spec == "*" || spec == "@all" {
        return Ok(Target::Everyone);
    }
    match spec.split_at_checked(1) {
        Some(("@", name)) if !name.is_empty() => Ok(Target::Group(name.to_owned())),
        Some(("#", topic)) if !topic.is_empty() => Ok(Target::Topic(topic.to_owned())),
        _ if is_public_key(spec) => Ok(Target::Key(spec.to_ascii_lowercase())),
        _ => Err(Refusal::UnknownRecipient),
    }
}

/// 64 hex digits.
pub(crate) fn is_public_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte))
}

/// What is asked of a message that is new: room on the disk first, because a message that nobody
/// can store should cost no token.
fn admission(
    broker: &Arc<Broker>,
    sender: &Sender,
    id: Option<String>,
) -> impl FnOnce(&Tx<'_>) -> Result<(), Refusal> + Send + use<> {
    let (broker, member) = (Arc::clone(broker), sender.member);
    move |tx| {
        let now = broker.runtime.monotonic();
        if !broker.reserve.holds(now, || reusable_bytes(tx)) {
            return Err(Refusal::DiskFull);
        }
        match &broker.limiter {
            Some(limiter) if !limiter.take(member, id.as_deref(), now) => Err(Refusal::RateLimited),
            _ => Ok(()),
        }
    }
}

/// Hands a committed message to whoever is connected. The frame is made once, and only if somebody
/// can take it at once.
fn fan_out(
    broker: &Broker,
    sender: &Sender,
    seq: i64,
    topic: Option<&str>,
    recipients: &[(i64, Option<String>)],
    letter: &Letter,
) {
    let now = broker.runtime.monotonic();
    let client_id = letter.client.as_ref().map_or(&letter.id, |(id, _)| id);
    let frame: OnceCell<Utf8Bytes> = OnceCell::new();
    for (member, only_key) in recipients {
        broker.hub.offer(*member, only_key.as_deref(), seq, now, || Parcel {
            seq,
            message_id: letter.id.clone(),
            client_message_id: Some(client_id.clone()),
            frame: frame.get_or_init(|| push(sender, topic, letter, client_id)).clone(),
        });
    }
}

fn push(sender: &Sender, topic: Option<&str>, letter: &Letter, client_id: &str) -> Utf8Bytes {
    let fingerprint = letter.client.as_ref().map(|(_, fingerprint)| fingerprint.to_hex());
    let push = PushFrame {
        message_id: letter.id.clone(),
        mesh_id: sender.mesh_id.clone(),
        sender_pubkey: sender.routing_key.clone(),
        sender_member_pubkey: Some(sender.member_pubkey.clone()),
        sender_name: Some(sender.name.clone()),
        priority: letter.priority.clone(),
        nonce: letter.nonce.clone(),
        ciphertext: letter.ciphertext.clone(),
        ext_nonce: letter.ext_nonce.clone(),
        ext_ciphertext: letter.ext_ciphertext.clone(),
        created_at: iso(letter.now),
        target_spec: Some(letter.target_spec.clone()),
        topic: topic.map(str::to_owned),
        reply_to_id: letter.reply_to_id.clone(),
        client_message_id: Some(client_id.to_owned()),
        request_fingerprint: fingerprint,
        ..PushFrame::default()
    };
    to_text(&BrokerFrame::Push(Box::new(push))).into()
}

fn reply(lines: &Lines, ack: AckFrame, id: String, client_message_id: Option<String>) {
    let ack = AckFrame { id, client_message_id: client_message_id.map(bounded), ..ack };
    lines.send(Outgoing::Frame(wire::to_text(&BrokerFrame::Ack(Box::new(ack))).into()));
}

/// What is echoed never grows with what was sent.
fn bounded(mut text: String) -> String {
    if text.len() > CORRELATION_BYTES_MAX {
        let end = (0..=CORRELATION_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

fn answer(broker: &Broker, outcome: &Result<Accepted, NotAccepted>) -> AckFrame {
    let counters = &broker.counters;
    match outcome {
        Ok(Accepted::First { seq, letter, recipients, .. }) => {
            broker.ledger_works();
            counters.accepts.add(1);
            AckFrame {
                message_id: letter.id.clone(),
                queued: true,
                code: Some(201),
                broker_message_id: Some(letter.id.clone()),
                history_id: Some(seq.to_string()),
                duplicate: Some(false),
                recipients: u32::try_from(recipients.len()).ok(),
                ..AckFrame::default()
            }
        }
        Ok(Accepted::Duplicate(seen)) => {
            counters.duplicates.add(1);
            AckFrame {
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
            }
        }
        Ok(Accepted::Mismatch { broker_message_id, broker_fingerprint_prefix }) => {
            counters.fingerprint_mismatches.add(1);
            AckFrame {
                error: Some(ERROR.to_owned()),
                code: Some(409),
                broker_message_id: Some(broker_message_id.clone()),
                conflict: Some(CONFLICT.to_owned()),
                broker_fingerprint_prefix: Some(broker_fingerprint_prefix.clone()),
                permanent: Some(true),
                ..AckFrame::default()
            }
        }
        Err(NotAccepted::Refused(refusal)) => {
            counters.refusals.add(1);
            if *refusal == Refusal::RateLimited {
                counters.rate_limit_rejections.add(1);
            } else if broker.limiter.is_some() && is_b2(refusal) {
                counters.rate_limit_consumed_then_b2_rejected.add(1);
            }
            refused(refusal)
        }
        Err(NotAccepted::Failed(error)) => {
            broker.ledger_failed(error);
            passing()
        }
    }
}

/// Whether a refusal came after the rate limit was asked.
fn is_b2(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Invalid(_)
        | Refusal::TooLarge { .. }
        | Refusal::RateLimited
        | Refusal::DiskFull => false,
        Refusal::NotAMember
        | Refusal::UnknownRecipient
        | Refusal::BannedRecipient
        | Refusal::Blocked
        | Refusal::UnknownTopic(_)
        | Refusal::MayNotWrite(_)
        | Refusal::OnlyYourself
        | Refusal::QueueFull => true,
    }
}

/// A refusal in the words and codes the sending side classifies (§4.6).
fn refused(refusal: &Refusal) -> AckFrame {
    let (code, is_permanent, words) = match refusal {
        Refusal::Invalid(why) => (400, true, why.clone()),
        Refusal::TooLarge { bytes, limit } => {
            (413, true, format!("payload too large: {bytes} bytes > MAX_MESSAGE_BYTES={limit}"))
        }
        Refusal::RateLimited => (429, false, "rate limit: slow down".to_owned()),
        Refusal::DiskFull => return passing(),
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
fn passing() -> AckFrame {
    let words = "the broker cannot store messages just now; try again".to_owned();
    AckFrame { error: Some(words), code: Some(503), permanent: Some(false), ..AckFrame::default() }
}

/// An ack for a `send` that could not even be read.
pub(crate) fn unreadable(id: Option<String>, why: &str) -> AckFrame {
    AckFrame { id: bounded(id.unwrap_or_default()), ..refused(&Refusal::Invalid(why.to_owned())) }
}

/// A system event as a frame (`specs/wire.md`).
pub(crate) fn system_event(
    id: String,
    mesh_id: &str,
    event: &str,
    data: serde_json::Value,
    now: Millis,
) -> Utf8Bytes {
    let push = PushFrame {
        message_id: id,
        mesh_id: mesh_id.to_owned(),
        sender_pubkey: "system".to_owned(),
        priority: Priority::Low.as_str().to_owned(),
        created_at: iso(now),
        subtype: Some("system".to_owned()),
        event: Some(event.to_owned()),
        event_data: Some(data),
        ..PushFrame::default()
    };
    to_text(&BrokerFrame::Push(Box::new(push))).into()
}
