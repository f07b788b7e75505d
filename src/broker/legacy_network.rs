//! A test double of the legacy network, faults included (§17): what our own client is tested against.
//!
//! Greeting, roster, topics and members are the honest broker's. This file replaces sending,
//! queueing and acknowledging, from what `specs/wire.md` says of the legacy network:
//!
//! - the rate limit comes first, 10 at once and then one a second, and every send costs a token;
//! - nothing is deduplicated: two sends of one id are two messages;
//! - a direct message to somebody without a connection is refused, not queued;
//! - a message is claimed for 30 s, also for a socket that is dead already, and a claim that is
//!   over is looked at only when something else makes that connection drain: a greeting, or a
//!   direct message to it;
//! - a topic's message goes to whichever member drains first, its sender included;
//! - `*` and `@group` reach whoever is connected, in another shape of push, and nobody later;
//! - a bad priority gets no answer at all, and acks carry no codes.
//!
//! The queue is memory: a restart loses it, which the legacy network does not. Nothing here is ever
//! reached unless the broker was started for it.

use super::acks::{BLOCKED, NO_PEER};
use super::hub::{ConnectionId, Hub, Identity, OutboundQueue, Outgoing};
use super::ledger::{IncomingMessage, LedgerError, LedgerHandle, MessageSender};
use super::rate_limit::{Rate, RateLimiter};
use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::runtime::{Runtime, iso};
use claudemesh_base::wire::{
    AckFrame, BrokerFrame, ClientAck, FRAME_BYTES_MAX, PushFrame, SendFrame, to_text,
};
use claudemesh_fsm::envelope::{Destination, Priority};
use claudemesh_fsm::id::Millis;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How fast a member of the legacy network may send.
const RATE: Rate = Rate { burst: 10, per_second: 1.0 };
/// Messages the queue holds; beyond it the oldest is forgotten.
const ROWS_MAX: usize = 10_000;
const RATE_LIMITED: &str = "rate_limit: max 60 msg/min (burst 10) — slow down";

/// What the legacy network remembers of messages.
pub(crate) struct LegacyNetwork {
    ledger: LedgerHandle,
    hub: Arc<Hub>,
    runtime: Runtime,
    /// How long a claim lasts.
    lease: Duration,
    limiter: RateLimiter,
    rows: Mutex<VecDeque<Row>>,
}

/// A message in the queue.
struct Row {
    push: PushFrame,
    target_spec: String,
    /// Nobody else gets it until then.
    claimed_until: Option<Duration>,
}

impl LegacyNetwork {
    /// An empty queue; `rate` instead of the legacy network's, for tests that cannot wait.
    pub(crate) fn new(
        ledger: LedgerHandle,
        hub: Arc<Hub>,
        runtime: Runtime,
        lease: Duration,
        rate: Option<Rate>,
    ) -> Self {
        let limiter = RateLimiter::new(rate.unwrap_or(RATE));
        Self { ledger, hub, runtime, lease, limiter, rows: Mutex::default() }
    }

    /// Takes or refuses a message, and hands it out.
    pub(crate) async fn send(
        &self,
        id: ConnectionId,
        sender: MessageSender,
        outbound: &OutboundQueue,
        frame: SendFrame,
    ) {
        let correlation = frame.id.clone().unwrap_or_default();
        let message_id = self.runtime.mint_id();
        let ack = match self.accept(id, &sender, &frame, &message_id).await {
            Ok(true) => {
                AckFrame { message_id: message_id.clone(), queued: true, ..AckFrame::default() }
            }
            Ok(false) => return,
            Err(words) => AckFrame { error: Some(words), ..AckFrame::default() },
        };
        let is_taken = ack.queued;
        let ack = AckFrame { id: correlation, ..ack };
        outbound.send(Outgoing::Frame(to_text(&BrokerFrame::Ack(Box::new(ack))).into()));
        if is_taken && let Err(error) = self.fan_out(id, &sender, frame, message_id).await {
            self.ledger.failed(&error);
        }
    }

    /// `false`: nothing is said at all.
    async fn accept(
        &self,
        id: ConnectionId,
        sender: &MessageSender,
        frame: &SendFrame,
        message_id: &str,
    ) -> Result<bool, String> {
        if !self.limiter.take(sender.member, None, self.runtime.monotonic()) {
            return Err(RATE_LIMITED.to_owned());
        }
        let bytes = frame.ciphertext.len() + frame.nonce.len() + frame.target_spec.len();
        if bytes > FRAME_BYTES_MAX {
            return Err(format!(
                "payload too large: {bytes} bytes > MAX_MESSAGE_BYTES={FRAME_BYTES_MAX}"
            ));
        }
        if is_direct(&frame.target_spec) {
            let (live, lingering) = self.hub.present_as(&sender.mesh_id);
            let others =
                live.iter().filter(|(other, _)| *other != id).map(|(_, identity)| identity);
            let found =
                others.chain(&lingering).find(|identity| is_to(&frame.target_spec, identity));
            let Some(recipient) = found else { return Err(NO_PEER.to_owned()) };
            let is_blocked = self.ledger.is_blocked(recipient.member, sender.member).await;
            if is_blocked.is_ok_and(|is_blocked| is_blocked) {
                return Err(BLOCKED.to_owned());
            }
        }
        if Priority::parse(&frame.priority).is_none() {
            return Ok(false);
        }
        if is_direct(&frame.target_spec) || frame.target_spec.starts_with('#') {
            let push = drained(self.runtime.now(), sender, frame, message_id);
            let target_spec = frame.target_spec.clone();
            let mut rows = self.lock();
            rows.push_back(Row { push, target_spec, claimed_until: None });
            if rows.len() > ROWS_MAX {
                rows.pop_front();
            }
        }
        Ok(true)
    }

    async fn fan_out(
        &self,
        id: ConnectionId,
        sender: &MessageSender,
        frame: SendFrame,
        message_id: String,
    ) -> Result<(), LedgerError> {
        let (live, lingering) = self.hub.present_as(&sender.mesh_id);
        if let Some(topic) = frame.target_spec.strip_prefix('#') {
            let topic = topic.to_owned();
            let message = self.history(frame, message_id);
            return self.ledger.insert_topic_history(sender.clone(), message, topic).await;
        }
        if is_direct(&frame.target_spec) {
            for (other, identity) in &live {
                if *other != id && is_to(&frame.target_spec, identity) {
                    self.drain(*other).await?;
                }
            }
            if lingering.iter().any(|identity| is_to(&frame.target_spec, identity)) {
                // Nobody is behind that socket any more, and the claim stands all the same.
                let until = Some(self.claim_end());
                let mut rows = self.lock();
                let unclaimed = |row: &&mut Row| {
                    row.push.message_id == message_id && row.claimed_until.is_none()
                };
                if let Some(row) = rows.iter_mut().find(unclaimed) {
                    row.claimed_until = until;
                }
            }
            return Ok(());
        }
        let members = self.ledger.members(&sender.mesh_id).await?;
        let group = frame.target_spec.strip_prefix('@').filter(|name| *name != "all");
        let sender_id = members.iter().find(|m| m.seq == sender.member).map(|m| m.id.clone());
        let text = multicast(self.runtime.now(), sender, sender_id, &frame, message_id);
        for (other, identity) in live {
            let reached = members.iter().any(|member| {
                let is_named = |name| member.groups.iter().any(|group| group.name == name);
                member.seq == identity.member && member.visible && group.is_none_or(is_named)
            });
            if reached && identity.member != sender.member {
                self.hub.tell(other, &text);
            }
        }
        Ok(())
    }

    /// Pushes what is free and fits a connection. Called by what makes the legacy network drain, and
    /// by nothing else.
    pub(crate) async fn drain(&self, id: ConnectionId) -> Result<(), LedgerError> {
        let Some(identity) = self.hub.identity(id) else { return Ok(()) };
        let topics = self.ledger.topics_joined(identity.member).await?;
        let member = self.ledger.member(&identity.mesh_id, &identity.member_pubkey).await?;
        let holds_back = member.is_some_and(|member| member.status == "dnd");
        let now = self.runtime.monotonic();
        let until = Some(self.claim_end());
        for row in self.lock().iter_mut() {
            let is_free = row.claimed_until.is_none_or(|until| until <= now);
            let is_urgent = row.push.priority == Priority::Now.as_str();
            let is_mine = match row.target_spec.strip_prefix('#') {
                Some(topic) => topics.iter().any(|joined| joined == topic),
                None => is_to(&row.target_spec, &identity),
            };
            let is_here = row.push.mesh_id == identity.mesh_id;
            if is_free && is_mine && is_here && (is_urgent || !holds_back) {
                row.claimed_until = until;
                self.hub.tell(id, &text_of(row.push.clone()));
            }
        }
        Ok(())
    }

    /// Removes what a client says it has: by either id, as long as it may be the client's.
    pub(crate) fn acknowledge(&self, id: ConnectionId, ack: &ClientAck) {
        let Some(identity) = self.hub.identity(id) else { return };
        self.lock().retain(|row| {
            let by_broker_id = ack.broker_message_id.as_ref() == Some(&row.push.message_id);
            let by_client_id = ack.client_message_id.is_some()
                && ack.client_message_id == row.push.client_message_id;
            let may_be_its = row.target_spec.starts_with('#') || is_to(&row.target_spec, &identity);
            let is_here = row.push.mesh_id == identity.mesh_id;
            !((by_broker_id || by_client_id) && may_be_its && is_here)
        });
    }

    fn claim_end(&self) -> Duration {
        self.runtime.monotonic() + self.lease
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self, frame: SendFrame, id: String) -> IncomingMessage {
        IncomingMessage {
            id,
            client: None,
            destination: Ok(Destination::Everyone),
            frame: SendFrame { ext_nonce: None, ext_ciphertext: None, ..frame },
            now: self.runtime.now(),
            dedupe_expires_at: None,
        }
    }
}

/// Whatever is no multicast is a key to the legacy network, sense or nonsense.
fn is_direct(target_spec: &str) -> bool {
    !target_spec.starts_with(['*', '@', '#'])
}

fn is_to(target_spec: &str, identity: &Identity) -> bool {
    identity.member_pubkey == target_spec || identity.routing_key == target_spec
}

fn text_of(push: PushFrame) -> Utf8Bytes {
    to_text(&BrokerFrame::Push(Box::new(push))).into()
}

/// The shape of a push that was drained: direct messages and topics.
fn drained(now: Millis, sender: &MessageSender, frame: &SendFrame, message_id: &str) -> PushFrame {
    PushFrame {
        message_id: message_id.to_owned(),
        mesh_id: sender.mesh_id.clone(),
        sender_pubkey: sender.routing_key.clone(),
        priority: frame.priority.clone(),
        nonce: frame.nonce.clone(),
        ciphertext: frame.ciphertext.clone(),
        created_at: iso(now),
        client_message_id: frame.client_message_id.clone(),
        request_fingerprint: frame.request_fingerprint.clone(),
        ..PushFrame::default()
    }
}

/// The shape of a push that was not: `*` and `@group`.
fn multicast(
    now: Millis,
    sender: &MessageSender,
    sender_id: Option<String>,
    frame: &SendFrame,
    message_id: String,
) -> Utf8Bytes {
    let push = PushFrame {
        sender_member_pubkey: Some(sender.member_pubkey.clone()),
        sender_name: Some(sender.name.clone()),
        reply_to_id: frame.reply_to_id.clone(),
        client_message_id: None,
        request_fingerprint: None,
        ..drained(now, sender, frame, &message_id)
    };
    let mut frame = serde_json::to_value(BrokerFrame::Push(Box::new(push))).unwrap_or_default();
    if let (Some(frame), Some(id)) = (frame.as_object_mut(), sender_id) {
        frame.insert("senderMemberId".to_owned(), id.into());
    }
    frame.to_string().into()
}
