//! The receive flow: pushes become inbox rows, then acknowledgements, then events (§5).
//!
//! In this order and no other: a push is acknowledged on the socket it came from only after its row
//! is on stable storage, and announced only after that. Pushes that wait together share one commit.

mod open;

use crate::events::{Event, EventBus, EventContent};
use crate::mesh::Mesh;
use crate::port::InboundPush;
use crate::store::inbox::{Inbox, NewMessage, Stored, StoredMessage};
use claudemesh_base::log::Repeated;
use claudemesh_base::message::Extension;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{ClientAck, PushFrame, RosterEntry};
use claudemesh_fsm::envelope::Encryption;
use claudemesh_fsm::receive::ReceiveDecision;
use open::{OpenedPush, PushOpener};
use serde_json::{Map, Value};
use smol::channel::{Receiver, Sender};
use std::time::Duration;

/// How many pushes share one commit at the most.
const BATCH_MAX: usize = 64;
/// How long the flow waits when the inbox cannot be written, before it takes the next pushes. What
/// was not stored was not acknowledged either, so the broker keeps it.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The receive flow of one mesh.
pub struct ReceiveFlow {
    mesh: Mesh,
    inbox: Inbox,
    bus: EventBus,
    runtime: Runtime,
    opener: PushOpener,
    malformed: Repeated,
    store_failing: Repeated,
}

/// A message that will be stored, and where to acknowledge it.
type Accepted = (NewMessage, Sender<ClientAck>);

impl ReceiveFlow {
    /// A receive flow for `mesh`, which does nothing until it runs.
    #[must_use]
    pub fn new(mesh: Mesh, inbox: Inbox, bus: EventBus, runtime: Runtime) -> Self {
        let opener = PushOpener::default();
        let (malformed, store_failing) = (Repeated::default(), Repeated::default());
        Self { mesh, inbox, bus, runtime, opener, malformed, store_failing }
    }

    /// Takes pushes until the links are gone.
    pub async fn run(self, inbound: Receiver<InboundPush>) {
        while let Ok(first) = inbound.recv().await {
            let mut accepted = Vec::new();
            accepted.extend(self.classify(first));
            while accepted.len() < BATCH_MAX
                && let Ok(next) = inbound.try_recv()
            {
                accepted.extend(self.classify(next));
            }
            if !accepted.is_empty() {
                self.store(accepted).await;
            }
        }
    }

    /// Deals at once with a push that is not to be stored.
    fn classify(&self, inbound: InboundPush) -> Option<Accepted> {
        let OpenedPush { decision, body, extension } = self.opener.read(&inbound);
        let InboundPush { push, acks, .. } = inbound;
        match decision {
            ReceiveDecision::Store { undecryptable, encryption } => {
                let body = body.filter(|_| !undecryptable);
                return Some((self.message(push, encryption, body, extension), acks));
            }
            ReceiveDecision::System => self.announce_system(push),
            ReceiveDecision::Own { ack } => {
                if ack {
                    acknowledge(&acks, push.client_message_id, push.message_id);
                }
            }
            ReceiveDecision::Malformed(why) => {
                // Logged once, then counted: a peer can send as many as it likes.
                if self.malformed.happened() {
                    let mesh = self.mesh.slug();
                    tracing::warn!(
                        mesh,
                        why,
                        "a malformed message was dropped; more are only counted"
                    );
                }
                acknowledge(&acks, push.client_message_id, push.message_id);
            }
        }
        None
    }

    fn message(
        &self,
        push: PushFrame,
        encryption: Encryption,
        body: Option<String>,
        extension: Extension,
    ) -> NewMessage {
        let name_of = |key: &str| {
            self.mesh.with_roster(|roster| {
                let known = |peer: &&RosterEntry| peer.pubkey == key || peer.member_pubkey == key;
                roster.peers.iter().find(known).map(|peer| peer.display_name.clone())
            })
        };
        let is_direct = encryption == Encryption::Direct;
        NewMessage {
            id: self.runtime.mint_id(),
            // Deduplicated on this: an id that no sender of ours could have used is not one.
            client_message_id: push.client_message_id.filter(|id| is_sound(id)),
            sender_name: push.sender_name.or_else(|| name_of(&push.sender_pubkey)),
            broker_message_id: push.message_id,
            mesh: self.mesh.slug().to_owned(),
            topic: push.topic,
            sender_pubkey: push.sender_pubkey,
            sender_member_pubkey: push.sender_member_pubkey,
            recipient_pubkey: push.target_spec.filter(|_| is_direct),
            recipient_kind: is_direct.then(|| "member".to_owned()),
            body,
            meta: extension.meta,
            priority: push.priority,
            subtype: push.subtype,
            encryption,
            created_at: Some(push.created_at).filter(|at| !at.is_empty()),
            received_at: self.runtime.now(),
            reply_to_id: extension.reply_to_id.or(push.reply_to_id),
        }
    }

    async fn store(&self, accepted: Vec<Accepted>) {
        let (messages, acks): (Vec<_>, Vec<_>) = accepted.into_iter().unzip();
        let stored = match self.inbox.store(messages).await {
            Ok(stored) => stored,
            Err(error) => {
                if self.store_failing.happened() {
                    let mesh = self.mesh.slug();
                    tracing::error!(mesh, %error, "cannot store what arrives; the broker keeps it");
                }
                return self.runtime.sleep(STORE_RETRY).await;
            }
        };
        if let Some(failures) = self.store_failing.ended() {
            tracing::info!(mesh = self.mesh.slug(), failures, "what arrives can be stored again");
        }
        for ((message, stored), acks) in stored.into_iter().zip(acks) {
            let (cmid, id) = (message.client_message_id.clone(), message.broker_message_id.clone());
            match stored {
                Ok(Stored::New { seq }) => {
                    acknowledge(&acks, cmid, id);
                    self.announce(message, seq);
                }
                Ok(Stored::Duplicate) => acknowledge(&acks, cmid, id),
                // Acknowledged although it is not stored: a message no table will ever take would
                // otherwise come back for ever. It is loud instead.
                Err(error) => {
                    let mesh = self.mesh.slug();
                    tracing::error!(mesh, %id, %error, "a message cannot be stored and is dropped");
                    acknowledge(&acks, cmid, id);
                }
            }
        }
    }

    fn announce(&self, content: NewMessage, seq: i64) {
        let message = StoredMessage { seq, content, seen_at: None };
        self.publish(|| EventContent::Message(message));
    }

    fn announce_system(&self, push: PushFrame) {
        self.publish(|| EventContent::System {
            mesh: self.mesh.slug().to_owned(),
            event: push.event.or(push.subtype).unwrap_or_else(|| "system".to_owned()),
            data: match push.event_data {
                Some(Value::Object(data)) => data,
                Some(other) => Map::from_iter([("data".to_owned(), other)]),
                None => Map::new(),
            },
        });
    }

    fn publish(&self, content: impl FnOnce() -> EventContent) {
        self.bus.publish(|| Event { at: self.runtime.now(), content: content() });
    }
}

fn is_sound(id: &str) -> bool {
    claudemesh_fsm::id::ClientMessageId::parse(id).is_ok_and(|parsed| parsed.as_str() == id)
}

/// Hands an acknowledgement to the connection, which writes the frame.
fn acknowledge(acks: &Sender<ClientAck>, client_message_id: Option<String>, id: String) {
    let ack = ClientAck { client_message_id, broker_message_id: Some(id) };
    // A socket that is gone, or whose queue is full, gets the push again: that is harmless.
    let _ = acks.try_send(ack);
}
