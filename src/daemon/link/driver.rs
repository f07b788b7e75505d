//! The states of a link, one after the other, with what each does on the wire.
//!
//! Decides nothing that [`claudemesh_fsm::link`] can decide: what happened goes in, where the link
//! goes comes out. A socket is said goodbye to before its state is left.

mod establish;

use super::LinkConfig;
use super::commands::{LinkCommand, LinkCommands};
use super::connection::{Connection, ConnectionEvent};
use super::pending_sends::LinkTerms;
use super::roster_refresh::RosterRefresh;
use super::suspend::SuspendDetector;
use super::tls::Tls;
use super::topics::Topics;
use super::view::{self, OutageLog};
use crate::port::{InboundPush, LinkObserver, LinkView};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{BrokerFrame, FRAME_BYTES_MAX};
use claudemesh_fsm::link::{
    Cause, Closed, Dialing, KeepaliveAction, LinkState, NextState, Offline, Open, Refused, Waiting,
};
use claudemesh_fsm::negotiate::RECEIPTS;
use smol::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The close code of a normal end.
const NORMAL: u16 = 1000;

/// One link, and what it keeps from one connection to the next.
pub(super) struct LinkDriver {
    config: LinkConfig,
    runtime: Runtime,
    observer: Arc<dyn LinkObserver>,
    inbound: Sender<InboundPush>,
    secrets: Arc<[SecretKey]>,
    commands: LinkCommands,
    tls: Tls,
    outage_log: OutageLog,
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
    suspend: SuspendDetector,
}

/// Why a connection is over.
enum ConnectionEnd {
    /// The link goes where it must.
    Next(NextState),
    /// We were asked to.
    Asked(LinkCommand),
}

impl From<NextState> for ConnectionEnd {
    fn from(next: NextState) -> Self {
        Self::Next(next)
    }
}

impl From<Waiting> for ConnectionEnd {
    fn from(waiting: Waiting) -> Self {
        Self::Next(NextState::Wait(waiting))
    }
}

impl From<Refused> for ConnectionEnd {
    fn from(refused: Refused) -> Self {
        Self::Next(NextState::Refused(refused))
    }
}

impl LinkDriver {
    pub(super) fn new(
        config: LinkConfig,
        runtime: Runtime,
        observer: Arc<dyn LinkObserver>,
        inbound: Sender<InboundPush>,
        commands: LinkCommands,
    ) -> Self {
        let secrets = Arc::from([config.secret.clone()]);
        let tls = Tls::new(config.tls_roots.clone());
        let (outage_log, close_code, feature) = (OutageLog::default(), None, None);
        let suspend = SuspendDetector::new(&runtime);
        Self {
            config,
            runtime,
            observer,
            inbound,
            secrets,
            commands,
            tls,
            outage_log,
            dropped: Arc::default(),
            close_code,
            feature,
            offer: None,
            revoked_via: None,
            max_age_ms: 0,
            frame_bytes_agreed: None,
            frame_bytes_learned: None,
            suspend,
        }
    }

    /// Until it is time to stop.
    pub(super) async fn run(&mut self) {
        let mut dialing = Offline::new(self.config.timers).dial();
        loop {
            let next = match self.connection(dialing).await {
                ConnectionEnd::Next(NextState::Wait(waiting)) => self.wait(waiting).await,
                ConnectionEnd::Next(NextState::Refused(refused)) => {
                    self.wait_refused(refused).await
                }
                ConnectionEnd::Asked(LinkCommand::Redial) => {
                    Some(Offline::new(self.config.timers).dial())
                }
                ConnectionEnd::Asked(LinkCommand::Stop) => None,
            };
            let Some(next) = next else { return };
            dialing = self.with_new_config(next);
        }
    }

    /// What changed in the configuration holds from this dial on: a changed link starts afresh.
    fn with_new_config(&mut self, dialing: Dialing) -> Dialing {
        let Some(config) = self.commands.take_config() else { return dialing };
        self.secrets = Arc::from([config.secret.clone()]);
        if config.broker_url != self.config.broker_url {
            self.frame_bytes_agreed = None;
        }
        self.frame_bytes_learned = None;
        self.config = config;
        Offline::new(self.config.timers).dial()
    }

    /// From the first packet to the last.
    async fn connection(&mut self, dialing: Dialing) -> ConnectionEnd {
        match self.establish(dialing).await {
            Ok(open) => self.run_open(open).await,
            Err(over) => over,
        }
    }

    /// Hands the courier out, and works until the link closes.
    async fn run_open(&mut self, mut open: Open<Connection>) -> ConnectionEnd {
        let topics = self.publish_transport(&mut open);
        let opened_at = open.opened_at();
        let mut roster = RosterRefresh::new(self.config.ack_max);
        roster.changed();
        let mut last_ping = opened_at;
        loop {
            let (connection, now) = (open.socket_mut(), self.runtime.monotonic());
            if self.suspend.has_suspended(&self.runtime) {
                tracing::info!(mesh = %self.config.mesh_id, "the host slept: dialling again");
                return self.leave(connection, LinkCommand::Redial).await;
            }
            if let Some(request) = roster.request(now, || self.runtime.mint_id()) {
                connection.enqueue(&request);
            }
            let last_heard = connection.last_heard().max(opened_at);
            let deadline = match self.config.timers.keepalive(last_heard, last_ping, now) {
                KeepaliveAction::SleepUntil(at) => roster.deadline().map_or(at, |due| due.min(at)),
                KeepaliveAction::Ping => {
                    last_ping = now;
                    connection.ping();
                    continue;
                }
                KeepaliveAction::Dead => return self.dead(open).await,
            };
            match connection.next(&mut self.commands, deadline).await {
                ConnectionEvent::Due => {}
                ConnectionEvent::RosterChanged => roster.changed(),
                ConnectionEvent::Frame(BrokerFrame::PeersList(list)) => {
                    roster.answered(list.request_id.as_deref());
                    self.observer.roster(list.peers);
                }
                ConnectionEvent::Frame(BrokerFrame::TopicListResponse(list))
                    if topics.is_some() =>
                {
                    topics.iter().for_each(|topics| topics.learned(&list.topics));
                }
                ConnectionEvent::Frame(BrokerFrame::Error(error)) => {
                    tracing::debug!(code = error.code, message = error.message, "broker's error");
                    connection.drop_frame("an error that answers no send");
                }
                ConnectionEvent::Frame(_) => connection.drop_frame("a frame nobody asked for"),
                ConnectionEvent::Closed(closed) => {
                    self.finish_close(connection, &closed).await;
                    note_delivery(&mut open);
                    let now = self.runtime.monotonic();
                    return open.closed(&closed, now, self.runtime.jitter()).into();
                }
                ConnectionEvent::Stalled => return self.dead(open).await,
                ConnectionEvent::Revoked(event) => {
                    self.revoked_via = Some(format!("push {event}"));
                    self.down(LinkView::plain(LinkState::Offline));
                    connection.send_close(NORMAL, "revoked").await;
                    return open.revoked(&event).into();
                }
                ConnectionEvent::Command(command) => return self.leave(connection, command).await,
            }
        }
    }

    /// Not open from here on, however long the goodbye takes.
    async fn leave(&mut self, connection: &mut Connection, command: LinkCommand) -> ConnectionEnd {
        self.down(LinkView::plain(LinkState::Offline));
        asked(connection, command).await
    }

    /// The topics come with it where the broker wants their ids (`specs/wire.md`, send).
    fn publish_transport(&mut self, open: &mut Open<Connection>) -> Option<Arc<Topics>> {
        // Whatever the clock did before this connection is no news to it.
        self.suspend.forget(&self.runtime);
        self.frame_bytes_agreed = open.negotiated().max_frame_bytes;
        let frame_bytes_max = self.frame_bytes_max();
        let view = LinkView { frame_bytes_max, ..view::open(open.negotiated()) };
        let frame_bytes_max = frame_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        let has_receipts = open.negotiated().has(RECEIPTS);
        let now = self.runtime.monotonic();
        self.outage_log.over(&self.config.mesh_id, open.negotiated(), now);
        let topics = open.negotiated().legacy.then(|| Arc::new(Topics::new()));
        let connection = open.socket_mut();
        connection.allow_sends();
        let link_terms = LinkTerms {
            secret: self.config.secret.clone(),
            max_age_ms: self.max_age_ms,
            frame_bytes_max: frame_bytes_max.unwrap_or(FRAME_BYTES_MAX),
            has_receipts,
            topics: topics.clone(),
        };
        let transport = connection.pending_sends.transport(link_terms, self.runtime.clone());
        self.observer.open(view, Arc::new(transport));
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

    async fn dead(&mut self, mut open: Open<Connection>) -> ConnectionEnd {
        let closed = Closed { code: None, reason: "nothing heard for too long".to_owned() };
        self.finish_close(open.socket_mut(), &closed).await;
        note_delivery(&mut open);
        open.dead(self.runtime.monotonic(), self.runtime.jitter()).into()
    }

    async fn finish_close(&mut self, connection: &mut Connection, closed: &Closed) {
        self.close_code = closed.code;
        let learned = match Cause::of_close(closed) {
            Cause::FrameTooLarge => connection.pending_sends.close_too_large(&closed.reason),
            _ => None,
        };
        if let Some(bytes_max) = learned {
            if self.frame_bytes_learned.is_none() {
                let mesh = &self.config.mesh_id;
                tracing::warn!(mesh, bytes_max, "the broker takes smaller frames than it said");
            }
            self.frame_bytes_learned = u64::try_from(bytes_max).ok();
        }
        connection.finish_close(closed).await;
    }

    /// Waits for its turn, for somebody who asks, or for the host to wake from sleep; `None` when
    /// it is time to stop.
    async fn wait(&mut self, waiting: Waiting) -> Option<Dialing> {
        let (now, stable_after) = (self.runtime.monotonic(), self.config.timers.stable_after);
        self.outage_log.down(&self.config.mesh_id, &waiting, now, stable_after);
        self.down(view::waiting(&waiting, self.close_code));
        let until = now.saturating_add(Duration::from_millis(waiting.delay_ms()));
        self.suspend.forget(&self.runtime);
        loop {
            // A long wait looks up as often as an open link pings.
            let left = until.saturating_sub(self.runtime.monotonic());
            let look = left.min(self.config.timers.ping_every);
            match self.runtime.timeout(look, self.commands.wait()).await {
                Some(LinkCommand::Stop) => return None,
                Some(LinkCommand::Redial) => return Some(waiting.redial()),
                None if left <= look || self.suspend.has_suspended(&self.runtime) => {
                    return Some(waiting.redial());
                }
                None => {}
            }
        }
    }

    /// Stays down until an operator acts; `None` when it is time to stop.
    async fn wait_refused(&mut self, refused: Refused) -> Option<Dialing> {
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
        match self.commands.wait().await {
            LinkCommand::Stop => None,
            LinkCommand::Redial => Some(refused.reset().dial()),
        }
    }
}

fn note_delivery(open: &mut Open<Connection>) {
    if open.socket().delivered() {
        open.note_delivery();
    }
}

async fn asked(connection: &mut Connection, command: LinkCommand) -> ConnectionEnd {
    let reason = match command {
        LinkCommand::Stop => "shutting down",
        LinkCommand::Redial => "dialling again",
    };
    connection.send_close(NORMAL, reason).await;
    ConnectionEnd::Asked(command)
}
