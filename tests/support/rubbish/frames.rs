//! Frames that are almost right.

use super::{nested, value};
use crate::support::chance::Chance;
use serde_json::{Value, json};

const BROKER_FRAMES: &[&str] = &[
    "push",
    "ack",
    "peers_list",
    "error",
    "hello_ack",
    "feature_negotiation_response",
    "topic_created",
    "topic_list_response",
    "topic_members_response",
    "topic_history_response",
    "nonsense",
    "",
];

const BROKER_FIELDS: &[&str] = &[
    "id",
    "messageId",
    "meshId",
    "senderPubkey",
    "senderMemberPubkey",
    "senderName",
    "priority",
    "nonce",
    "ciphertext",
    "ext_nonce",
    "ext_ciphertext",
    "createdAt",
    "client_message_id",
    "request_fingerprint",
    "queued",
    "error",
    "code",
    "broker_message_id",
    "peers",
    "_reqId",
    "supported",
    "eventData",
    "event",
    "subtype",
    "topic",
    "replyToId",
    "targetSpec",
    "message",
    "duplicate",
    "first_seen_at",
];

const CLIENT_FRAMES: &[&str] = &[
    "hello",
    "session_hello",
    "feature_negotiation_request",
    "send",
    "client_ack",
    "list_peers",
    "set_status",
    "set_summary",
    "set_visible",
    "set_profile",
    "join_group",
    "leave_group",
    "topic_create",
    "topic_list",
    "topic_join",
    "topic_leave",
    "topic_members",
    "topic_history",
    "zzz",
];

const CLIENT_FIELDS: &[&str] = &[
    "id",
    "targetSpec",
    "priority",
    "nonce",
    "ciphertext",
    "ext_nonce",
    "ext_ciphertext",
    "client_message_id",
    "request_fingerprint",
    "mentions",
    "brokerMessageId",
    "clientMessageId",
    "_reqId",
    "status",
    "summary",
    "visible",
    "name",
    "role",
    "topic",
    "limit",
    "before",
    "meshId",
    "memberId",
    "pubkey",
    "timestamp",
    "signature",
    "sessionId",
    "require",
    "optional",
    "replyToId",
    "parentAttestation",
    "sessionPubkey",
    "parentMemberPubkey",
];

/// A frame as a broker might send it, wrong.
pub fn broker_frame(chance: &mut Chance) -> String {
    frame(chance, BROKER_FRAMES, BROKER_FIELDS)
}

/// A frame as a client might send it, wrong.
pub fn client_frame(chance: &mut Chance) -> String {
    frame(chance, CLIENT_FRAMES, CLIENT_FIELDS)
}

fn frame(chance: &mut Chance, types: &[&str], fields: &[&str]) -> String {
    match chance.below(12) {
        0 => chance.text(200),
        1 => value(chance, 3).to_string(),
        2 => String::from_utf8(nested(chance)).unwrap_or_default(),
        kind => {
            let mut map = serde_json::Map::new();
            map.insert("type".to_owned(), json!(chance.pick(types)));
            for _ in 0..chance.below(10) {
                let field = (*chance.pick(fields)).to_owned();
                map.insert(field, plausible(chance));
            }
            let mut text = Value::Object(map).to_string();
            if kind == 3 {
                let end =
                    (0..=chance.below(text.len())).rev().find(|at| text.is_char_boundary(*at));
                text.truncate(end.unwrap_or(0));
            }
            text
        }
    }
}

/// Something a field might well hold, or anything.
fn plausible(chance: &mut Chance) -> Value {
    match chance.below(6) {
        0 => json!("a".repeat(64)),
        1 => json!(format!("{:064x}", chance.next())),
        2 => json!("AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"),
        3 => json!("system"),
        4 => json!(format!("id-{}", chance.below(50))),
        _ => value(chance, 2),
    }
}
