//! What a client may ask besides sending: the roster, how it shows itself, groups and topics
//! (`specs/wire.md`).

use super::ClientConnection;
use super::features::{self, OFFLINE_ROSTER};
use super::hello::{sanitize, sanitize_groups};
use super::roster;
use crate::hub::{ConnectionId, Identity};
use crate::ledger::{
    GROUPS_MAX, GroupError, LedgerError, MemberState, TOPICS_MAX, TopicError, TopicKey, TopicRow,
};
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::hello::Group;
use claudemesh_base::wire::{
    AckFrame, BrokerFrame, ClientFrame, Correlated, PeersList, ReceiptsFrame, ReceiptsRequest,
    Topic, TopicCreate, TopicCreated, TopicHistory, TopicListResponse,
};
use claudemesh_fsm::negotiate::{ConnectionPolicy, RECEIPTS};
use serde_json::{Map, Value, json};

/// The longest profile, as JSON.
const PROFILE_BYTES_MAX: usize = 4 * 1024;
/// Ciphertext after which a page of history ends, in bytes; the last message may exceed it.
const HISTORY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Everything a verb may fail with.
enum RequestError {
    /// The code of its `error` frame, and a sentence.
    Refused(&'static str, String),
    Ledger(LedgerError),
}

/// Answers one request of an authenticated client.
pub(crate) async fn handle(
    peer: &ClientConnection,
    id: ConnectionId,
    frame: ClientFrame,
    text: &str,
) {
    let Some(identity) = peer.context.hub.identity(id) else { return };
    let request_id = serde_json::from_str::<Correlated>(text).ok().and_then(|c| c.request_id);
    let answer = answer(peer, id, &identity, frame, request_id.clone()).await;
    match answer {
        Ok(Some(frame)) => peer.tell(&frame),
        Ok(None) => {}
        Err(RequestError::Refused(code, message)) => peer.error(code, &message, request_id),
        Err(RequestError::Ledger(error)) => {
            peer.context.ledger.failed(&error);
            let message = "the broker's ledger does not answer; try again";
            peer.error("unavailable", message, request_id);
        }
    }
}

async fn answer(
    peer: &ClientConnection,
    id: ConnectionId,
    identity: &Identity,
    frame: ClientFrame,
    request_id: Option<String>,
) -> Result<Option<BrokerFrame>, RequestError> {
    let ledger = &peer.context.ledger;
    match frame {
        ClientFrame::FeatureNegotiationRequest(_) if peer.context.legacy.is_some() => Ok(None),
        ClientFrame::FeatureNegotiationRequest(request) => {
            if features::asks_for(&request, OFFLINE_ROSTER) {
                peer.context.hub.set_wants_offline(id);
            }
            if features::asks_for(&request, RECEIPTS) {
                peer.context.hub.set_wants_receipts(id);
            }
            let mesh = ledger.mesh(&identity.mesh_id).await.map_err(RequestError::Ledger)?;
            let policy = mesh.and_then(|mesh| ConnectionPolicy::parse(&mesh.connection_policy));
            let response = features::response(
                peer.context.intake.dedupe_retention_days,
                policy.unwrap_or_default(),
                &request,
            );
            Ok(Some(BrokerFrame::FeatureNegotiationResponse(response)))
        }
        ClientFrame::ReceiptsRequest(ReceiptsRequest { ids, .. }) => {
            let (mesh, sender) = (&identity.mesh_id, &identity.member_pubkey);
            let receipts =
                ledger.receipts(mesh, sender, ids).await.map_err(RequestError::Ledger)?;
            Ok(Some(BrokerFrame::Receipts(ReceiptsFrame { receipts, request_id })))
        }
        ClientFrame::ListPeers(_) => {
            let peers = roster::build(peer, id, identity).await.map_err(RequestError::Ledger)?;
            Ok(Some(BrokerFrame::PeersList(PeersList { peers, request_id })))
        }
        ClientFrame::SetStatus { status } => {
            let status = Some(status).filter(|s| ["idle", "working", "dnd"].contains(&s.as_str()));
            let Some(status) = status else {
                return Err(RequestError::Refused(
                    "invalid_argument",
                    "status must be idle, working or dnd".to_owned(),
                ));
            };
            set(peer, identity, MemberState { status: Some(status), ..MemberState::default() })
                .await?;
            Ok(None)
        }
        ClientFrame::SetSummary { summary } => {
            let summary = Some(sanitize(&summary));
            set(peer, identity, MemberState { summary, ..MemberState::default() }).await?;
            Ok(None)
        }
        ClientFrame::SetVisible { visible } => {
            let state = MemberState { visible: Some(visible), ..MemberState::default() };
            set(peer, identity, state).await?;
            announce_visibility(peer, identity, visible);
            Ok(Some(done(request_id)))
        }
        ClientFrame::SetProfile(profile) => {
            let profile = claudemesh_base::wire::to_text(&profile);
            if profile.len() > PROFILE_BYTES_MAX {
                return Err(RequestError::Refused(
                    "invalid_argument",
                    "profile must be at most 4 KiB".to_owned(),
                ));
            }
            let state = MemberState { profile: Some(profile), ..MemberState::default() };
            set(peer, identity, state).await?;
            Ok(Some(done(request_id)))
        }
        ClientFrame::JoinGroup { name, role } => {
            let groups = sanitize_groups(vec![Group { name, role }]);
            if groups.is_empty() {
                return Err(RequestError::Refused(
                    "invalid_name",
                    "a group needs a name".to_owned(),
                ));
            }
            let joined =
                ledger.join_groups(&identity.mesh_id, identity.member, groups, false).await;
            joined.map(|()| None).map_err(group_failed)
        }
        ClientFrame::LeaveGroup { name } => {
            let name = sanitize(name.trim_start_matches('@'));
            let left = ledger.leave_group(&identity.mesh_id, identity.member, &name).await;
            left.map(|()| None).map_err(RequestError::Ledger)
        }
        other => topics(peer, identity, other, request_id).await,
    }
}

async fn topics(
    peer: &ClientConnection,
    identity: &Identity,
    frame: ClientFrame,
    request_id: Option<String>,
) -> Result<Option<BrokerFrame>, RequestError> {
    let ledger = &peer.context.ledger;
    let key = |topic: String| TopicKey {
        mesh_id: identity.mesh_id.clone(),
        member: identity.member,
        topic: topic.trim_start_matches('#').to_owned(),
    };
    match frame {
        ClientFrame::TopicCreate(request) => {
            let new = new_topic(peer, request)?;
            let created = ledger.create_topic(&identity.mesh_id, identity.member, new).await;
            let (topic, created) = created.map_err(topic_failed)?;
            let topic = shown_topic(topic);
            Ok(Some(BrokerFrame::TopicCreated(TopicCreated { topic, created, request_id })))
        }
        ClientFrame::TopicList(_) => {
            let topics = ledger
                .topics(&identity.mesh_id, identity.member)
                .await
                .map_err(RequestError::Ledger)?;
            let topics = topics.into_iter().map(shown_topic).collect();
            let response = TopicListResponse { topics, request_id };
            Ok(Some(BrokerFrame::TopicListResponse(response)))
        }
        ClientFrame::TopicJoin(topic) => {
            let joined = ledger.join_topic(key(topic.topic), peer.runtime().now()).await;
            joined.map(|()| None).map_err(topic_failed)
        }
        ClientFrame::TopicLeave(topic) => {
            let left = ledger.leave_topic(key(topic.topic)).await;
            left.map(|()| None).map_err(topic_failed)
        }
        ClientFrame::TopicMembers(topic) => {
            let (topic, members) =
                ledger.topic_members(key(topic.topic)).await.map_err(topic_failed)?;
            let members = members.into_iter().map(|member| {
                json!({
                    "memberId": member.member_id,
                    "pubkey": member.pubkey,
                    "displayName": member.display_name,
                    "role": member.role,
                    "joinedAt": iso(member.joined_at),
                    "lastReadAt": null,
                })
            });
            let body = body(topic.name, "members", members.collect(), request_id);
            Ok(Some(BrokerFrame::TopicMembersResponse(body)))
        }
        ClientFrame::TopicHistory(request) => {
            let TopicHistory { topic, limit, before_id, .. } = request;
            let page = ledger.topic_history(key(topic), limit, before_id).await;
            let (topic, page) = page.map_err(topic_failed)?;
            let mut room = HISTORY_BYTES_MAX;
            // A shorter page costs its reader one more request, a heavier one its connection.
            let page = page.into_iter().take_while(|message| {
                let fits = room > 0;
                room = room.saturating_sub(message.ciphertext.len());
                fits
            });
            let messages = page.map(|message| {
                json!({
                    "id": message.id,
                    "senderPubkey": message.sender_pubkey,
                    "senderMemberId": message.sender_member_id,
                    "senderName": message.sender_name,
                    "nonce": message.nonce,
                    "ciphertext": message.ciphertext,
                    "bodyVersion": 1,
                    "replyToId": message.reply_to_id,
                    "createdAt": iso(message.created_at),
                })
            });
            let body = body(topic.name, "messages", messages.collect(), request_id);
            Ok(Some(BrokerFrame::TopicHistoryResponse(body)))
        }
        // Types of the legacy network that this broker does not have are ignored, as there.
        _ => Ok(None),
    }
}

fn new_topic(peer: &ClientConnection, request: TopicCreate) -> Result<TopicRow, RequestError> {
    let name = sanitize(request.name.trim().trim_start_matches('#'));
    if name.is_empty() {
        return Err(RequestError::Refused("invalid_name", "a topic needs a name".to_owned()));
    }
    let visibility = request.visibility.unwrap_or_else(|| "public".to_owned());
    if !["public", "private", "dm"].contains(&visibility.as_str()) {
        return Err(RequestError::Refused(
            "invalid_argument",
            "visibility must be public, private or dm".to_owned(),
        ));
    }
    Ok(TopicRow {
        id: peer.runtime().mint_id(),
        name,
        description: request.description.as_deref().map(sanitize),
        visibility,
        member_count: 0,
        created_at: peer.runtime().now(),
    })
}

fn shown_topic(topic: TopicRow) -> Topic {
    let rest = json!({
        "description": topic.description,
        "visibility": topic.visibility,
        "memberCount": topic.member_count,
        "createdAt": iso(topic.created_at),
    });
    Topic { id: topic.id, name: topic.name, rest: object(rest) }
}

fn body(
    topic: String,
    name: &str,
    items: Vec<Value>,
    request_id: Option<String>,
) -> Map<String, Value> {
    let mut body = object(json!({ "topic": topic, name: items }));
    if let Some(request_id) = request_id {
        body.insert("_reqId".to_owned(), json!(request_id));
    }
    body
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Success of a verb that the legacy network answers with an ack.
fn done(request_id: Option<String>) -> BrokerFrame {
    BrokerFrame::Ack(Box::new(AckFrame {
        id: request_id.unwrap_or_default(),
        ..AckFrame::default()
    }))
}

async fn set(
    peer: &ClientConnection,
    identity: &Identity,
    state: MemberState,
) -> Result<(), RequestError> {
    peer.context.ledger.set_state(identity.member, state).await.map_err(RequestError::Ledger)
}

fn topic_failed(error: TopicError) -> RequestError {
    match error {
        TopicError::NotFound => {
            RequestError::Refused("topic_not_found", "no such topic".to_owned())
        }
        TopicError::Forbidden => {
            RequestError::Refused("forbidden", "the topic is not public".to_owned())
        }
        TopicError::TooMany => {
            RequestError::Refused("limit", format!("a mesh has at most {TOPICS_MAX} topics"))
        }
        TopicError::NotAMember => not_a_member(),
        TopicError::Failed(error) => RequestError::Ledger(error),
    }
}

fn group_failed(error: GroupError) -> RequestError {
    match error {
        GroupError::TooMany => RequestError::Refused(
            "limit",
            format!("a member may be in at most {GROUPS_MAX} groups"),
        ),
        GroupError::NotAMember => not_a_member(),
        GroupError::Failed(error) => RequestError::Ledger(error),
    }
}

fn not_a_member() -> RequestError {
    RequestError::Refused("unauthorized", "not a member: the membership has ended".to_owned())
}

fn announce_visibility(peer: &ClientConnection, identity: &Identity, visible: bool) {
    let event = if visible { "peer_visible" } else { "peer_hidden" };
    let data = json!({"name": identity.name, "pubkey": identity.routing_key});
    let is_other = |other: &Identity| other.routing_key != identity.routing_key;
    peer.context.hub.announce(peer.runtime(), &identity.mesh_id, event, data, is_other);
}
