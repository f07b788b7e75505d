//! The states of a link, one after the other, with what each does on the wire.
//!
//! Decides nothing that [`claudemesh_fsm::link`] can decide: what happened goes in, where the link
//! goes comes out. A socket is said goodbye to before its state is left.

mod arrive;

use super::LinkConfig;
use super::acks::Terms;
use super::connection::{Connection, Event};
use super::roster::RosterAsk;
use super::signals::{Signal, Signals};
use super::slept::Slept;
use super::tls::Tls;
use super::topics::Topics;
use super::view::{self, Trouble};
use crate::port::{Inbound, LinkObserver, LinkView};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{BrokerFrame, FRAME_BYTES_MAX};
use claudemesh_fsm::link::{
    Cause, Closed, Dialing, Idle, LinkState, Next, Offline, Open, Refused, Waiting,
};
use claudemesh_fsm::negotiate::RECEIPTS;
use smol::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The close code of a normal end.
const NORMAL: u16 = 1000;

/// One link, and what it keeps from one connection to the next.
pub(super) struct Driver {
    config: LinkConfig,
    runtime: Runtime,
    observer: Arc<dyn LinkObserver>,
    inbound: Sender<Inbound>,
    secrets: Arc<[SecretKey]>,
    signals: Signals,
    tls: Tls,
    trouble: Trouble,
    /// Unusable frames so far.
    dropped: Arc<AtomicU64>,
    /// The close code that the last connection ended with.
    close_code: Option<u16>,
    /// The feature that the last negotiation failed on.
    feature: Option<String>,
    /// What the broker offered in it, cut.
    offer: Option<String>,
    /// How a revocation was learned, where it was not by a close code (§15.6).
    revoked_via: Option<String>,
    /// How old a message may get on this mesh, as last negotiated.
    max_age_ms: u64,
    /// The most a frame may weigh, in bytes: as last negotiated, and learned from a close 1009.
    frame_bytes_agreed: Option<u64>,
    frame_bytes_learned: Option<u64>,
    slept: Slept,
}

/// Why a connection is over.
enum Over {
    /// The link goes where it must.
    Next(Next),
    /// We were asked to.
    Asked(Signal),
}

impl From<Next> for Over {
    fn from(next: Next) -> Self {
        Self::Next(next)
    }
}

impl From<Waiting> for Over {
    fn from(waiting: Waiting) -> Self {
        Self::Next(Next::Wait(waiting))
    }
}

impl From<Refused> for Over {
    fn from(refused: Refused) -> Self {
        Self::Next(Next::Refused(refused))
    }
}

impl Driver {
    pub(super) fn new(
        config: LinkConfig,
        runtime: Runtime,
        observer: Arc<dyn LinkObserver>,
        inbound: Sender<Inbound>,
        signals: Signals,
    ) -> Self {
        let secrets = Arc::from([config.secret.clone()]);
        let tls = Tls::new(config.tls_roots.clone());
        let (trouble, close_code, feature) = (Trouble::default(), None, None);
        let slept = Slept::new(&runtime);
        Self {
            config,
            runtime,
            observer,
            inbound,
            secrets,
            signals,
            tls,
            trouble,
            dropped: Arc::default(),
            close_code,
            feature,
            offer: None,
            revoked_via: None,
            max_age_ms: 0,
            frame_bytes_agreed: None,
            frame_bytes_learned: None,
            slept,
        }
    }

    /// Until it is time to stop.
    pub(super) async fn run(&mut self) {
        let mut dialing = Offline::new(self.config.timers).dial();
        loop {
            let next = match self.connection(dialing).await {
                Over::Next(Next::Wait(waiting)) => self.wait(waiting).await,
                Over::Next(Next::Refused(refused)) => self.stay_refused(refused).await,
                Over::Asked(Signal::Redial) => Some(Offline::new(self.config.timers).dial()),
                Over::Asked(Signal::Stop) => None,
            };
            let Some(next) = next else { return };
            dialing = self.with_news(next);
        }
    }

    /// What changed in the configuration holds from this dial on: a changed link starts afresh.
    fn with_news(&mut self, dialing: Dialing) -> Dialing {
        let Some(config) = self.signals.take_config() else { return dialing };
        self.secrets = Arc::from([config.secret.clone()]);
        if config.broker_url != self.config.broker_url {
            self.frame_bytes_agreed = None;
        }
        self.frame_bytes_learned = None;
        self.config = config;
        Offline::new(self.config.timers).dial()
    }

    /// From the first packet to the last.
    async fn connection(&mut self, dialing: Dialing) -> Over {
        match self.arrive(dialing).await {
            Ok(open) => self.stay_open(open).await,
            Err(over) => over,
        }
    }

    /// Hands the courier out, and works until the link closes.
    async fn stay_open(&mut self, mut open: Open<Connection>) -> Over {
        let topics = self.hand_out(&mut open);
        let opened_at = open.opened_at();
        let mut roster = RosterAsk::new(self.config.ack_max);
        roster.changed();
        let mut last_ping = opened_at;
        loop {
            let (connection, now) = (open.socket_mut(), self.runtime.monotonic());
            if self.slept.noticed(&self.runtime) {
                tracing::info!(mesh = %self.config.mesh_id, "the host slept: dialling again");
                return self.leave(connection, Signal::Redial).await;
            }
            if let Some(request) = roster.request(now, || self.runtime.mint_id()) {
                connection.say(&request);
            }
            let last_heard = connection.last_heard().max(opened_at);
            let deadline = match self.config.timers.idle(last_heard, last_ping, now) {
                Idle::SleepUntil(at) => roster.deadline().map_or(at, |due| due.min(at)),
                Idle::Ping => {
                    last_ping = now;
                    connection.ping();
                    continue;
                }
                Idle::Dead => return self.dead(open).await,
            };
            match connection.next(&mut self.signals, deadline).await {
                Event::Due => {}
                Event::RosterChanged => roster.changed(),
                Event::Frame(BrokerFrame::PeersList(list)) => {
                    roster.answered(list.request_id.as_deref());
                    self.observer.roster(list.peers);
                }
                Event::Frame(BrokerFrame::TopicListResponse(list)) if topics.is_some() => {
                    topics.iter().for_each(|topics| topics.learned(&list.topics));
                }
                Event::Frame(BrokerFrame::Error(error)) => {
                    tracing::debug!(code = error.code, message = error.message, "broker's error");
                    connection.drop_frame("an error that answers no send");
                }
                Event::Frame(_) => connection.drop_frame("a frame nobody asked for"),
                Event::Closed(closed) => {
                    self.farewell(connection, &closed).await;
                    note_delivery(&mut open);
                    let now = self.runtime.monotonic();
                    return open.closed(&closed, now, self.runtime.jitter()).into();
                }
                Event::Stalled => return self.dead(open).await,
                Event::Revoked(event) => {
                    self.revoked_via = Some(format!("push {event}"));
                    self.down(LinkView::plain(LinkState::Offline));
                    connection.goodbye(NORMAL, "revoked").await;
                    return open.revoked(&event).into();
                }
                Event::Signal(signal) => return self.leave(connection, signal).await,
            }
        }
    }

    /// Not open from here on, however long the goodbye takes.
    async fn leave(&mut self, connection: &mut Connection, signal: Signal) -> Over {
        self.down(LinkView::plain(LinkState::Offline));
        asked(connection, signal).await
    }

    /// The topics come with it where the broker wants their ids (`specs/wire.md`, send).
    fn hand_out(&mut self, open: &mut Open<Connection>) -> Option<Arc<Topics>> {
        // Whatever the clock did before this connection is no news to it.
        self.slept.forget(&self.runtime);
        self.frame_bytes_agreed = open.negotiated().max_frame_bytes;
        let frame_bytes_max = self.frame_bytes_max();
        let view = LinkView { frame_bytes_max, ..view::open(open.negotiated()) };
        let frame_bytes_max = frame_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        let has_receipts = open.negotiated().has(RECEIPTS);
        let now = self.runtime.monotonic();
        self.trouble.over(&self.config.mesh_id, open.negotiated(), now);
        let topics = open.negotiated().legacy.then(|| Arc::new(Topics::new()));
        let connection = open.socket_mut();
        connection.allow_sends();
        let terms = Terms {
            secret: self.config.secret.clone(),
            max_age_ms: self.max_age_ms,
            frame_bytes_max: frame_bytes_max.unwrap_or(FRAME_BYTES_MAX),
            has_receipts,
            topics: topics.clone(),
        };
        let courier = connection.desk.courier(terms, self.runtime.clone());
        self.observer.open(view, Arc::new(courier));
        topics
    }

    /// The link cannot send; what it last knew of the broker's limit goes on to count, so that
    /// nothing is accepted meanwhile that will not be taken.
    fn down(&self, view: LinkView) {
        self.observer.down(LinkView { frame_bytes_max: self.frame_bytes_max(), ..view });
    }

    fn frame_bytes_max(&self) -> Option<u64> {
        [self.frame_bytes_agreed, self.frame_bytes_learned].into_iter().flatten().min()
    }

    async fn dead(&mut self, mut open: Open<Connection>) -> Over {
        let closed = Closed { code: None, reason: "nothing heard for too long".to_owned() };
        self.farewell(open.socket_mut(), &closed).await;
        note_delivery(&mut open);
        open.dead(self.runtime.monotonic(), self.runtime.jitter()).into()
    }

    async fn farewell(&mut self, connection: &mut Connection, closed: &Closed) {
        self.close_code = closed.code;
        let learned = match Cause::of_close(closed) {
            Cause::FrameTooLarge => connection.desk.close_too_large(&closed.reason),
            _ => None,
        };
        if let Some(bytes_max) = learned {
            if self.frame_bytes_learned.is_none() {
                let mesh = &self.config.mesh_id;
                tracing::warn!(mesh, bytes_max, "the broker takes smaller frames than it said");
            }
            self.frame_bytes_learned = u64::try_from(bytes_max).ok();
        }
        connection.farewell(closed).await;
    }

    /// Waits for its turn, for somebody who asks, or for the host to wake from sleep; `None` when
    /// it is time to stop.
    async fn wait(&mut self, waiting: Waiting) -> Option<Dialing> {
        let (now, stable_after) = (self.runtime.monotonic(), self.config.timers.stable_after);
        self.trouble.down(&self.config.mesh_id, &waiting, now, stable_after);
        self.down(view::waiting(&waiting, self.close_code));
        let until = now.saturating_add(Duration::from_millis(waiting.delay_ms()));
        self.slept.forget(&self.runtime);
        loop {
            // A long wait looks up as often as an open link pings.
            let left = until.saturating_sub(self.runtime.monotonic());
            let look = left.min(self.config.timers.ping_every);
            match self.runtime.timeout(look, self.signals.wait()).await {
                Some(Signal::Stop) => return None,
                Some(Signal::Redial) => return Some(waiting.redial()),
                None if left <= look || self.slept.noticed(&self.runtime) => {
                    return Some(waiting.redial());
                }
                None => {}
            }
        }
    }

    /// Stays down until an operator acts; `None` when it is time to stop.
    async fn stay_refused(&mut self, refused: Refused) -> Option<Dialing> {
        let (reason, remedy) = (refused.reason(), refused.remedy());
        if refused.cause() == Cause::Revoked {
            let by_close = || refused.close_code().map(|code| format!("close {code}"));
            let via = self.revoked_via.take().or_else(by_close).unwrap_or_default();
            self.observer.revoked(&via);
        }
        let offer = self.offer.take();
        tracing::warn!(mesh = %self.config.mesh_id, reason, remedy, offer, "link refused");
        let feature = self.feature.take();
        self.down(view::refused(&refused, feature));
        match self.signals.wait().await {
            Signal::Stop => None,
            Signal::Redial => Some(refused.reset().dial()),
        }
    }
}

fn note_delivery(open: &mut Open<Connection>) {
    if open.socket().delivered() {
        open.note_delivery();
    }
}

async fn asked(connection: &mut Connection, signal: Signal) -> Over {
    let reason = match signal {
        Signal::Stop => "shutting down",
        Signal::Redial => "dialling again",
    };
    connection.goodbye(NORMAL, reason).await;
    Over::Asked(signal)
}
