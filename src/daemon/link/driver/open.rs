//! The link while it is open: it hands out its transport and works until the connection ends.

use super::{ConnectionEnd, LinkDriver, NORMAL, asked};
use crate::link::commands::LinkCommand;
use crate::link::connection::{Connection, ConnectionEvent};
use crate::link::pending_sends::LinkTerms;
use crate::link::roster_refresh::RosterRefresh;
use crate::link::topics::Topics;
use crate::link::view;
use crate::port::LinkView;
use claudemesh_base::wire::{BrokerFrame, FRAME_BYTES_MAX};
use claudemesh_fsm::link::{Closed, KeepaliveAction, LinkState, Open};
use claudemesh_fsm::negotiate::RECEIPTS;
use std::sync::Arc;

impl LinkDriver {
    /// Hands the transport out, and works until the link closes.
    pub(super) async fn run_open(&mut self, mut open: Open<Connection>) -> ConnectionEnd {
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

    async fn dead(&mut self, mut open: Open<Connection>) -> ConnectionEnd {
        let closed = Closed { code: None, reason: "nothing heard for too long".to_owned() };
        self.finish_close(open.socket_mut(), &closed).await;
        note_delivery(&mut open);
        open.dead(self.runtime.monotonic(), self.runtime.jitter()).into()
    }
}

fn note_delivery(open: &mut Open<Connection>) {
    if open.socket().delivered() {
        open.note_delivery();
    }
}
