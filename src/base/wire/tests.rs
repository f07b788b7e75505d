//! Captured frames of today's network are understood.

use super::*;

fn parse(text: &str) -> BrokerFrame {
    serde_json::from_str(text).expect("a frame of today's network")
}

#[test]
fn captured_frames_of_todays_network_are_understood() {
    let BrokerFrame::Ack(ack) = parse(
        r#"{"type":"ack","id":"cid-6","messageId":"","queued":false,"error":"no connected peer for target"}"#,
    ) else {
        panic!("is an ack")
    };
    assert_eq!((ack.id.as_str(), ack.error.is_some(), ack.code), ("cid-6", true, None));
    let BrokerFrame::Push(push) = parse(
        r#"{"type":"push","messageId":"1Xhr","meshId":"Rn52","senderPubkey":"aeb1","priority":"next","nonce":"AAAA","ciphertext":"Qk9E","createdAt":"2026-11-23T05:31:33.050Z","client_message_id":"cid-1","request_fingerprint":"abab"}"#,
    ) else {
        panic!("is a push")
    };
    assert_eq!(push.client_message_id.as_deref(), Some("cid-1"));
    let BrokerFrame::Push(push) = parse(
        r#"{"type":"push","subtype":"system","event":"peer_joined","eventData":{"name":"bob","pubkey":"eea1","groups":[{"name":"eng/core"}]},"messageId":"6a6c51fa","meshId":"Rn52","senderPubkey":"system","priority":"low","nonce":"","ciphertext":"","createdAt":"2026-11-23T05:31:33.050Z"}"#,
    ) else {
        panic!("is a push")
    };
    assert_eq!(push.event.as_deref(), Some("peer_joined"));
    assert!(matches!(parse(r#"{"type":"stream_data","x":1}"#), BrokerFrame::Unknown));
    let BrokerFrame::Error(error) =
        parse(r#"{"type":"error","code":"topic_not_found","message":"no","id":"th2"}"#)
    else {
        panic!("is an error")
    };
    assert_eq!(error.request_id.as_deref(), Some("th2"));
}

#[test]
fn a_peer_keeps_what_we_do_not_know() {
    let text = r#"{"pubkey":"eea1","memberPubkey":"3eba","displayName":"bob","peerRole":"session","status":"idle","sessionId":"sess-1"}"#;
    let peer: RosterEntry = serde_json::from_str(text).expect("a peer");
    assert_eq!(
        serde_json::to_value(&peer).expect("json"),
        serde_json::from_str::<Value>(text).expect("json")
    );
}
