//! What a client may ask besides sending: the roster, how it shows itself, groups and topics
//! (`specs/wire.md`).

use super::Peer;
use super::features::{self, OFFLINE_ROSTER};
use super::hello::{clean, clean_groups};
use super::roster;
use crate::ledger::{
    GROUPS_MAX, GroupError, MemberState, TOPICS_MAX, TopicError, TopicKey, TopicRow,
};
use crate::route::{ConnectionId, Identity};
use claudemesh_base::db;
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
enum Failure {
    /// The code of its `error` frame, and a sentence.
    Refused(&'static str, String),
    Ledger(db::Error),
}

/// Answers one request of an authenticated client.
pub(crate) async fn handle(peer: &Peer, id: ConnectionId, frame: ClientFrame, text: &str) {
    let Some(who) = peer.broker.hub.identity(id) else { return };
    let request_id = serde_json::from_str::<Correlated>(text).ok().and_then(|c| c.request_id);
    let answer = answer(peer, id, &who, frame, request_id.clone()).await;
    match answer {
        Ok(Some(frame)) => peer.tell(&frame),
        Ok(None) => {}
        Err(Failure::Refused(code, message)) => peer.error(code, &message, request_id),
        Err(Failure::Ledger(error)) => {
            peer.broker.ledger_failed(&error);
            let message = "the broker's ledger does not answer; try again";
            peer.error("unavailable", message, request_id);
        }
    }
}

async fn answer(
    peer: &Peer,
    id: ConnectionId,
    who: &Identity,
    frame: ClientFrame,
    request_id: Option<String>,
) -> Result<Option<BrokerFrame>, Failure> {
    let ledger = &peer.broker.ledger;
    match frame {
        ClientFrame::FeatureNegotiationRequest(_) if peer.broker.faithful.is_some() => Ok(None),
        ClientFrame::FeatureNegotiationRequest(request) => {
            if features::asks_for(&request, OFFLINE_ROSTER) {
                peer.broker.hub.set_wants_offline(id);
            }
            if features::asks_for(&request, RECEIPTS) {
                peer.broker.hub.set_wants_receipts(id);
            }
            let mesh = ledger.mesh(&who.mesh_id).await.map_err(Failure::Ledger)?;
            let policy = mesh.and_then(|mesh| ConnectionPolicy::parse(&mesh.connection_policy));
            let response = features::response(&peer.broker, policy.unwrap_or_default(), &request);
            Ok(Some(BrokerFrame::FeatureNegotiationResponse(response)))
        }
        ClientFrame::ReceiptsRequest(ReceiptsRequest { ids, .. }) => {
            let (mesh, sender) = (&who.mesh_id, &who.member_pubkey);
            let receipts = ledger.receipts(mesh, sender, ids).await.map_err(Failure::Ledger)?;
            Ok(Some(BrokerFrame::Receipts(ReceiptsFrame { receipts, request_id })))
        }
        ClientFrame::ListPeers(_) => {
            let peers = roster::of(peer, id, who).await.map_err(Failure::Ledger)?;
            Ok(Some(BrokerFrame::PeersList(PeersList { peers, request_id })))
        }
        ClientFrame::SetStatus { status } => {
            let status = Some(status).filter(|s| ["idle", "working", "dnd"].contains(&s.as_str()));
            let Some(status) = status else {
                return Err(Failure::Refused(
                    "invalid_argument",
                    "status must be idle, working or dnd".to_owned(),
                ));
            };
            set(peer, who, MemberState { status: Some(status), ..MemberState::default() }).await?;
            Ok(None)
        }
        ClientFrame::SetSummary { summary } => {
            let summary = Some(clean(&summary));
            set(peer, who, MemberState { summary, ..MemberState::default() }).await?;
            Ok(None)
        }
        ClientFrame::SetVisible { visible } => {
            let state = MemberState { visible: Some(visible), ..MemberState::default() };
            set(peer, who, state).await?;
            announce_visibility(peer, who, visible);
            Ok(Some(done(request_id)))
        }
        ClientFrame::SetProfile(profile) => {
            let profile = claudemesh_base::wire::to_text(&profile);
            if profile.len() > PROFILE_BYTES_MAX {
                return Err(Failure::Refused(
                    "invalid_argument",
                    "profile must be at most 4 KiB".to_owned(),
                ));
            }
            let state = MemberState { profile: Some(profile), ..MemberState::default() };
            set(peer, who, state).await?;
            Ok(Some(done(request_id)))
        }
        ClientFrame::JoinGroup { name, role } => {
            let groups = clean_groups(vec![Group { name, role }]);
            if groups.is_empty() {
                return Err(Failure::Refused("invalid_name", "a group needs a name".to_owned()));
            }
            let joined = ledger.join_groups(&who.mesh_id, who.member, groups, false).await;
            joined.map(|()| None).map_err(group_failed)
        }
        ClientFrame::LeaveGroup { name } => {
            let name = clean(name.trim_start_matches('@'));
            let left = ledger.leave_group(&who.mesh_id, who.member, &name).await;
            left.map(|()| None).map_err(Failure::Ledger)
        }
        other => topics(peer, who, other, request_id).await,
    }
}

async fn topics(
    peer: &Peer,
    who: &Identity,
    frame: ClientFrame,
    request_id: Option<String>,
) -> Result<Option<BrokerFrame>, Failure> {
    let ledger = &peer.broker.ledger;
    let key = |topic: String| TopicKey {
        mesh_id: who.mesh_id.clone(),
        member: who.member,
        topic: topic.trim_start_matches('#').to_owned(),
    };
    match frame {
        ClientFrame::TopicCreate(request) => {
            let new = new_topic(peer, request)?;
            let created = ledger.create_topic(&who.mesh_id, who.member, new).await;
            let (topic, created) = created.map_err(topic_failed)?;
            let topic = shown_topic(topic);
            Ok(Some(BrokerFrame::TopicCreated(TopicCreated { topic, created, request_id })))
        }
        ClientFrame::TopicList(_) => {
            let topics = ledger.topics(&who.mesh_id, who.member).await.map_err(Failure::Ledger)?;
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
        // Types of today's network that this broker does not have are ignored, as there.
        _ => Ok(None),
    }
}

fn new_topic(peer: &Peer, request: TopicCreate) -> Result<TopicRow, Failure> {
    let name = clean(request.name.trim().trim_start_matches('#'));
    if name.is_empty() {
        return Err(Failure::Refused("invalid_name", "a topic needs a name".to_owned()));
    }
    let visibility = request.visibility.unwrap_or_else(|| "public".to_owned());
    if !["public", "private", "dm"].contains(&visibility.as_str()) {
        return Err(Failure::Refused(
            "invalid_argument",
            "visibility must be public, private or dm".to_owned(),
        ));
    }
    Ok(TopicRow {
        id: peer.runtime().mint_id(),
        name,
        description: request.description.as_deref().map(clean),
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

/// Success of a verb that today's network answers with an ack.
fn done(request_id: Option<String>) -> BrokerFrame {
    BrokerFrame::Ack(Box::new(AckFrame {
        id: request_id.unwrap_or_default(),
        ..AckFrame::default()
    }))
}

async fn set(peer: &Peer, who: &Identity, state: MemberState) -> Result<(), Failure> {
    peer.broker.ledger.set_state(who.member, state).await.map_err(Failure::Ledger)
}

fn topic_failed(error: TopicError) -> Failure {
    match error {
        TopicError::NotFound => Failure::Refused("topic_not_found", "no such topic".to_owned()),
        TopicError::Forbidden => {
            Failure::Refused("forbidden", "the topic is not public".to_owned())
        }
        TopicError::TooMany => {
            Failure::Refused("limit", format!("a mesh has at most {TOPICS_MAX} topics"))
        }
        TopicError::NotAMember => not_a_member(),
        TopicError::Failed(error) => Failure::Ledger(error),
    }
}

fn group_failed(error: GroupError) -> Failure {
    match error {
        GroupError::TooMany => {
            Failure::Refused("limit", format!("a member may be in at most {GROUPS_MAX} groups"))
        }
        GroupError::NotAMember => not_a_member(),
        GroupError::Failed(error) => Failure::Ledger(error),
    }
}

fn not_a_member() -> Failure {
    Failure::Refused("unauthorized", "not a member: the membership has ended".to_owned())
}

fn announce_visibility(peer: &Peer, who: &Identity, visible: bool) {
    let event = if visible { "peer_visible" } else { "peer_hidden" };
    let data = json!({"name": who.name, "pubkey": who.routing_key});
    let (runtime, hub) = (peer.runtime(), &peer.broker.hub);
    let frame = super::system_event(runtime.mint_id(), &who.mesh_id, event, data, runtime.now());
    hub.broadcast(&who.mesh_id, &frame, |other| other.routing_key != who.routing_key);
}
