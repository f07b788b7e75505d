//! The states of a link, one after the other, with what each does on the wire.
//!
//! Decides nothing that [`claudemesh_fsm::link`] can decide: what happened goes in, where the link
//! goes comes out. A socket is said goodbye to before its state is left.

use super::acks::Terms;
use super::connection::{Connection, Event};
use super::roster::RosterAsk;
use super::signals::{Signal, Signals};
use super::socket::Socket;
use super::tls::Tls;
use super::view::{self, Trouble};
use super::{LinkConfig, OFFLINE_ROSTER, WORDS_CHARS_MAX};
use crate::clock::Clock;
use crate::courier::{Inbound, LinkObserver, LinkView};
use crate::message::{SecretKey, signed};
use crate::wire::{BrokerFrame, ClientFrame, FRAME_BYTES_MAX, Hello, features};
use claudemesh_fsm::link::{
    Closed, Dialing, Greeting, HelloError, Idle, LinkState, Negotiating, Next, Offline, Open,
    Refused, Waiting,
};
use claudemesh_fsm::negotiate;
use smol::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const PROTOCOL_VERSION: u32 = 1;
const CHANNEL: &str = "claudemesh-daemon";
const PEER_TYPE: &str = "ai";
/// The close code of a normal end.
const NORMAL: u16 = 1000;
const MS_PER_HOUR: u64 = 60 * 60 * 1000;

/// One link, and what it keeps from one connection to the next.
pub(super) struct Driver {
    config: LinkConfig,
    clock: Clock,
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
    /// How old a message may get on this mesh, as last negotiated.
    max_age_ms: u64,
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
        clock: Clock,
        observer: Arc<dyn LinkObserver>,
        inbound: Sender<Inbound>,
        signals: Signals,
    ) -> Self {
        let secrets = Arc::from([config.secret.clone()]);
        let tls = Tls::new(config.tls_roots.clone());
        let (trouble, close_code, feature) = (Trouble::default(), None, None);
        Self {
            config,
            clock,
            observer,
            inbound,
            secrets,
            signals,
            tls,
            trouble,
            dropped: Arc::default(),
            close_code,
            feature,
            max_age_ms: 0,
        }
    }

    /// Until it is time to stop.
    pub(super) async fn run(&mut self) {
        let mut dialing = Offline::new(self.config.timers).dial();
        loop {
            dialing = match self.connection(dialing).await {
                Over::Next(Next::Wait(waiting)) => match self.wait(waiting).await {
                    Some(dialing) => dialing,
                    None => return,
                },
                Over::Next(Next::Refused(refused)) => {
                    self.stay_refused(&refused).await;
                    return;
                }
                Over::Asked(Signal::Redial) => Offline::new(self.config.timers).dial(),
                Over::Asked(Signal::Stop) => return,
            };
        }
    }

    /// From the first packet to the last.
    async fn connection(&mut self, dialing: Dialing) -> Over {
        match self.connect(dialing).await {
            Ok(open) => self.stay_open(open).await,
            Err(over) => over,
        }
    }

    async fn connect(&mut self, dialing: Dialing) -> Result<Open<Connection>, Over> {
        let greeting = self.dial(dialing).await?;
        let negotiating = self.greet(greeting).await?;
        self.negotiate(negotiating).await
    }

    async fn dial(&mut self, dialing: Dialing) -> Result<Greeting<Connection>, Over> {
        (self.close_code, self.feature) = (None, None);
        self.signals.forget_redials();
        self.observer.down(LinkView::plain(LinkState::Dialing));
        let (url, limit) = (&self.config.broker_url, self.config.connect_max);
        let dial = Socket::dial(url, &mut self.tls, &self.clock, limit);
        let socket = match self.signals.unless_stopped(dial).await {
            None => return Err(Over::Asked(Signal::Stop)),
            Some(Err(why)) => {
                return Err(dialing.failed(&why.to_string(), self.clock.jitter()).into());
            }
            Some(Ok(socket)) => socket,
        };
        self.signals.forget_redials();
        let (clock, observer) = (self.clock.clone(), self.observer.clone());
        let (secrets, inbound) = (self.secrets.clone(), self.inbound.clone());
        let dropped = self.dropped.clone();
        let mut connection =
            Connection::new(socket, &self.config, secrets, clock, observer, inbound, dropped);
        connection.say(&ClientFrame::Hello(Box::new(self.hello())));
        self.observer.down(LinkView::plain(LinkState::Greeting));
        Ok(dialing.connected(connection, self.clock.monotonic()))
    }

    fn hello(&self) -> Hello {
        let LinkConfig { mesh_id, member_id, secret, .. } = &self.config;
        let (key, at) = (secret.public(), self.clock.now());
        Hello {
            protocol_version: Some(PROTOCOL_VERSION),
            mesh_id: mesh_id.clone(),
            member_id: member_id.clone(),
            pubkey: key.to_hex(),
            session_pubkey: None,
            display_name: self.config.display_name.clone(),
            session_id: self.config.session_id.clone(),
            pid: self.config.pid,
            cwd: self.config.cwd.clone(),
            hostname: self.config.hostname.clone(),
            channel: Some(CHANNEL.to_owned()),
            peer_type: Some(PEER_TYPE.to_owned()),
            groups: Vec::new(),
            timestamp: at.0,
            signature: secret.sign(&signed::hello(mesh_id, member_id, &key, at)),
        }
    }

    async fn greet(
        &mut self,
        mut greeting: Greeting<Connection>,
    ) -> Result<Negotiating<Connection>, Over> {
        loop {
            let deadline = greeting.deadline();
            let event = greeting.socket_mut().next(&mut self.signals, deadline).await;
            match event {
                Event::Frame(BrokerFrame::HelloAck(_)) => break,
                Event::Frame(BrokerFrame::Error(error)) => {
                    greeting.socket_mut().goodbye(NORMAL, "hello rejected").await;
                    let code = error.code.chars().take(WORDS_CHARS_MAX).collect();
                    let (error, jitter) = (HelloError { code }, self.clock.jitter());
                    return Err(greeting.rejected(&error, jitter).into());
                }
                Event::Closed(closed) => {
                    self.farewell(greeting.socket_mut(), &closed).await;
                    return Err(greeting.closed(&closed, self.clock.jitter()).into());
                }
                Event::Due | Event::Stalled => {
                    greeting.socket_mut().goodbye(NORMAL, "hello not answered").await;
                    return Err(greeting.timed_out(self.clock.jitter()).into());
                }
                Event::Signal(signal) => {
                    return Err(asked(greeting.socket_mut(), signal).await);
                }
                Event::Revoked(_) | Event::RosterChanged => {}
                Event::Frame(_) => greeting.socket_mut().drop_frame("a frame before hello_ack"),
            }
        }
        let optional = self.config.policy.optional.iter().cloned();
        let request = features::Request {
            require: self.config.policy.require.clone(),
            optional: optional.chain([OFFLINE_ROSTER.to_owned()]).collect(),
        };
        let connection = greeting.socket_mut();
        connection.allow_acks();
        connection.say(&ClientFrame::FeatureNegotiationRequest(request));
        self.observer.down(LinkView::plain(LinkState::Negotiating));
        Ok(greeting.greeted(self.clock.monotonic()))
    }

    async fn negotiate(
        &mut self,
        mut negotiating: Negotiating<Connection>,
    ) -> Result<Open<Connection>, Over> {
        let verdict = loop {
            let deadline = negotiating.deadline();
            let event = negotiating.socket_mut().next(&mut self.signals, deadline).await;
            match event {
                Event::Frame(BrokerFrame::FeatureNegotiationResponse(response)) => {
                    tracing::debug!(mesh = %self.config.mesh_id, ?response, "broker's offer");
                    break negotiate::judge(&self.config.policy, &view::offer(response));
                }
                Event::Due => break negotiate::silent(&self.config.policy),
                // It reads nothing, so it cannot answer either.
                Event::Stalled => break negotiate::silent(&self.config.policy),
                Event::Closed(closed) => {
                    self.farewell(negotiating.socket_mut(), &closed).await;
                    return Err(negotiating.closed(&closed, self.clock.jitter()).into());
                }
                Event::Signal(signal) => {
                    return Err(asked(negotiating.socket_mut(), signal).await);
                }
                Event::Revoked(_) | Event::RosterChanged => {}
                Event::Frame(_) => {
                    negotiating.socket_mut().drop_frame("a frame before the negotiation's answer");
                }
            }
        };
        let negotiated = match verdict {
            Ok(negotiated) => negotiated,
            Err(refusal) => {
                let reason = refusal.close_reason_json();
                negotiating.socket_mut().goodbye(negotiate::CLOSE_CODE, &reason).await;
                self.feature = Some(refusal.feature.clone());
                return Err(negotiating.refused(&refusal).into());
            }
        };
        match negotiated.max_age_hours(self.config.max_age_override_hours) {
            Ok(hours) => {
                self.max_age_ms = hours.saturating_mul(MS_PER_HOUR);
                Ok(negotiating.agreed(negotiated, self.clock.monotonic()))
            }
            Err(refused) => {
                let reason = negotiate::MAX_AGE_REASON;
                negotiating.socket_mut().goodbye(NORMAL, reason).await;
                Err(negotiating.max_age_refused(refused).into())
            }
        }
    }

    /// Hands the courier out, and works until the link closes.
    async fn stay_open(&mut self, mut open: Open<Connection>) -> Over {
        self.hand_out(&mut open);
        let opened_at = open.opened_at();
        let mut roster = RosterAsk::new(self.config.ack_max);
        roster.changed();
        let mut last_ping = opened_at;
        loop {
            let (connection, now) = (open.socket_mut(), self.clock.monotonic());
            if let Some(request) = roster.request(now, || self.clock.mint_id()) {
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
                Event::Frame(BrokerFrame::Error(error)) => {
                    tracing::debug!(code = error.code, message = error.message, "broker's error");
                    connection.drop_frame("an error that answers no send");
                }
                Event::Frame(_) => connection.drop_frame("a frame nobody asked for"),
                Event::Closed(closed) => {
                    self.farewell(connection, &closed).await;
                    note_delivery(&mut open);
                    let now = self.clock.monotonic();
                    return open.closed(&closed, now, self.clock.jitter()).into();
                }
                Event::Stalled => return self.dead(open).await,
                Event::Revoked(event) => {
                    tracing::warn!(mesh = %self.config.mesh_id, event, "our membership was revoked");
                    self.observer.down(LinkView::plain(LinkState::Offline));
                    connection.goodbye(NORMAL, "revoked").await;
                    return open.revoked(&event).into();
                }
                Event::Signal(signal) => {
                    // Not open from here on, however long the goodbye takes.
                    self.observer.down(LinkView::plain(LinkState::Offline));
                    return asked(connection, signal).await;
                }
            }
        }
    }

    fn hand_out(&mut self, open: &mut Open<Connection>) {
        let view = view::open(open.negotiated());
        let frame_bytes_max = view.frame_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        let has_receipts = open.negotiated().has(negotiate::RECEIPTS);
        let now = self.clock.monotonic();
        self.trouble.over(&self.config.mesh_id, open.negotiated(), now);
        let connection = open.socket_mut();
        connection.allow_sends();
        let terms = Terms {
            secret: self.config.secret.clone(),
            max_age_ms: self.max_age_ms,
            frame_bytes_max: frame_bytes_max.unwrap_or(FRAME_BYTES_MAX),
            has_receipts,
        };
        let courier = connection.desk.courier(terms, self.clock.clone());
        self.observer.open(view, Arc::new(courier));
    }

    async fn dead(&mut self, mut open: Open<Connection>) -> Over {
        let closed = Closed { code: None, reason: "nothing heard for too long".to_owned() };
        self.farewell(open.socket_mut(), &closed).await;
        note_delivery(&mut open);
        open.dead(self.clock.monotonic(), self.clock.jitter()).into()
    }

    async fn farewell(&mut self, connection: &mut Connection, closed: &Closed) {
        self.close_code = closed.code;
        connection.farewell(closed).await;
    }

    /// Waits for its turn, or until somebody asks; `None` when it is time to stop.
    async fn wait(&mut self, waiting: Waiting) -> Option<Dialing> {
        let (now, stable_after) = (self.clock.monotonic(), self.config.timers.stable_after);
        self.trouble.down(&self.config.mesh_id, &waiting, now, stable_after);
        self.observer.down(view::waiting(&waiting, self.close_code));
        let delay = Duration::from_millis(waiting.delay_ms());
        match self.clock.timeout(delay, self.signals.wait()).await {
            Some(Signal::Stop) => None,
            Some(Signal::Redial) | None => Some(waiting.redial()),
        }
    }

    async fn stay_refused(&mut self, refused: &Refused) {
        let (reason, remedy) = (refused.reason(), refused.remedy());
        tracing::warn!(mesh = %self.config.mesh_id, reason, remedy, "link refused");
        self.observer.down(view::refused(refused, self.feature.take()));
        self.signals.stopped().await;
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
