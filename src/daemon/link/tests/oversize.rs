//! A broker that closes over a frame it finds too large (1009): the culprit is never sent again, and
//! nobody else pays for it.

use super::rig::{Peer, Rig, message, negotiated, rig, with};
use crate::link::LinkConfig;
use crate::port::{LinkTransport, SendOutcome};
use claudemesh_base::wire;
use claudemesh_fsm::link::LinkState;
use futures_lite::future::zip;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn weighing(id: &str, bytes: usize) -> wire::SendFrame {
    let mut send = message(id);
    send.ciphertext = "x".repeat(bytes);
    send
}

/// Sends all of them, and lets `broker` answer once all have arrived.
async fn outcome<F: Future<Output = ()>>(
    transport: &Arc<dyn LinkTransport>,
    mut peer: Peer,
    sends: Vec<wire::SendFrame>,
    broker: impl FnOnce(Peer) -> F,
) -> Vec<SendOutcome> {
    let count = sends.len();
    let deliveries = sends.into_iter().map(|send| transport.deliver(send));
    let deliveries = futures_util::future::join_all(deliveries);
    let broker = async {
        for _ in 0..count {
            peer.recv_type("send").await;
        }
        broker(peer).await;
    };
    zip(deliveries, broker).await.0
}

fn reason(delivery: &SendOutcome) -> &str {
    match delivery {
        SendOutcome::Refused { code: Some(413), permanent: Some(true), reason } => reason,
        other => panic!("expected a refusal for good, got {other:?}"),
    }
}

#[test]
fn the_largest_unanswered_frame_is_dead_and_the_others_are_tried_again() {
    rig(|rig| async move {
        let peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let sends = vec![weighing("a", 2000), weighing("b", 9000), weighing("c", 5000)];
        let deliveries = outcome(&transport, peer, sends, |mut peer| async move {
            peer.close(1009, "message too big").await;
        })
        .await;
        assert!(matches!(deliveries[0], SendOutcome::Lost { .. }), "{deliveries:?}");
        assert!(reason(&deliveries[1]).contains("1009 message too big"), "{deliveries:?}");
        assert!(matches!(deliveries[2], SendOutcome::Lost { .. }), "{deliveries:?}");
        // Who asks while the link is down is told so as well.
        let limit = rig.waiting().await.frame_bytes_max.expect("a limit that was learned");
        assert!((9000..9200).contains(&limit), "{limit}");

        // From here on as large a frame is refused before it is written, and a smaller one goes.
        let peer = rig.open().await;
        let (view, transport) = rig.opened().await;
        assert_eq!(view.frame_bytes_max, Some(limit));
        assert!(reason(&transport.deliver(weighing("d", 9000)).await).contains("this mesh takes"));
        let deliveries =
            outcome(&transport, peer, vec![weighing("c", 5000)], |mut peer| async move {
                peer.ack("c", "b-c").await;
                peer.close(1000, "").await;
            })
            .await;
        assert!(matches!(deliveries[0], SendOutcome::Acked(_)), "{deliveries:?}");
    });
}

#[test]
fn a_frame_no_larger_than_one_that_was_answered_is_innocent() {
    rig(|rig| async move {
        let peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let sends = vec![weighing("large", 9000), weighing("small", 2000)];
        let deliveries = outcome(&transport, peer, sends, |mut peer| async move {
            peer.ack("large", "b-large").await;
            peer.close(1009, "").await;
        })
        .await;
        assert!(matches!(deliveries[0], SendOutcome::Acked(_)), "{deliveries:?}");
        assert!(matches!(deliveries[1], SendOutcome::Lost { .. }), "{deliveries:?}");
        rig.open().await;
        assert_eq!(rig.opened().await.0.frame_bytes_max, None);
    });
}

#[test]
fn a_frame_too_small_for_any_limit_is_innocent() {
    rig(|rig| async move {
        let peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let deliveries =
            outcome(&transport, peer, vec![weighing("small", 500)], |mut peer| async move {
                peer.close(1009, "").await;
            })
            .await;
        assert!(matches!(deliveries[0], SendOutcome::Lost { .. }), "{deliveries:?}");
        rig.open().await;
        assert_eq!(rig.opened().await.0.frame_bytes_max, None);
    });
}

#[test]
fn a_frame_that_was_given_up_is_the_culprit_and_not_the_next_one() {
    let impatient = Rig::config(|config| config.ack_max = Duration::from_millis(50));
    with(impatient, |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let abandoned = transport.deliver(weighing("large", 9000)).await;
        assert!(matches!(abandoned, SendOutcome::Lost { .. }), "{abandoned:?}");
        peer.recv_type("send").await;
        let deliveries =
            outcome(&transport, peer, vec![weighing("small", 2000)], |mut peer| async move {
                peer.close(1009, "").await;
            })
            .await;
        assert!(matches!(deliveries[0], SendOutcome::Lost { .. }), "{deliveries:?}");
        rig.open().await;
        let (_, transport) = rig.opened().await;
        reason(&transport.deliver(weighing("large", 9000)).await);
    });
}

fn of_frames(bytes_max: u64) -> Value {
    let mut response = negotiated();
    let params = json!({"version": 1, "inline_bytes": bytes_max, "blob_bytes": bytes_max});
    response["supported"]["max_payload"] = json!({ "params": params });
    response["supported"]["delivery_receipts"] = json!({"params": {"version": 1}});
    response
}

async fn open_with(rig: &Rig, response: &Value) -> (Peer, Arc<dyn LinkTransport>) {
    let mut peer = rig.accept().await;
    peer.greet().await;
    peer.send(response).await;
    (peer, rig.opened().await.1)
}

#[test]
fn a_link_that_is_down_keeps_the_limit_it_was_told() {
    rig(|rig| async move {
        let (mut peer, _) = open_with(&rig, &of_frames(2048)).await;
        peer.close(1001, "").await;
        assert_eq!(rig.waiting().await.frame_bytes_max, Some(2048));
        let mut peer = rig.accept().await;
        peer.greet().await;
        assert_eq!(rig.down(LinkState::Negotiating).await.frame_bytes_max, Some(2048));
        // What it says next replaces it.
        peer.send(&negotiated()).await;
        assert_eq!(rig.opened().await.0.frame_bytes_max, None);
        peer.close(1001, "").await;
        assert_eq!(rig.waiting().await.frame_bytes_max, None);
    });
}

#[test]
fn a_reload_forgets_what_was_learned_and_not_what_was_told() {
    let config = Rig::config(|_| ());
    with(config.clone(), |rig| async move {
        let (peer, transport) = open_with(&rig, &of_frames(32_000)).await;
        outcome(&transport, peer, vec![weighing("large", 9000)], |mut peer| async move {
            peer.close(1009, "").await;
        })
        .await;
        assert!(rig.waiting().await.frame_bytes_max.is_some_and(|bytes| bytes < 9200));
        rig.remote.configure(LinkConfig { broker_url: rig.url(), ..config });
        loop {
            // A dial may have been under way.
            let mut peer = rig.accept().await;
            peer.greet().await;
            let view = rig.down(LinkState::Negotiating).await;
            if view.frame_bytes_max == Some(32_000) {
                break;
            }
            peer.close(1001, "").await;
        }
    });
}

/// As long as an id may be, and twice as long in JSON.
fn long_ids(count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("{nth:03}{}", "\"".repeat(125))).collect()
}

#[test]
fn a_question_is_asked_in_frames_that_the_broker_takes() {
    rig(|rig| async move {
        let (mut peer, transport) = open_with(&rig, &of_frames(1024)).await;
        let broker = async {
            let mut asked = 0;
            while asked < 20 {
                let request = peer.recv_type("receipts_request").await;
                assert!(request.to_string().len() <= 1024, "{}", request.to_string().len());
                let ids = request["ids"].as_array().expect("ids");
                asked += ids.len();
                let receipt = |id| json!({"client_message_id": id, "recipients": 1});
                let receipts: Vec<Value> = ids.iter().map(receipt).collect();
                let answer = json!({"type": "receipts", "_reqId": request["_reqId"],
                    "receipts": receipts});
                peer.send(&answer).await;
            }
        };
        let (answer, ()) = zip(transport.receipts(long_ids(20)), broker).await;
        let told = answer.expect("answered").into_iter().map(|told| told.client_message_id);
        assert_eq!(told.collect::<Vec<_>>(), long_ids(20));
    });
}

#[test]
fn a_question_that_was_too_large_costs_no_row_its_life() {
    rig(|rig| async move {
        let (peer, transport) = open_with(&rig, &of_frames(65_536)).await;
        let question = transport.receipts(long_ids(40));
        let sends =
            outcome(&transport, peer, vec![weighing("innocent", 2000)], |mut peer| async move {
                peer.recv_type("receipts_request").await;
                peer.close(1009, "").await;
            });
        let (answer, deliveries) = zip(question, sends).await;
        assert_eq!(answer, None);
        assert!(matches!(deliveries[0], SendOutcome::Lost { .. }), "{deliveries:?}");

        // The same question is asked again in smaller frames, and the row arrives.
        let (mut peer, transport) = open_with(&rig, &of_frames(65_536)).await;
        let question = transport.receipts(long_ids(40));
        let broker = async {
            let request = peer.recv_type("receipts_request").await;
            assert!(request["ids"].as_array().is_some_and(|ids| ids.len() < 40));
            let send = transport.deliver(weighing("innocent", 2000));
            let answer = async {
                peer.recv_type("send").await;
                peer.ack("innocent", "b").await;
            };
            zip(send, answer).await.0
        };
        let delivery = futures_lite::future::or(broker, async {
            question.await;
            unreachable!("nobody answers")
        });
        assert!(matches!(delivery.await, SendOutcome::Acked(_)));
    });
}
