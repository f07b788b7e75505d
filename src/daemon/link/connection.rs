//! One connection in use: it reads, answers, writes and watches the time, in one task.
//!
//! It handles what means the same in every state (pushes, acks, pings) and hands the rest to the
//! state that the link is in. It never decides what becomes of the link.

mod read;
mod write;

use super::commands::{LinkCommand, LinkCommands};
use super::pending_sends::PendingSends;
use super::socket::WebSocket;
use super::{CLIENT_ACKS_MAX, LinkConfig};
use crate::port::{InboundPush, LinkObserver};
use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::runtime::{BoxFuture, Runtime};
use claudemesh_base::wire::{BrokerFrame, ClientAck, ClientFrame, to_text};
use claudemesh_fsm::link::Closed;
use read::ReadProgress;
use smol::channel::{self, Receiver, Sender};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

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

    /// Counts what cannot be used; said once per link, because a broker that is rubbish is so on
    /// every connection.
    pub(super) fn drop_frame(&mut self, what: &str) {
        if self.dropped_total.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(what, "dropped from the broker; more of the kind is only counted");
        }
        self.dropped += 1;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.dropped > 1 {
            tracing::debug!(dropped = self.dropped, "unusable frames on this connection");
        }
    }
}
