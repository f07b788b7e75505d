//! Today's network, faults included (§17): what our own client is tested against.
//!
//! Greeting, roster, topics and members are the honest broker's. This file replaces sending,
//! queueing and acknowledging, from what `specs/wire.md` says of today's network:
//!
//! - the rate limit comes first, 10 at once and then one a second, and every send costs a token;
//! - nothing is deduplicated: two sends of one id are two messages;
//! - a direct message to somebody without a connection is refused, not queued;
//! - a message is claimed for 30 s, also for a socket that is dead already, and a claim that is
//!   over is looked at only when something else makes that connection drain: a greeting, or a
//!   direct message to it;
//! - a topic's message goes to whichever member drains first, its sender included;
//! - `*` and `@group` reach who is connected, in another shape of push, and nobody later;
//! - a bad priority gets no answer at all, and acks carry no codes.
//!
//! The queue is memory: a restart loses it, which today's network does not. Nothing here is ever
//! reached unless the broker was started for it.

use super::Broker;
use super::ledger::{Letter, Sender, Target};
use super::rate::{Limiter, Rate};
use super::route::{ConnectionId, Identity, Lines, Outgoing};
use super::send::{BLOCKED, NO_PEER};
use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::db;
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::{
    AckFrame, BrokerFrame, ClientAck, FRAME_BYTES_MAX, PushFrame, SendFrame, to_text,
};
use claudemesh_fsm::envelope::Priority;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How fast a member of today's network may send.
const RATE: Rate = Rate { burst: 10, per_second: 1.0 };
/// Messages the queue holds; beyond it the oldest is forgotten.
const ROWS_MAX: usize = 10_000;
const RATE_LIMITED: &str = "rate_limit: max 60 msg/min (burst 10) — slow down";

/// What today's network remembers of messages.
pub(crate) struct Faithful {
    limiter: Limiter,
    rows: Mutex<VecDeque<Row>>,
}

/// A message in the queue.
struct Row {
    push: PushFrame,
    target_spec: String,
    /// Nobody else gets it until then.
    claimed_until: Option<Duration>,
}

impl Faithful {
    /// An empty queue; `rate` instead of today's, for tests that cannot wait.
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { limiter: Limiter::new(rate.unwrap_or(RATE)), rows: Mutex::default() }
    }

    /// Takes or refuses a message, and hands it out.
    pub(crate) async fn send(
        &self,
        broker: &Broker,
        id: ConnectionId,
        sender: Sender,
        lines: &Lines,
        frame: SendFrame,
    ) {
        let correlation = frame.id.clone().unwrap_or_default();
        let message_id = broker.runtime.mint_id();
        let ack = match self.accept(broker, id, &sender, &frame, &message_id).await {
            Ok(true) => {
                AckFrame { message_id: message_id.clone(), queued: true, ..AckFrame::default() }
            }
            Ok(false) => return,
            Err(words) => AckFrame { error: Some(words), ..AckFrame::default() },
        };
        let is_taken = ack.queued;
        let ack = AckFrame { id: correlation, ..ack };
        lines.send(Outgoing::Frame(to_text(&BrokerFrame::Ack(Box::new(ack))).into()));
        if is_taken && let Err(error) = self.fan_out(broker, id, &sender, frame, message_id).await {
            broker.ledger_failed(&error);
        }
    }

    /// `false`: nothing is said at all.
    async fn accept(
        &self,
        broker: &Broker,
        id: ConnectionId,
        sender: &Sender,
        frame: &SendFrame,
        message_id: &str,
    ) -> Result<bool, String> {
        if !self.limiter.take(sender.member, None, broker.runtime.monotonic()) {
            return Err(RATE_LIMITED.to_owned());
        }
        let bytes = frame.ciphertext.len() + frame.nonce.len() + frame.target_spec.len();
        if bytes > FRAME_BYTES_MAX {
            return Err(format!(
                "payload too large: {bytes} bytes > MAX_MESSAGE_BYTES={FRAME_BYTES_MAX}"
            ));
        }
        if is_direct(&frame.target_spec) {
            let (live, ghosts) = broker.hub.present_as(&sender.mesh_id);
            let others = live.iter().filter(|(other, _)| *other != id).map(|(_, who)| who);
            let found = others.chain(&ghosts).find(|who| is_to(&frame.target_spec, who));
            let Some(recipient) = found else { return Err(NO_PEER.to_owned()) };
            let is_blocked = broker.ledger.is_blocked(recipient.member, sender.member).await;
            if is_blocked.is_ok_and(|is_blocked| is_blocked) {
                return Err(BLOCKED.to_owned());
            }
        }
        if Priority::parse(&frame.priority).is_none() {
            return Ok(false);
        }
        if is_direct(&frame.target_spec) || frame.target_spec.starts_with('#') {
            let push = drained(broker, sender, frame, message_id);
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
        broker: &Broker,
        id: ConnectionId,
        sender: &Sender,
        frame: SendFrame,
        message_id: String,
    ) -> Result<(), db::Error> {
        let (live, ghosts) = broker.hub.present_as(&sender.mesh_id);
        if let Some(topic) = frame.target_spec.strip_prefix('#') {
            let topic = topic.to_owned();
            let letter = history(broker, frame, message_id);
            return broker.ledger.keep_in_topic(sender.clone(), letter, topic).await;
        }
        if is_direct(&frame.target_spec) {
            for (other, who) in &live {
                if *other != id && is_to(&frame.target_spec, who) {
                    self.drain(broker, *other).await?;
                }
            }
            if ghosts.iter().any(|who| is_to(&frame.target_spec, who)) {
                // Nobody is behind that socket any more, and the claim stands all the same.
                let until = Some(self.claim_end(broker));
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
        let members = broker.ledger.members(&sender.mesh_id).await?;
        let group = frame.target_spec.strip_prefix('@').filter(|name| *name != "all");
        let sender_id = members.iter().find(|m| m.seq == sender.member).map(|m| m.id.clone());
        let text = multicast(broker, sender, sender_id, &frame, message_id);
        for (other, who) in live {
            let reached = members.iter().any(|member| {
                let is_named = |name| member.groups.iter().any(|group| group.name == name);
                member.seq == who.member && member.visible && group.is_none_or(is_named)
            });
            if reached && who.member != sender.member {
                broker.hub.tell(other, &text);
            }
        }
        Ok(())
    }

    /// Pushes what is free and fits a connection. Called by what makes today's network drain, and
    /// by nothing else.
    pub(crate) async fn drain(&self, broker: &Broker, id: ConnectionId) -> Result<(), db::Error> {
        let Some(who) = broker.hub.identity(id) else { return Ok(()) };
        let topics = broker.ledger.topics_joined(who.member).await?;
        let member = broker.ledger.member(&who.mesh_id, &who.member_pubkey).await?;
        let holds_back = member.is_some_and(|member| member.status == "dnd");
        let now = broker.runtime.monotonic();
        let until = Some(self.claim_end(broker));
        for row in self.lock().iter_mut() {
            let is_free = row.claimed_until.is_none_or(|until| until <= now);
            let is_urgent = row.push.priority == Priority::Now.as_str();
            let is_mine = match row.target_spec.strip_prefix('#') {
                Some(topic) => topics.iter().any(|joined| joined == topic),
                None => is_to(&row.target_spec, &who),
            };
            let is_here = row.push.mesh_id == who.mesh_id;
            if is_free && is_mine && is_here && (is_urgent || !holds_back) {
                row.claimed_until = until;
                broker.hub.tell(id, &text_of(row.push.clone()));
            }
        }
        Ok(())
    }

    /// Removes what a client says it has: by either id, as long as it may be the client's.
    pub(crate) fn acknowledge(&self, broker: &Broker, id: ConnectionId, ack: &ClientAck) {
        let Some(who) = broker.hub.identity(id) else { return };
        self.lock().retain(|row| {
            let by_broker_id = ack.broker_message_id.as_ref() == Some(&row.push.message_id);
            let by_client_id = ack.client_message_id.is_some()
                && ack.client_message_id == row.push.client_message_id;
            let may_be_its = row.target_spec.starts_with('#') || is_to(&row.target_spec, &who);
            let is_here = row.push.mesh_id == who.mesh_id;
            !((by_broker_id || by_client_id) && may_be_its && is_here)
        });
    }

    fn claim_end(&self, broker: &Broker) -> Duration {
        broker.runtime.monotonic() + Duration::from_millis(broker.settings.lease_ms)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever is no multicast is a key to today's network, sense or nonsense.
fn is_direct(target_spec: &str) -> bool {
    !target_spec.starts_with(['*', '@', '#'])
}

fn is_to(target_spec: &str, who: &Identity) -> bool {
    who.member_pubkey == target_spec || who.routing_key == target_spec
}

fn text_of(push: PushFrame) -> Utf8Bytes {
    to_text(&BrokerFrame::Push(Box::new(push))).into()
}

/// The shape of a push that was drained: direct messages and topics.
fn drained(broker: &Broker, sender: &Sender, frame: &SendFrame, message_id: &str) -> PushFrame {
    PushFrame {
        message_id: message_id.to_owned(),
        mesh_id: sender.mesh_id.clone(),
        sender_pubkey: sender.routing_key.clone(),
        priority: frame.priority.clone(),
        nonce: frame.nonce.clone(),
        ciphertext: frame.ciphertext.clone(),
        created_at: iso(broker.runtime.now()),
        client_message_id: frame.client_message_id.clone(),
        request_fingerprint: frame.request_fingerprint.clone(),
        ..PushFrame::default()
    }
}

/// The shape of a push that was not: `*` and `@group`.
fn multicast(
    broker: &Broker,
    sender: &Sender,
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
        ..drained(broker, sender, frame, &message_id)
    };
    let mut frame = serde_json::to_value(BrokerFrame::Push(Box::new(push))).unwrap_or_default();
    if let (Some(frame), Some(id)) = (frame.as_object_mut(), sender_id) {
        frame.insert("senderMemberId".to_owned(), id.into());
    }
    frame.to_string().into()
}

fn history(broker: &Broker, frame: SendFrame, id: String) -> Letter {
    Letter {
        id,
        client: None,
        checked: Ok(Target::Everyone),
        target_spec: frame.target_spec,
        priority: frame.priority,
        nonce: frame.nonce,
        ciphertext: frame.ciphertext,
        ext_nonce: None,
        ext_ciphertext: None,
        reply_to_id: frame.reply_to_id,
        now: broker.runtime.now(),
        dedupe_expires_at: None,
    }
}
