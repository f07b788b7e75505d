//! The states of a link, one after the other, with what each does on the wire.
//!
//! Decides nothing that [`claudemesh_fsm::link`] can decide: what happened goes in, where the link
//! goes comes out. A socket is said goodbye to before its state is left.

mod establish;
mod open;
mod wait;

use super::LinkConfig;
use super::commands::{LinkCommand, LinkCommands};
use super::connection::Connection;
use super::suspend::SuspendDetector;
use super::tls::Tls;
use super::view::OutageLog;
use crate::port::{InboundPush, LinkObserver, LinkView};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::link::{Cause, Closed, Dialing, NextState, Offline, Refused, Waiting};
use smol::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

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

    /// The link cannot send; what it last knew of the broker's limit goes on to count, so that
    /// nothing is accepted meanwhile that will not be taken.
    fn down(&self, view: LinkView) {
        self.observer.down(LinkView { frame_bytes_max: self.frame_bytes_max(), ..view });
    }

    fn frame_bytes_max(&self) -> Option<u64> {
        [self.frame_bytes_agreed, self.frame_bytes_learned].into_iter().flatten().min()
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
}

async fn asked(connection: &mut Connection, command: LinkCommand) -> ConnectionEnd {
    let reason = match command {
        LinkCommand::Stop => "shutting down",
        LinkCommand::Redial => "dialling again",
    };
    connection.send_close(NORMAL, reason).await;
    ConnectionEnd::Asked(command)
}
