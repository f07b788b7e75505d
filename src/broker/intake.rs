//! One `send` of a client on its way to the ledger: phase B1 of §17.1, and the limits.

use crate::acks::{refusal_ack, truncated};
use crate::counters::Counters;
use crate::disk_reserve::DiskReserve;
use crate::dispatch::{DispatchQueue, ReplyTo};
use crate::hub::OutboundQueue;
use crate::ledger::{Admit, IncomingMessage, LedgerHandle, MessageSender, Refusal};
use crate::rate_limit::RateLimiter;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{FRAME_BYTES_MAX, MENTIONS_MAX, SendFrame};
use claudemesh_fsm::envelope::{Destination, DestinationError, Priority, is_public_key};
use claudemesh_fsm::id::{ClientMessageId, Fingerprint};
use std::sync::Arc;

/// The longest `replyToId`.
const REPLY_BYTES_MAX: usize = 255;
/// A nonce is 24 bytes, 32 characters of base64; reminders of the legacy network send none.
const NONCE_BYTES_MAX: usize = 64;
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Takes messages of clients into the ledger.
pub(crate) struct Intake {
    pub(crate) ledger: LedgerHandle,
    pub(crate) runtime: Runtime,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) decided: DispatchQueue,
    /// How long ids are remembered; `None`: for ever.
    pub(crate) dedupe_retention_days: Option<u32>,
}

/// What bounds how much is accepted.
pub(crate) struct Limits {
    pub(crate) rate: Option<RateLimiter>,
    pub(crate) reserve: DiskReserve,
}

impl Intake {
    /// Accepts a message or refuses it. The ack goes out on `outbound` after the commit, the pushes
    /// after the ack; both happen even if this future is dropped once the ledger has the message.
    pub(crate) async fn send(
        &self,
        sender: MessageSender,
        outbound: OutboundQueue,
        frame: SendFrame,
    ) {
        let correlation = truncated(frame.id.clone().unwrap_or_default());
        let client_id = frame.client_message_id.clone();
        let reply_to = ReplyTo { outbound, correlation, client_id };
        let message = self.message(frame);
        if let (Err(refusal), None) = (&message.destination, &message.client) {
            self.counters.refusals.add(1);
            reply_to.send(refusal_ack(refusal));
            return;
        }
        let admit = self.admit(sender.member, message.client.as_ref().map(|(id, _)| id.clone()));
        let place = self.decided.reserve().await;
        let on_decided = Box::new(move |outcome: &_| place.put(outcome, reply_to));
        // The answer is sent by the dispatcher; the wait bounds what one connection has in flight.
        let _ = self.ledger.accept(sender, message, admit, on_decided).await;
    }

    fn message(&self, frame: SendFrame) -> IncomingMessage {
        let now = self.runtime.now();
        let (client, destination) = match client_key(&frame) {
            Ok(client) => (client, check(&frame)),
            Err(refusal) => (None, Err(refusal)),
        };
        let days = self.dedupe_retention_days;
        IncomingMessage {
            id: self.runtime.mint_id(),
            client,
            destination,
            frame,
            now,
            dedupe_expires_at: days.map(|days| now.plus(u64::from(days) * MS_PER_DAY)),
        }
    }

    /// What is asked of a message that is new: room on the disk first, because a message that nobody
    /// can store should cost no token.
    fn admit(&self, member: i64, id: Option<String>) -> Admit {
        let (limits, runtime) = (Arc::clone(&self.limits), self.runtime.clone());
        Box::new(move |reusable_bytes| {
            let now = runtime.monotonic();
            if !limits.reserve.is_free(now, reusable_bytes) {
                return Err(Refusal::DiskFull);
            }
            match &limits.rate {
                Some(rate) if !rate.take(member, id.as_deref(), now) => Err(Refusal::RateLimited),
                _ => Ok(()),
            }
        })
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
fn check(frame: &SendFrame) -> Result<Destination, Refusal> {
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
    destination(&frame.target_spec)
}

/// Where a message goes; phase B2 finds out who that is.
fn destination(spec: &str) -> Result<Destination, Refusal> {
    let words = "targetSpec must have no control characters";
    match Destination::parse_exact(spec) {
        Err(DestinationError::ControlCharacter) => Err(Refusal::Invalid(words.to_owned())),
        Ok(Destination::Member(key)) if !is_public_key(&key) => Err(Refusal::UnknownRecipient),
        destination => destination.map_err(|_| Refusal::UnknownRecipient),
    }
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte))
}
