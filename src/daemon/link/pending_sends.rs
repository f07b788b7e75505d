//! Sends under way: the transport, which waits for an answer, and the link's end, which finds
//! out whose answer it is.
//!
//! Knows no socket. Every send that enters here leaves with exactly one [`SendOutcome`], also when the
//! link's end is dropped in the middle.

mod abandoned;
mod answer;
mod transport;

use super::receipt_queries::ReceiptQueries;
use crate::port::{LateAck, SendOutcome};
use abandoned::AbandonedSends;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::negotiate::PAYLOAD_BYTES_MIN;
use claudemesh_fsm::outbox::Ack;
use futures_channel::oneshot;
use futures_lite::Stream;
use smol::channel::{self, Receiver, Sender};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
pub(super) use transport::{ConnectionTransport, LinkTerms};

/// The status by which a frame that the mesh does not take is refused here (§3.6).
const TOO_LARGE: u16 = 413;
/// A broker that closes over a frame of fewer bytes than this is not believed: no broker may take
/// less (§15, `max_payload`).
const TOO_LARGE_BYTES_MIN: usize = PAYLOAD_BYTES_MIN as usize;
/// A frame on its way to the socket.
enum Outgoing {
    /// A send, whose answer somebody waits for.
    Send { id: Arc<str>, text: String, reply: oneshot::Sender<SendOutcome> },
    /// A question that a send raised; its answer is the driver's to hear.
    Query(String),
}

/// A written frame.
struct UnansweredSend {
    id: Arc<str>,
    bytes: usize,
    deadline: Duration,
    reply: oneshot::Sender<SendOutcome>,
    /// A refusal of its id was taken for an earlier frame's. It may have been its own, so that no
    /// answer is owed to it: otherwise a row might never hear a refusal again.
    may_be_answered: bool,
}

/// What an `ack` was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AckOutcome {
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
pub(super) struct PendingSends {
    queue: Pin<Box<Receiver<Outgoing>>>,
    sender: Sender<Outgoing>,
    /// By order of writing, which is the order of the deadlines.
    written: BTreeMap<u64, UnansweredSend>,
    by_id: HashMap<Arc<str>, u64>,
    /// Frames whose answers may still come, although nobody waits for them.
    abandoned: AbandonedSends,
    next_ticket: u64,
    inflight_max: usize,
    ack_max: Duration,
    /// The largest frame that was answered, and the largest that was given up, in bytes.
    answered_bytes_max: usize,
    abandoned_bytes_max: usize,
    /// Questions beside the sends.
    pub(super) receipt_queries: ReceiptQueries,
    /// Dropped together with this: that is how transports learn of the end.
    end_signal: (Sender<Infallible>, Receiver<Infallible>),
}

impl PendingSends {
    pub(super) fn new(inflight_max: usize, ack_max: Duration) -> Self {
        let (sender, queue) = channel::bounded(inflight_max.max(1));
        Self {
            queue: Box::pin(queue),
            sender,
            written: BTreeMap::new(),
            by_id: HashMap::new(),
            abandoned: AbandonedSends::new(ack_max),
            next_ticket: 0,
            inflight_max: inflight_max.max(1),
            ack_max,
            answered_bytes_max: 0,
            abandoned_bytes_max: 0,
            receipt_queries: ReceiptQueries::new(),
            end_signal: channel::bounded(1),
        }
    }

    /// A way for the flows to send through this connection.
    pub(super) fn transport(&self, link_terms: LinkTerms, runtime: Runtime) -> ConnectionTransport {
        let (outgoing, end_signal, ack_max) =
            (self.sender.clone(), self.end_signal.1.clone(), self.ack_max);
        ConnectionTransport {
            outgoing,
            receipt_queries: self.receipt_queries.sender(),
            end_signal,
            link_terms,
            ack_max,
            runtime,
        }
    }

    /// The next frame to write at `now`; from here on it counts as written.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<String> {
        while self.written.len() < self.inflight_max {
            let Poll::Ready(Some(outgoing)) = self.queue.as_mut().poll_next(cx) else { break };
            let (id, text, reply) = match outgoing {
                Outgoing::Send { id, text, reply } => (id, text, reply),
                Outgoing::Query(text) => return Poll::Ready(text),
            };
            // Nobody waits for it any more, and it was never written.
            if reply.is_canceled() {
                continue;
            }
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            if let Some(older) = self.by_id.insert(id.clone(), ticket) {
                self.abandon(older, now, "another send took its id".to_owned());
            }
            let deadline = now.saturating_add(self.ack_max);
            let bytes = text.len();
            let may_be_answered = false;
            self.written
                .insert(ticket, UnansweredSend { id, bytes, deadline, reply, may_be_answered });
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
            let reason = format!("no answer from the broker within {:?}", self.ack_max);
            self.abandon(ticket, now, reason);
        }
        self.abandoned.forget(now);
    }

    /// Finds the send that `ack` answers (§4.5b, `specs/wire.md`).
    ///
    /// A broker answers the frames of one id in their order, so that while an earlier frame of an
    /// id is unanswered, a refusal is that frame's: the attempt that waits keeps waiting for its
    /// own. A success counts for whichever: the broker has the message.
    pub(super) fn settle(&mut self, ack: wire::AckFrame, at: Millis) -> AckOutcome {
        let name =
            if ack.id.is_empty() { ack.client_message_id.as_deref() } else { Some(&*ack.id) };
        let Some(name) = name.map(str::to_owned) else { return AckOutcome::Unusable };
        let Some(delivery) = answer::read(ack, at) else { return AckOutcome::Unusable };
        let is_success = matches!(delivery, SendOutcome::Acked(_));
        let answers_earlier = self.abandoned.answered(&name);
        if answers_earlier && !is_success {
            let ticket = self.by_id.get(name.as_str());
            if let Some(waiting) = ticket.and_then(|ticket| self.written.get_mut(ticket)) {
                waiting.may_be_answered = true;
            }
            return AckOutcome::Stale;
        }
        let waiting = self.by_id.remove(name.as_str()).and_then(|it| self.written.remove(&it));
        if is_success && waiting.is_some() {
            // The row is done, and its id is never sent again.
            self.abandoned.forget_id(&name);
        }
        match (waiting, delivery) {
            (Some(written), delivery) => {
                self.answered_bytes_max = self.answered_bytes_max.max(written.bytes);
                match written.reply.send(delivery) {
                    // The caller went away in the meantime: a success still counts (§4.5.2).
                    Err(SendOutcome::Acked(ack)) => late(name, ack),
                    _ if is_success => AckOutcome::Acked,
                    _ => AckOutcome::Refused,
                }
            }
            (None, SendOutcome::Acked(ack)) => late(name, ack),
            (None, _) => AckOutcome::Unusable,
        }
    }

    /// The broker closed because a frame was too large (1009). Whatever its limit is, the largest
    /// frame that it left unanswered is above it, be it a send or a question: sends of that size
    /// are refused for good, and the others are lost. Says how much a frame may weigh from now on,
    /// in bytes; `None` if this proves nothing, because a frame as large was answered, or because
    /// no limit is that small.
    pub(super) fn close_too_large(&mut self, why: &str) -> Option<usize> {
        let unanswered = self.written.values().map(|written| written.bytes);
        let abandoned = self.abandoned_bytes_max.max(self.receipt_queries.unanswered_bytes_max());
        let largest = unanswered.fold(abandoned, usize::max);
        let answered = self.answered_bytes_max.max(self.receipt_queries.answered_bytes_max());
        if largest <= answered.max(TOO_LARGE_BYTES_MIN) {
            return None;
        }
        for (_, written) in self.written.extract_if(.., |_, written| written.bytes == largest) {
            let reason = format!(
                "payload too large: the broker closed the connection over a frame of {largest} bytes (1009 {why})"
            );
            let (code, permanent) = (Some(TOO_LARGE), Some(true));
            let _ = written.reply.send(SendOutcome::Refused { code, permanent, reason });
        }
        Some(largest - 1)
    }

    /// The link is over: what was written is lost, what was not is unsent. Nothing is taken later.
    pub(super) fn close(&mut self, why: &str) {
        self.queue.close();
        self.by_id.clear();
        for (_, written) in std::mem::take(&mut self.written) {
            let _ = written.reply.send(SendOutcome::Lost { reason: why.to_owned() });
        }
        while let Ok(outgoing) = self.queue.try_recv() {
            if let Outgoing::Send { reply, .. } = outgoing {
                let _ = reply.send(SendOutcome::Unsent { reason: why.to_owned() });
            }
        }
        self.receipt_queries.close();
        self.end_signal.0.close();
    }

    /// Nobody waits for the answer any more, but it may come.
    fn abandon(&mut self, ticket: u64, now: Duration, reason: String) {
        if let Some(written) = self.written.remove(&ticket) {
            self.abandoned_bytes_max = self.abandoned_bytes_max.max(written.bytes);
            // A caller that no longer listens needs no answer.
            let _ = written.reply.send(SendOutcome::Lost { reason });
            if !written.may_be_answered {
                self.abandoned.add(written.id, now);
            }
        }
    }
}

impl Drop for PendingSends {
    fn drop(&mut self) {
        self.close("the link ended");
    }
}

fn late(client_message_id: String, ack: Ack) -> AckOutcome {
    AckOutcome::Late(LateAck { client_message_id, ack })
}
