//! Topics on a broker of today's network, which wants their ids and loses what names none.

use super::rig::{Peer, Rig, hello_ack, message, negotiated, rig, with};
use crate::port::{LinkTransport, SendOutcome};
use claudemesh_base::wire;
use futures_lite::future::zip;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn to_topic(id: &str, topic: &str) -> wire::SendFrame {
    wire::SendFrame { target_spec: topic.to_owned(), ..message(id) }
}

async fn legacy(rig: &Rig) -> (Peer, Arc<dyn LinkTransport>) {
    let mut peer = rig.accept().await;
    peer.recv().await;
    peer.send(&hello_ack()).await;
    (peer, rig.opened().await.1)
}

fn lenient() -> crate::link::LinkConfig {
    Rig::config(|config| {
        config.timers.negotiation_max = Duration::from_millis(50);
        config.policy.allow_legacy = true;
    })
}

/// Answers the next question about topics with these.
async fn list(peer: &mut Peer, topics: Value) {
    let asked = peer.recv_type("topic_list").await;
    let answer =
        json!({"type": "topic_list_response", "topics": topics, "_reqId": asked["_reqId"]});
    peer.send(&answer).await;
}

/// Tries again until the list has arrived, as the drain does.
async fn outcome(rig: &Rig, transport: &Arc<dyn LinkTransport>, topic: &str) -> SendOutcome {
    loop {
        match transport.deliver(to_topic("m", topic)).await {
            SendOutcome::Refused { permanent: Some(false), .. } => {
                rig.runtime.sleep(Duration::from_millis(5)).await
            }
            delivery => return delivery,
        }
    }
}

#[test]
fn a_name_becomes_the_id_of_the_brokers_list() {
    with(lenient(), |rig| async move {
        let (mut peer, transport) = legacy(&rig).await;
        let broker = async {
            list(&mut peer, json!([{"id": "Tp1", "name": "deploys"}])).await;
            let send = peer.recv_type("send").await;
            assert_eq!(send["targetSpec"], "#Tp1");
            peer.ack("m", "b").await;
        };
        let (delivery, ()) = zip(outcome(&rig, &transport, "#deploys"), broker).await;
        assert!(matches!(delivery, SendOutcome::Acked(_)), "{delivery:?}");
    });
}

#[test]
fn a_topic_that_does_not_exist_is_refused_for_good_and_never_sent() {
    with(lenient(), |rig| async move {
        let (mut peer, transport) = legacy(&rig).await;
        let broker = list(&mut peer, json!([{"id": "Tp1", "name": "deploys"}]));
        let (delivery, ()) = zip(outcome(&rig, &transport, "#none"), broker).await;
        let SendOutcome::Refused { code: Some(404), permanent: Some(true), reason } = delivery
        else {
            panic!("{delivery:?}");
        };
        assert!(reason.contains("unknown topic"), "{reason}");
        // What else is sent goes at once, and the next frame is it.
        let (delivery, ()) = zip(transport.deliver(message("all")), async {
            assert_eq!(peer.recv_type("send").await["id"], "all");
            peer.ack("all", "b").await;
        })
        .await;
        assert!(matches!(delivery, SendOutcome::Acked(_)), "{delivery:?}");
    });
}

#[test]
fn a_broker_that_negotiates_gets_the_name() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        peer.greet().await;
        peer.send(&negotiated()).await;
        let (_, transport) = rig.opened().await;
        let (delivery, ()) = zip(transport.deliver(to_topic("m", "#deploys")), async {
            assert_eq!(peer.recv_type("send").await["targetSpec"], "#deploys");
            peer.ack("m", "b").await;
        })
        .await;
        assert!(matches!(delivery, SendOutcome::Acked(_)), "{delivery:?}");
    });
}
