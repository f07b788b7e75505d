//! Sends under way: the courier's end, which waits for an answer, and the link's end, which finds
//! out whose answer it is.
//!
//! Knows no socket. Every send that enters here leaves with exactly one [`Delivery`], also when the
//! link's end is dropped in the middle.

mod given_up;

use super::WORDS_CHARS_MAX;
use crate::clock::{BoxFuture, Clock};
use crate::courier::{Courier, Delivery, LateAck};
use crate::message::SecretKey;
use crate::wire::{self, ClientFrame, to_text};
use claudemesh_fsm::id::{BrokerMessageId, Millis};
use claudemesh_fsm::outbox::Ack;
use futures_channel::oneshot;
use futures_lite::Stream;
use given_up::GivenUp;
use smol::channel::{self, Receiver, Sender};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The status by which a frame that the mesh does not take is refused here (§3.6).
const TOO_LARGE: u16 = 413;
/// The most bytes of a broker's id that are believed.
const ID_BYTES_MAX: usize = 256;
/// The status of an id that was used for another message (§4.5b).
const CONFLICT: u16 = 409;
/// Codes with which a broker says that it has the message (§4.5b); older ones give none.
const ACCEPTED: [u16; 2] = [200, 201];

/// A frame on its way to the socket.
struct Outgoing {
    id: Arc<str>,
    text: String,
    reply: oneshot::Sender<Delivery>,
}

/// A written frame.
struct Written {
    id: Arc<str>,
    deadline: Duration,
    reply: oneshot::Sender<Delivery>,
}

/// What an `ack` was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The answer to a send: yes.
    Acked,
    /// The answer to a send: no.
    Refused,
    /// A success that nobody waits for any more.
    Late(LateAck),
    /// The refusal of an attempt that was given up: it says nothing about the attempt after it.
    Stale,
    /// Nothing that can be used: a refusal of nothing we sent, or neither yes nor no.
    Unusable,
}

/// The link's end.
pub(super) struct Desk {
    queue: Pin<Box<Receiver<Outgoing>>>,
    sender: Sender<Outgoing>,
    /// By order of writing, which is the order of the deadlines.
    written: BTreeMap<u64, Written>,
    by_id: HashMap<Arc<str>, u64>,
    /// Frames whose answers may still come, although nobody waits for them.
    given_up: GivenUp,
    next_ticket: u64,
    inflight_max: usize,
    ack_max: Duration,
    /// Dropped with the desk: that is how couriers learn of the end.
    gone: (Sender<Infallible>, Receiver<Infallible>),
}

impl Desk {
    pub(super) fn new(inflight_max: usize, ack_max: Duration) -> Self {
        let (sender, queue) = channel::bounded(inflight_max.max(1));
        Self {
            queue: Box::pin(queue),
            sender,
            written: BTreeMap::new(),
            by_id: HashMap::new(),
            given_up: GivenUp::new(ack_max),
            next_ticket: 0,
            inflight_max: inflight_max.max(1),
            ack_max,
            gone: channel::bounded(1),
        }
    }

    /// A way for the flows to send through this desk.
    pub(super) fn courier(
        &self,
        secret: SecretKey,
        max_age_ms: u64,
        frame_bytes_max: usize,
        clock: Clock,
    ) -> DeskCourier {
        let (outgoing, gone) = (self.sender.clone(), self.gone.1.clone());
        DeskCourier { outgoing, gone, secret, max_age_ms, frame_bytes_max, clock }
    }

    /// The next frame to write at `now`; from here on it counts as written.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<String> {
        while self.written.len() < self.inflight_max {
            let Poll::Ready(Some(outgoing)) = self.queue.as_mut().poll_next(cx) else { break };
            let Outgoing { id, text, reply } = outgoing;
            // Nobody waits for it any more, and it was never written.
            if reply.is_canceled() {
                continue;
            }
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            if let Some(older) = self.by_id.insert(id.clone(), ticket) {
                self.give_up(older, now, "another send took its id".to_owned());
            }
            let deadline = now.saturating_add(self.ack_max);
            self.written.insert(ticket, Written { id, deadline, reply });
            return Poll::Ready(text);
        }
        Poll::Pending
    }

    /// When the oldest unanswered send is given up.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.written.first_key_value().map(|(_, written)| written.deadline)
    }

    /// Gives up every send whose deadline is not after `now`.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((ticket, written)) = self.written.first_key_value()
            && written.deadline <= now
        {
            let ticket = *ticket;
            self.by_id.remove(&written.id);
            let words = format!("no answer from the broker within {:?}", self.ack_max);
            self.give_up(ticket, now, words);
        }
        self.given_up.forget(now);
    }

    /// Finds the send that `ack` answers (§4.5b, `specs/wire.md`).
    ///
    /// A broker answers the frames of one id in their order, so that while an earlier frame of an
    /// id is unanswered, a refusal is that frame's: the attempt that waits keeps waiting for its
    /// own. A success counts for whichever: the broker has the message.
    pub(super) fn settle(&mut self, ack: wire::Ack, at: Millis) -> Settled {
        let name =
            if ack.id.is_empty() { ack.client_message_id.as_deref() } else { Some(&*ack.id) };
        let Some(name) = name.map(str::to_owned) else { return Settled::Unusable };
        let Some(delivery) = read(ack, at) else { return Settled::Unusable };
        let is_success = matches!(delivery, Delivery::Acked(_));
        let answers_earlier = self.given_up.answered(&name);
        if answers_earlier && !is_success {
            return Settled::Stale;
        }
        let waiting = self.by_id.remove(name.as_str()).and_then(|it| self.written.remove(&it));
        if is_success && waiting.is_some() {
            // The row is done, and its id is never sent again.
            self.given_up.forget_id(&name);
        }
        match (waiting, delivery) {
            (Some(written), delivery) => match written.reply.send(delivery) {
                // The caller went away in the meantime: a success still counts (§4.5.2).
                Err(Delivery::Acked(ack)) => late(name, ack),
                _ if is_success => Settled::Acked,
                _ => Settled::Refused,
            },
            (None, Delivery::Acked(ack)) => late(name, ack),
            (None, _) => Settled::Unusable,
        }
    }

    /// The link is over: what was written is lost, what was not is unsent. Nothing is taken later.
    pub(super) fn close(&mut self, why: &str) {
        self.queue.close();
        self.by_id.clear();
        for (_, written) in std::mem::take(&mut self.written) {
            let _ = written.reply.send(Delivery::Lost { words: why.to_owned() });
        }
        while let Ok(outgoing) = self.queue.try_recv() {
            let _ = outgoing.reply.send(Delivery::Unsent { words: why.to_owned() });
        }
        self.gone.0.close();
    }

    /// Nobody waits for the answer any more, but it may come.
    fn give_up(&mut self, ticket: u64, now: Duration, words: String) {
        if let Some(written) = self.written.remove(&ticket) {
            // A caller that no longer listens needs no answer.
            let _ = written.reply.send(Delivery::Lost { words });
            self.given_up.add(written.id, now);
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close("the link ended");
    }
}

/// What a broker answered; `None` if it is neither yes nor no.
fn read(ack: wire::Ack, at: Millis) -> Option<Delivery> {
    let (code, permanent) = (ack.code, ack.permanent);
    if let Some(words) = ack.error {
        let words = words.chars().take(WORDS_CHARS_MAX).collect();
        return Some(Delivery::Refused { code, permanent, words });
    }
    if let Some(failing) = code.filter(|code| !ACCEPTED.contains(code)) {
        let words = match failing {
            CONFLICT => "idempotency_key_reused".to_owned(),
            other => format!("the broker answered with code {other} and no word"),
        };
        return Some(Delivery::Refused { code, permanent, words });
    }
    let named = ack.broker_message_id.filter(|id| !id.is_empty()).unwrap_or(ack.message_id);
    if named.is_empty() || named.len() > ID_BYTES_MAX {
        return None;
    }
    Some(Delivery::Acked(Ack {
        broker_message_id: BrokerMessageId::trusted(named),
        history_id: ack.history_id.filter(|id| id.len() <= ID_BYTES_MAX),
        delivered_at: at,
    }))
}

fn late(client_message_id: String, ack: Ack) -> Settled {
    Settled::Late(LateAck { client_message_id, ack })
}

/// The courier's end.
pub(super) struct DeskCourier {
    outgoing: Sender<Outgoing>,
    gone: Receiver<Infallible>,
    secret: SecretKey,
    max_age_ms: u64,
    frame_bytes_max: usize,
    clock: Clock,
}

impl Courier for DeskCourier {
    fn deliver(&self, mut message: wire::Send) -> BoxFuture<Delivery> {
        if message.id.is_none() {
            let id = message.client_message_id.clone();
            message.id = Some(id.unwrap_or_else(|| self.clock.mint_id()));
        }
        let id = Arc::from(message.id.as_deref().unwrap_or_default());
        let (outgoing, frame_bytes_max) = (self.outgoing.clone(), self.frame_bytes_max);
        Box::pin(async move {
            let text = to_text(&ClientFrame::Send(Box::new(message)));
            if text.len() > frame_bytes_max {
                return too_large(text.len(), frame_bytes_max);
            }
            let (reply, answer) = oneshot::channel();
            if outgoing.send(Outgoing { id, text, reply }).await.is_err() {
                return Delivery::Unsent { words: "the link is no longer open".to_owned() };
            }
            // The desk answers whatever happens; without it nobody knows what was written.
            answer.await.unwrap_or_else(|_| Delivery::Lost { words: "the link ended".to_owned() })
        })
    }

    fn closed(&self) -> BoxFuture<()> {
        let gone = self.gone.clone();
        Box::pin(async move {
            // Nothing is ever sent on it, so an answer is its end.
            let _ = gone.recv().await;
        })
    }

    fn secret(&self) -> &SecretKey {
        &self.secret
    }

    fn max_age_ms(&self) -> u64 {
        self.max_age_ms
    }
}

/// A broker would close the connection over it, and every send with it (`specs/wire.md`).
fn too_large(bytes: usize, bytes_max: usize) -> Delivery {
    let words =
        format!("payload too large: the frame is {bytes} bytes, this mesh takes {bytes_max}");
    Delivery::Refused { code: Some(TOO_LARGE), permanent: Some(true), words }
}
