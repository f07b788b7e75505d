//! One connection in use: it reads, answers, writes and watches the time, in one task.
//!
//! It handles what means the same in every state (pushes, acks, pings) and hands the rest to the
//! state that the link is in. It never decides what becomes of the link.

use super::commands::{LinkCommand, LinkCommands};
use super::pending_sends::{AckOutcome, PendingSends};
use super::socket::{Incoming, WebSocket};
use super::{CLIENT_ACKS_MAX, LinkConfig};
use crate::port::{InboundPush, LinkObserver};
use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::runtime::{BoxFuture, Runtime};
use claudemesh_base::wire::{BrokerFrame, ClientAck, ClientFrame, PushFrame, to_text};
use claudemesh_fsm::link::Closed;
use futures_lite::Stream;
use smol::channel::{self, Receiver, Sender, TrySendError};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// How many frames are read before writing, the deadlines and everybody else get a turn. What the
/// link's state has to deal with counts too: a broker chooses what it sends.
const READ_BATCH: usize = 64;

/// What a link's state has to deal with.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// A frame that only some states expect.
    Frame(BrokerFrame),
    /// A push says that this member is revoked; the text is its event's name (§15.6).
    Revoked(String),
    /// A push says that the roster changed.
    RosterChanged,
    /// The connection ended.
    Closed(Closed),
    /// The broker has taken nothing for as long as silence is allowed to last.
    Stalled,
    /// The deadline has come.
    Due,
    /// We are asked to stop or to dial again.
    Command(LinkCommand),
}

/// A connection.
pub(super) struct Connection {
    socket: WebSocket,
    runtime: Runtime,
    /// The sends under way.
    pub(super) pending_sends: PendingSends,
    observer: Arc<dyn LinkObserver>,
    inbound: Sender<InboundPush>,
    /// A push that the receive flow has no room for yet: until it has, nothing is read.
    held: Option<BoxFuture<()>>,
    client_acks: (Sender<ClientAck>, Pin<Box<Receiver<ClientAck>>>),
    secrets: Arc<[SecretKey]>,
    key: PublicKey,
    dead_after: Duration,
    /// Our own frames, to be written first.
    queue: VecDeque<String>,
    ping: bool,
    may_ack: bool,
    may_send: bool,
    alarm: Option<(Duration, BoxFuture<()>)>,
    stalled_since: Option<Duration>,
    last_heard: Duration,
    delivered: bool,
    /// Frames since everybody else had a turn.
    batch: usize,
    dropped: u64,
    /// By every connection of this link.
    dropped_total: Arc<AtomicU64>,
}

impl Connection {
    pub(super) fn new(
        socket: WebSocket,
        config: &LinkConfig,
        secrets: Arc<[SecretKey]>,
        runtime: Runtime,
        observer: Arc<dyn LinkObserver>,
        inbound: Sender<InboundPush>,
        dropped_total: Arc<AtomicU64>,
    ) -> Self {
        let (acks, acks_in) = channel::bounded(CLIENT_ACKS_MAX);
        Self {
            socket,
            pending_sends: PendingSends::new(config.inflight_max, config.ack_max),
            observer,
            inbound,
            held: None,
            client_acks: (acks, Box::pin(acks_in)),
            secrets,
            key: config.secret.public(),
            dead_after: config.timers.dead_after,
            queue: VecDeque::new(),
            ping: false,
            may_ack: false,
            may_send: false,
            alarm: None,
            stalled_since: None,
            last_heard: runtime.monotonic(),
            delivered: false,
            batch: 0,
            dropped: 0,
            dropped_total,
            runtime,
        }
    }

    /// Writes a frame of our own before anything else.
    pub(super) fn enqueue(&mut self, frame: &ClientFrame) {
        self.queue.push_back(to_text(frame));
    }

    /// Asks whether anybody is there.
    pub(super) fn ping(&mut self) {
        self.ping = true;
    }

    /// The broker knows us: acknowledgements may be written. Sooner it would answer `no_hello`.
    pub(super) fn allow_acks(&mut self) {
        self.may_ack = true;
    }

    /// The link is open: sends may be written.
    pub(super) fn allow_sends(&mut self) {
        self.may_send = true;
    }

    /// When anything at all last arrived.
    pub(super) fn last_heard(&self) -> Duration {
        self.last_heard
    }

    /// Whether a message got through: one of ours was taken, or one for us is stored. A push alone
    /// is neither: it may be no message, or come again and again.
    pub(super) fn delivered(&self) -> bool {
        self.delivered
    }

    /// Works until something happens that the link's state must deal with, or `deadline` comes.
    pub(super) async fn next(
        &mut self,
        commands: &mut LinkCommands,
        deadline: Duration,
    ) -> ConnectionEvent {
        poll_fn(|cx| self.poll_event(cx, commands, deadline)).await
    }

    /// Ends it with a close frame of ours. Sends that were written count as lost.
    pub(super) async fn send_close(&mut self, code: u16, reason: &str) {
        self.pending_sends.close(reason);
        self.flush_client_acks();
        self.socket.send_close(&self.runtime, code, reason).await;
    }

    /// Ends it after the broker did, or after it fell silent.
    pub(super) async fn finish_close(&mut self, closed: &Closed) {
        let why =
            if closed.reason.is_empty() { "the connection went away" } else { &closed.reason };
        self.pending_sends.close(why);
        if closed.code.is_some() {
            self.socket.finish_close().await;
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        commands: &mut LinkCommands,
        deadline: Duration,
    ) -> Poll<ConnectionEvent> {
        loop {
            if let Poll::Ready(command) = commands.poll(cx) {
                return Poll::Ready(ConnectionEvent::Command(command));
            }
            let more = match self.poll_read(cx) {
                ReadProgress::Event(event) => return Poll::Ready(event),
                ReadProgress::More => true,
                ReadProgress::Nothing => false,
            };
            self.batch = 0;
            let now = self.runtime.monotonic();
            if let Err(closed) = self.poll_write(cx, now) {
                return Poll::Ready(ConnectionEvent::Closed(closed));
            }
            self.pending_sends.expire(now);
            let stalled_at = self.stalled_since.map(|since| since.saturating_add(self.dead_after));
            if stalled_at.is_some_and(|at| now >= at) {
                return Poll::Ready(ConnectionEvent::Stalled);
            }
            if now >= deadline {
                return Poll::Ready(ConnectionEvent::Due);
            }
            if more {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let due = [self.pending_sends.deadline(), stalled_at]
                .into_iter()
                .flatten()
                .fold(deadline, Ord::min);
            if self.poll_alarm(cx, due).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// One timer for the earliest deadline. It is only moved forward: one that rings too early
    /// costs a look around, and moving it for every message would cost more.
    fn poll_alarm(&mut self, cx: &mut Context<'_>, due: Duration) -> Poll<()> {
        let (_, alarm) = match &mut self.alarm {
            Some(alarm) if alarm.0 <= due => alarm,
            other => {
                let runtime = self.runtime.clone();
                other.insert((due, Box::pin(async move { runtime.sleep_until(due).await })))
            }
        };
        let rung = alarm.as_mut().poll(cx);
        if rung.is_ready() {
            self.alarm = None;
        }
        rung
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> ReadProgress {
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

    /// Counts what cannot be used; said once per link, because a broker that is rubbish is so on
    /// every connection.
    pub(super) fn drop_frame(&mut self, what: &str) {
        if self.dropped_total.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(what, "dropped from the broker; more of the kind is only counted");
        }
        self.dropped += 1;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, now: Duration) -> Result<(), Closed> {
        while let Poll::Ready(room) = self.socket.poll_room(cx) {
            room?;
            if let Some(text) = self.queue.pop_front() {
                self.socket.feed(text)?;
            } else if self.ping {
                self.ping = false;
                self.socket.feed_ping()?;
            } else if let Poll::Ready(text) = self.poll_frame(cx, now) {
                self.socket.feed(text)?;
            } else {
                break;
            }
        }
        match self.socket.poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.stalled_since = None;
                flushed
            }
            Poll::Pending => {
                self.stalled_since.get_or_insert(now);
                Ok(())
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<String> {
        if self.may_ack
            && let Poll::Ready(Some(ack)) = self.client_acks.1.as_mut().poll_next(cx)
        {
            self.delivered = true;
            return Poll::Ready(to_text(&ClientFrame::ClientAck(ack)));
        }
        if !self.may_send {
            return Poll::Pending;
        }
        match self.pending_sends.poll_frame(cx, now) {
            Poll::Pending => self.pending_sends.receipt_queries.poll_frame(cx),
            frame => frame,
        }
    }

    /// What was committed is acknowledged before we go, as far as it costs no waiting.
    fn flush_client_acks(&mut self) {
        while self.may_ack
            && let Ok(ack) = self.client_acks.1.try_recv()
        {
            if self.socket.feed(to_text(&ClientFrame::ClientAck(ack))).is_err() {
                return;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.dropped > 1 {
            tracing::debug!(dropped = self.dropped, "unusable frames on this connection");
        }
    }
}

enum ReadProgress {
    Event(ConnectionEvent),
    More,
    Nothing,
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
