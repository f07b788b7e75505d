//! Letting a authenticated peer in, and telling the others (`specs/wire.md`, §15.6).

use super::hello::{self, Authenticated, HelloRejection};
use super::{ClientConnection, FrameOutcome};
use crate::hub::{Admission, ConnectionId, Identity, Outgoing};
use crate::ledger::{ACTOR_BROKER, AuditEntry, GroupError, LedgerError, Member};
use claudemesh_base::wire::hello::Group;
use claudemesh_base::wire::{BrokerFrame, HelloAck, SessionHello};
use claudemesh_fsm::negotiate::ConnectionPolicy;
use serde_json::json;
use std::sync::atomic::Ordering;

impl ClientConnection {
    /// Lets a authenticated peer in: hello_ack first, then the news to the others.
    pub(super) async fn admit(&self, authenticated: Authenticated) -> Result<(), HelloRejection> {
        let Authenticated { identity, member, groups } = authenticated;
        let broker = &self.context;
        let mesh = broker.ledger.mesh(&identity.mesh_id).await?;
        let policy = mesh.and_then(|mesh| ConnectionPolicy::parse(&mesh.connection_policy));
        // The legacy network knows no such policy: whoever comes, stays.
        let policy = match &broker.legacy {
            Some(_) => ConnectionPolicy::Allow,
            None => policy.unwrap_or_default(),
        };
        let admitted = broker.hub.admit(identity.clone(), self.outbound.clone(), policy);
        let admitted_connection = match admitted {
            Admission::Admitted(admitted_connection) => admitted_connection,
            Admission::Full => return Err(HelloRejection::because("capacity")),
            Admission::AlreadyConnected => {
                self.audit_install(&member, "install_refused", &identity.session_id).await;
                let reason = "member_already_connected";
                return Err(HelloRejection {
                    close: (4004, reason),
                    ..HelloRejection::because(reason)
                });
            }
        };
        // Whatever ends this connection from here on, `depart` finds it in the hub.
        self.session.store(admitted_connection.id, Ordering::Relaxed);
        // Whoever ends a membership writes first and closes connections then; we are connected
        // first and read then. Whichever comes first, one of the two sees the other.
        hello::membership(broker, &identity.mesh_id, &identity.member_pubkey).await?;
        if admitted_connection.other_installs > 0 {
            let act = match policy {
                ConnectionPolicy::PreferNewest => "install_replaced",
                ConnectionPolicy::PreferOldest | ConnectionPolicy::Allow => {
                    "install_admitted_beside"
                }
            };
            self.audit_install(&member, act, &identity.session_id).await;
        }
        self.join_groups(&member, groups, !identity.is_session).await?;
        let groups = broker.ledger.groups(member.seq).await?;
        let profile = json!({"roleTag": null, "groups": groups, "messageMode": "push"});
        let ack = HelloAck {
            presence_id: admitted_connection.id.to_string(),
            member_display_name: member.display_name.clone(),
            broker_time: self.broker_time(),
            negotiates: self.context.legacy.is_none(),
            rest: [("memberProfile".to_owned(), profile)].into_iter().collect(),
        };
        self.drain_as_legacy(admitted_connection.id).await;
        self.tell(&BrokerFrame::HelloAck(Box::new(ack)));
        let _ = self.authenticated.try_send(admitted_connection.id);
        broker.hub.set_announced(admitted_connection.id);
        if !admitted_connection.was_present && member.visible {
            let data =
                json!({"name": identity.name, "pubkey": identity.routing_key, "groups": groups});
            let audience = |other: &Identity| {
                let is_itself = other.routing_key == identity.routing_key;
                !is_itself && (identity.is_session || other.member != identity.member)
            };
            let mesh = &identity.mesh_id;
            broker.hub.announce(self.runtime(), mesh, "peer_joined", data, audience);
        }
        // For the roster only: a broker whose disk is full still lets members collect their messages.
        if let Err(error) = broker.ledger.touch_member(member.seq, self.runtime().now()).await {
            broker.ledger.failed(&error);
        }
        Ok(())
    }

    /// Puts a member into the groups its hello names; `replace` takes it out of all others. What is
    /// so already is not written again: a full disk must not keep a member from its messages.
    async fn join_groups(
        &self,
        member: &Member,
        mut groups: Vec<Group>,
        replace: bool,
    ) -> Result<(), LedgerError> {
        if groups.is_empty() {
            return Ok(());
        }
        let ledger = &self.context.ledger;
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

    /// Our clock, which the legacy network does not tell.
    fn broker_time(&self) -> Option<i64> {
        self.context.legacy.is_none().then(|| self.runtime().now().0)
    }

    /// A greeting makes the legacy network drain, even before it is answered.
    async fn drain_as_legacy(&self, id: ConnectionId) {
        if let Some(legacy) = &self.context.legacy
            && let Err(error) = legacy.drain(id).await
        {
            self.context.ledger.failed(&error);
        }
    }

    /// Writes down what became of two installs of one member key (§15.6). The verdict holds even
    /// if it cannot be written down.
    async fn audit_install(&self, member: &Member, act: &'static str, newcomer: &str) {
        tracing::warn!(member = %member.id, mesh = %member.mesh_id, act, newcomer, "audit: two installs of a member key");
        let (at, actor) = (self.runtime().now(), ACTOR_BROKER);
        let (mesh_id, subject) = (member.mesh_id.clone(), member.id.clone());
        let detail = Some(newcomer.to_owned());
        let entry = AuditEntry { at, mesh_id, actor, act, subject, detail };
        if let Err(error) = self.context.ledger.record(entry).await {
            self.context.ledger.failed(&error);
        }
    }

    /// A repeated `session_hello` of the same session: an acknowledgement and the queue again, which
    /// is how clients of the legacy network ask for it (`specs/wire.md`).
    pub(super) async fn repeat_session_hello(
        &self,
        id: ConnectionId,
        hello: SessionHello,
    ) -> FrameOutcome {
        let same = self
            .context
            .hub
            .identity(id)
            .filter(|known| known.is_session && known.routing_key == hello.session_pubkey);
        let verified = match &same {
            Some(_) => hello::session(&self.context, hello).await.is_ok(),
            None => false,
        };
        let Some(identity) = same.filter(|_| verified) else {
            self.outbound.send(Outgoing::Close(1000, "session_replaced"));
            return FrameOutcome::Refused;
        };
        let ack = HelloAck {
            presence_id: id.to_string(),
            member_display_name: identity.name,
            broker_time: self.broker_time(),
            negotiates: self.context.legacy.is_none(),
            rest: serde_json::Map::new(),
        };
        self.tell(&BrokerFrame::HelloAck(Box::new(ack)));
        self.drain_as_legacy(id).await;
        self.context.hub.reread_queue(id);
        FrameOutcome::Done
    }
}
