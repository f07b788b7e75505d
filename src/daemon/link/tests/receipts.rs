//! What a broker tells of messages it has (§4.13).

use super::rig::{Peer, Rig, negotiated, rig};
use crate::port::LinkTransport;
use futures_lite::future::zip;
use serde_json::{Value, json};
use std::sync::Arc;

/// A link to a broker that tells receipts.
async fn told(rig: &Rig) -> (Peer, Arc<dyn LinkTransport>) {
    let mut peer = rig.accept().await;
    peer.greet().await;
    let mut response = negotiated();
    response["supported"]["delivery_receipts"] = json!({"params": {"version": 1}});
    peer.send(&response).await;
    let (view, transport) = rig.opened().await;
    assert!(view.features.iter().any(|(name, _)| name == "delivery_receipts"));
    (peer, transport)
}

fn receipt(id: &str, stored: u32) -> Value {
    json!({"client_message_id": id, "recipients": 1, "stored": stored, "expired": 0})
}

#[test]
fn a_question_gets_its_own_answer_and_news_goes_to_the_observer() {
    rig(|rig| async move {
        let (mut peer, transport) = told(&rig).await;
        let broker = async {
            let request = peer.recv_type("receipts_request").await;
            assert_eq!(request["ids"], json!(["one", "two"]));
            peer.send(&json!({"type": "receipts", "receipts": [receipt("news", 1)]})).await;
            let other = json!({"type": "receipts", "_reqId": "x", "receipts": [receipt("x", 1)]});
            peer.send(&other).await;
            let answer = json!({"type": "receipts", "_reqId": request["_reqId"],
                "receipts": [receipt("one", 1)]});
            peer.send(&answer).await;
        };
        let (answer, ()) = zip(transport.receipts(vec!["one".into(), "two".into()]), broker).await;
        assert_eq!(answer.expect("answered")[0].client_message_id, "one");
        assert_eq!(rig.receipts().await[0].client_message_id, "news");
        assert_eq!(rig.receipts().await[0].client_message_id, "x");
    });
}

#[test]
fn a_question_that_was_given_up_makes_room_for_the_next() {
    rig(|rig| async move {
        let (mut peer, transport) = told(&rig).await;
        let broker = async {
            let abandoned = peer.recv_type("receipts_request").await;
            let request = peer.recv_type("receipts_request").await;
            assert_eq!(request["ids"], json!(["second"]));
            for (of, id) in [(&abandoned, "first"), (&request, "second")] {
                let answer = json!({"type": "receipts", "_reqId": of["_reqId"],
                    "receipts": [receipt(id, 1)]});
                peer.send(&answer).await;
            }
        };
        let questions = async {
            let first = transport.receipts(vec!["first".into()]);
            let gave_up = rig.runtime.timeout(std::time::Duration::from_millis(50), first).await;
            assert!(gave_up.is_none(), "nobody answered");
            transport.receipts(vec!["second".into()]).await
        };
        let (answer, ()) = zip(questions, broker).await;
        assert_eq!(answer.expect("answered")[0].client_message_id, "second");
        assert_eq!(rig.receipts().await[0].client_message_id, "first", "late, but not lost");
    });
}

#[test]
fn nobody_is_asked_who_does_not_tell_and_a_link_that_ends_answers_nothing() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        assert_eq!(transport.receipts(vec!["one".into()]).await, None);
        peer.close(1001, "").await;
        let (mut peer, transport) = told(&rig).await;
        let broker = async {
            peer.recv_type("receipts_request").await;
            peer.close(1001, "").await;
        };
        let (answer, ()) = zip(transport.receipts(vec!["one".into()]), broker).await;
        assert_eq!(answer, None);
    });
}
