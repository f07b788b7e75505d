//! What a connection hears: it answers what means the same in every state and passes on the rest.

use super::{Connection, ConnectionEvent};
use crate::link::pending_sends::AckOutcome;
use crate::link::socket::Incoming;
use crate::port::InboundPush;
use claudemesh_base::message::PublicKey;
use claudemesh_base::wire::{BrokerFrame, PushFrame};
use smol::channel::TrySendError;
use std::task::{Context, Poll};

/// How many frames are read before writing, the deadlines and everybody else get a turn. What the
/// link's state has to deal with counts too: a broker chooses what it sends.
const READ_BATCH: usize = 64;

pub(super) enum ReadProgress {
    Event(ConnectionEvent),
    More,
    Nothing,
}

impl Connection {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> ReadProgress {
        while self.batch < READ_BATCH {
            self.batch += 1;
            if let Some(held) = &mut self.held {
                // The silence is ours as long as we do not listen.
                self.last_heard = self.runtime.monotonic();
                if held.as_mut().poll(cx).is_pending() {
                    return ReadProgress::Nothing;
                }
                self.held = None;
            }
            let Poll::Ready(incoming) = self.socket.poll_incoming(cx) else {
                return ReadProgress::Nothing;
            };
            let event = match incoming {
                Incoming::Closed(closed) => {
                    return ReadProgress::Event(ConnectionEvent::Closed(closed));
                }
                Incoming::Alive => None,
                Incoming::Malformed => {
                    self.drop_frame("a message that is no frame");
                    None
                }
                Incoming::Frame(frame) => self.take(frame),
            };
            self.last_heard = self.runtime.monotonic();
            if let Some(event) = event {
                return ReadProgress::Event(event);
            }
        }
        ReadProgress::More
    }

    fn take(&mut self, frame: BrokerFrame) -> Option<ConnectionEvent> {
        match frame {
            BrokerFrame::Push(push) => return self.take_push(*push),
            BrokerFrame::Ack(ack) => match self.pending_sends.settle(*ack, self.runtime.now()) {
                AckOutcome::Acked => self.delivered = true,
                AckOutcome::Refused | AckOutcome::Stale => {}
                AckOutcome::Late(late) => self.observer.late_ack(late),
                AckOutcome::Unusable => self.drop_frame("an ack that answers nothing"),
            },
            BrokerFrame::Receipts(receipts) => {
                if let Some(news) = self.pending_sends.receipt_queries.answer(receipts) {
                    self.observer.receipts(news);
                }
            }
            // Today's network says more than we listen to.
            BrokerFrame::Unknown => {}
            other => return Some(ConnectionEvent::Frame(other)),
        }
        None
    }

    fn take_push(&mut self, push: PushFrame) -> Option<ConnectionEvent> {
        let event = system_event(&push, &self.key);
        let inbound = InboundPush {
            push,
            acks: self.client_acks.0.clone(),
            secrets: self.secrets.clone(),
            connection_key: self.key,
        };
        if let Err(TrySendError::Full(inbound)) = self.inbound.try_send(inbound) {
            let sender = self.inbound.clone();
            self.held = Some(Box::pin(async move {
                // A receive flow that has ended takes no more: the broker keeps the message.
                let _ = sender.send(inbound).await;
            }));
        }
        event
    }
}

/// What a system push means for the link itself.
fn system_event(push: &PushFrame, own: &PublicKey) -> Option<ConnectionEvent> {
    if push.subtype.as_deref() != Some("system") {
        return None;
    }
    match push.event.as_deref()? {
        "peer_joined" | "peer_left" | "peer_returned" | "peer_visible" | "peer_hidden" => {
            Some(ConnectionEvent::RosterChanged)
        }
        event @ ("member_revoked" | "keypair_revoked") => {
            let data = push.event_data.as_ref()?;
            let own = own.to_hex();
            let names = |key: &str| data.get(key).and_then(|it| it.as_str()) == Some(own.as_str());
            let about_us = ["pubkey", "memberPubkey", "member_pubkey"].into_iter().any(names);
            about_us.then(|| ConnectionEvent::Revoked(event.to_owned()))
        }
        _ => None,
    }
}
