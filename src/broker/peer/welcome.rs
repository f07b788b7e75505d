//! Letting a greeted peer in, and telling the others (`specs/wire.md`, §15.6).

use super::hello::{self, Greeted, Rejection};
use super::{Handled, Peer};
use crate::ledger::{BY_BROKER, Entry, GroupError, Member};
use crate::route::{Admission, ConnectionId, Outgoing};
use crate::send::system_event;
use claudemesh_base::db;
use claudemesh_base::wire::hello::Group;
use claudemesh_base::wire::{BrokerFrame, HelloAck, SessionHello};
use claudemesh_fsm::negotiate::ConnectionPolicy;
use serde_json::json;
use std::sync::atomic::Ordering;

impl Peer {
    /// Lets a greeted peer in: hello_ack first, then the news to the others.
    pub(super) async fn welcome(&self, greeted: Greeted) -> Result<(), Rejection> {
        let Greeted { identity, member, groups } = greeted;
        let broker = &self.broker;
        let mesh = broker.ledger.mesh(&identity.mesh_id).await?;
        let policy = mesh.and_then(|mesh| ConnectionPolicy::parse(&mesh.connection_policy));
        // Today's network knows no such policy: whoever comes, stays.
        let policy = match broker.faithful {
            Some(_) => ConnectionPolicy::Allow,
            None => policy.unwrap_or_default(),
        };
        let admitted = broker.hub.admit(identity.clone(), self.lines.clone(), policy);
        let arrival = match admitted {
            Admission::Admitted(arrival) => arrival,
            Admission::Full => return Err(Rejection::because("capacity")),
            Admission::AlreadyConnected => {
                self.verdict(&member, "install_refused", &identity.session_id).await;
                let reason = "member_already_connected";
                return Err(Rejection { close: (4004, reason), ..Rejection::because(reason) });
            }
        };
        // Whatever ends this connection from here on, `depart` finds it in the hub.
        self.session.store(arrival.id, Ordering::Relaxed);
        // Whoever ends a membership writes first and closes connections then; we are connected
        // first and read then. Whichever comes first, one of the two sees the other.
        hello::membership(broker, &identity.mesh_id, &identity.member_pubkey).await?;
        if arrival.other_installs > 0 {
            let act = match policy {
                ConnectionPolicy::PreferNewest => "install_replaced",
                ConnectionPolicy::PreferOldest | ConnectionPolicy::Allow => {
                    "install_admitted_beside"
                }
            };
            self.verdict(&member, act, &identity.session_id).await;
        }
        self.join_groups(&member, groups, !identity.is_session).await?;
        let groups = broker.ledger.groups(member.seq).await?;
        let profile = json!({"roleTag": null, "groups": groups, "messageMode": "push"});
        let ack = HelloAck {
            presence_id: arrival.id.to_string(),
            member_display_name: member.display_name.clone(),
            broker_time: self.broker_time(),
            negotiates: self.broker.faithful.is_none(),
            rest: [("memberProfile".to_owned(), profile)].into_iter().collect(),
        };
        self.drain_as_today(arrival.id).await;
        self.tell(&BrokerFrame::HelloAck(Box::new(ack)));
        let _ = self.greeted.try_send(arrival.id);
        broker.hub.set_known(arrival.id);
        if !arrival.was_present && member.visible {
            let data =
                json!({"name": identity.name, "pubkey": identity.routing_key, "groups": groups});
            let event = system_event(
                self.runtime().mint_id(),
                &identity.mesh_id,
                "peer_joined",
                data,
                self.runtime().now(),
            );
            broker.hub.broadcast(&identity.mesh_id, &event, |other| {
                let is_itself = other.routing_key == identity.routing_key;
                !is_itself && (identity.is_session || other.member != identity.member)
            });
        }
        // For the roster only: a broker whose disk is full still lets members collect their mail.
        if let Err(error) = broker.ledger.touch_member(member.seq, self.runtime().now()).await {
            broker.ledger_failed(&error);
        }
        Ok(())
    }

    /// Puts a member into the groups its hello names; `replace` takes it out of all others. What is
    /// so already is not written again: a full disk must not keep a member from its mail.
    async fn join_groups(
        &self,
        member: &Member,
        mut groups: Vec<Group>,
        replace: bool,
    ) -> Result<(), db::Error> {
        if groups.is_empty() {
            return Ok(());
        }
        let ledger = &self.broker.ledger;
        let joined = ledger.groups(member.seq).await?;
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        let is_so = match replace {
            true => groups == joined,
            false => groups.iter().all(|group| joined.contains(group)),
        };
        if is_so {
            return Ok(());
        }
        match ledger.join_groups(&member.mesh_id, member.seq, groups, replace).await {
            Err(GroupError::Failed(error)) => Err(error),
            // Too many groups; or who is no member any more, and is about to be closed.
            Err(error) => {
                tracing::debug!(member = %member.id, ?error, "the groups of a hello");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Our clock, which today's network does not tell.
    fn broker_time(&self) -> Option<i64> {
        self.broker.faithful.is_none().then(|| self.runtime().now().0)
    }

    /// A greeting makes today's network drain, even before it is answered.
    async fn drain_as_today(&self, id: ConnectionId) {
        if let Some(faithful) = &self.broker.faithful
            && let Err(error) = faithful.drain(&self.broker, id).await
        {
            self.broker.ledger_failed(&error);
        }
    }

    /// Writes down what became of two installs of one member key (§15.6). The verdict holds even
    /// if it cannot be written down.
    async fn verdict(&self, member: &Member, act: &'static str, newcomer: &str) {
        tracing::warn!(member = %member.id, mesh = %member.mesh_id, act, newcomer, "audit: two installs of a member key");
        let (at, actor) = (self.runtime().now(), BY_BROKER);
        let (mesh_id, subject) = (member.mesh_id.clone(), member.id.clone());
        let detail = Some(newcomer.to_owned());
        let entry = Entry { at, mesh_id, actor, act, subject, detail };
        if let Err(error) = self.broker.ledger.record(entry).await {
            self.broker.ledger_failed(&error);
        }
    }

    /// A repeated `session_hello` of the same session: an acknowledgement and the queue again, which
    /// is how today's clients poke it (`specs/wire.md`).
    pub(super) async fn greet_again(&self, id: ConnectionId, hello: SessionHello) -> Handled {
        let same = self
            .broker
            .hub
            .identity(id)
            .filter(|known| known.is_session && known.routing_key == hello.session_pubkey);
        let verified = match &same {
            Some(_) => hello::session(&self.broker, hello).await.is_ok(),
            None => false,
        };
        let Some(identity) = same.filter(|_| verified) else {
            self.lines.send(Outgoing::Close(1000, "session_replaced"));
            return Handled::Refused;
        };
        let ack = HelloAck {
            presence_id: id.to_string(),
            member_display_name: identity.name,
            broker_time: self.broker_time(),
            negotiates: self.broker.faithful.is_none(),
            rest: serde_json::Map::new(),
        };
        self.tell(&BrokerFrame::HelloAck(Box::new(ack)));
        self.drain_as_today(id).await;
        self.broker.hub.poke(id);
        Handled::Done
    }
}
