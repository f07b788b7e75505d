//! What becomes of sends, and of pushes.

use super::rig::{Peer, Rig, hello_ack, message, negotiated, rig, with};
use crate::port::SendOutcome;
use async_tungstenite::tungstenite::Message;
use claudemesh_base::wire::ClientAck;
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

fn broker_id(delivery: &SendOutcome) -> &str {
    match delivery {
        SendOutcome::Acked(ack) => ack.broker_message_id.as_str(),
        other => panic!("expected an ack, got {other:?}"),
    }
}

#[test]
fn answers_find_their_sends_in_any_order_and_twice_is_once() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let (one, two) = (transport.deliver(message("one")), transport.deliver(message("two")));
        let broker = async {
            for id in ["one", "two"] {
                assert_eq!(peer.recv_type("send").await["id"], id);
            }
            peer.ack("two", "b-two").await;
            peer.ack("two", "b-two").await;
            peer.ack("one", "b-one").await;
        };
        let ((one, two), ()) =
            futures_lite::future::zip(futures_lite::future::zip(one, two), broker).await;
        assert_eq!((broker_id(&one), broker_id(&two)), ("b-one", "b-two"));
        assert_eq!(rig.late().await.client_message_id, "two");
    });
}

#[test]
fn refusals_carry_their_words_and_409_is_one_without_words() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let broker = async {
            peer.recv_type("send").await;
            // Neither yes nor no changes nothing.
            peer.send(&json!({"type": "ack", "id": "a", "messageId": "", "queued": false})).await;
            peer.send(&json!({"type": "ack", "id": "a", "messageId": "", "queued": false,
                "error": "rate_limit"}))
                .await;
        };
        let (refused, ()) =
            futures_lite::future::zip(transport.deliver(message("a")), broker).await;
        assert_eq!(
            refused,
            SendOutcome::Refused { code: None, permanent: None, reason: "rate_limit".into() }
        );
        let broker = async {
            peer.recv_type("send").await;
            peer.send(&json!({"type": "ack", "id": "b", "messageId": "", "code": 409,
                "broker_message_id": "known"}))
                .await;
        };
        let (refused, ()) =
            futures_lite::future::zip(transport.deliver(message("b")), broker).await;
        assert!(matches!(refused, SendOutcome::Refused { code: Some(409), .. }), "{refused:?}");
    });
}

#[test]
fn a_success_for_a_send_that_was_given_up_is_reported_late() {
    with(Rig::config(|config| config.ack_max = Duration::from_millis(50)), |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let abandoned = transport.deliver(message("slow")).await;
        assert!(matches!(abandoned, SendOutcome::Lost { .. }), "{abandoned:?}");
        peer.recv_type("send").await;
        peer.ack("slow", "b-slow").await;
        let late = rig.late().await;
        assert_eq!(late.client_message_id, "slow");
        assert_eq!(late.ack.broker_message_id.as_str(), "b-slow");
        // The link is none the worse for it.
        let (delivery, ()) = futures_lite::future::zip(transport.deliver(message("next")), async {
            peer.recv_type("send").await;
            peer.ack("next", "b-next").await;
        })
        .await;
        assert_eq!(broker_id(&delivery), "b-next");
    });
}

async fn refuse(peer: &mut Peer, id: &str) {
    let no = json!({"type": "ack", "id": id, "messageId": "", "code": 403, "error": "blocked"});
    peer.send(&no).await;
}

#[test]
fn a_late_refusal_does_not_end_the_next_attempt() {
    with(Rig::config(|config| config.ack_max = Duration::from_secs(1)), |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let abandoned = transport.deliver(message("m")).await;
        assert!(matches!(abandoned, SendOutcome::Lost { .. }), "{abandoned:?}");
        let broker = async {
            peer.recv_type("send").await;
            peer.recv_type("send").await;
            // What it refused is the first frame; what it accepts is the second.
            refuse(&mut peer, "m").await;
            peer.ack("m", "b").await;
        };
        let (second, ()) = futures_lite::future::zip(transport.deliver(message("m")), broker).await;
        assert_eq!(broker_id(&second), "b");
        // Nothing is owed any more: the next refusal is the next attempt's.
        let broker = async {
            peer.recv_type("send").await;
            refuse(&mut peer, "m").await;
        };
        let (third, ()) = futures_lite::future::zip(transport.deliver(message("m")), broker).await;
        assert!(matches!(third, SendOutcome::Refused { code: Some(403), .. }), "{third:?}");
    });
}

#[test]
fn a_refusal_taken_for_an_earlier_one_leaves_no_answer_owed() {
    with(Rig::config(|config| config.ack_max = Duration::from_secs(1)), |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        // The broker never answers the first frame, and refuses the others.
        let unanswered = transport.deliver(message("m")).await;
        assert!(matches!(unanswered, SendOutcome::Lost { .. }), "{unanswered:?}");
        let broker = async {
            peer.recv_type("send").await;
            for _ in 0..2 {
                peer.recv_type("send").await;
                refuse(&mut peer, "m").await;
            }
        };
        let attempts = async {
            let swallowed = transport.deliver(message("m")).await;
            assert!(matches!(swallowed, SendOutcome::Lost { .. }), "{swallowed:?}");
            transport.deliver(message("m")).await
        };
        let (third, ()) = futures_lite::future::zip(attempts, broker).await;
        assert!(matches!(third, SendOutcome::Refused { code: Some(403), .. }), "{third:?}");
    });
}

#[test]
fn a_late_success_counts_for_the_attempt_that_waits() {
    with(Rig::config(|config| config.ack_max = Duration::from_secs(1)), |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let abandoned = transport.deliver(message("m")).await;
        assert!(matches!(abandoned, SendOutcome::Lost { .. }), "{abandoned:?}");
        let broker = async {
            peer.recv_type("send").await;
            peer.recv_type("send").await;
            peer.ack("m", "b").await;
        };
        let (second, ()) = futures_lite::future::zip(transport.deliver(message("m")), broker).await;
        assert_eq!(broker_id(&second), "b");
        // The second frame's own answer comes as well, and says the same.
        peer.ack("m", "b").await;
        assert_eq!(rig.late().await.client_message_id, "m");
    });
}

#[test]
fn a_disconnect_loses_what_was_written_and_returns_what_was_not() {
    with(Rig::config(|config| config.inflight_max = 2), |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let sends = ["a", "b", "c", "d", "e"].map(|id| transport.deliver(message(id)));
        let sends = futures_util::future::join_all(sends);
        let (deliveries, ()) = futures_lite::future::zip(sends, async {
            peer.recv_type("send").await;
            peer.recv_type("send").await;
            drop(peer);
        })
        .await;
        let lost = deliveries.iter().filter(|it| matches!(it, SendOutcome::Lost { .. })).count();
        let unsent =
            deliveries.iter().filter(|it| matches!(it, SendOutcome::Unsent { .. })).count();
        assert_eq!((lost, unsent), (2, 3), "{deliveries:?}");
        transport.closed().await;
        let after = transport.deliver(message("f")).await;
        assert!(matches!(after, SendOutcome::Unsent { .. }), "{after:?}");
    });
}

#[test]
fn a_frame_that_the_mesh_does_not_take_is_refused_here() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        let mut large = message("large");
        large.ciphertext = "x".repeat(70_000);
        let refused = transport.deliver(large).await;
        assert!(matches!(refused, SendOutcome::Refused { code: Some(413), .. }), "{refused:?}");
        let (delivery, ()) =
            futures_lite::future::zip(transport.deliver(message("small")), async {
                assert_eq!(peer.recv_type("send").await["id"], "small");
                peer.ack("small", "b").await;
            })
            .await;
        assert_eq!(broker_id(&delivery), "b");
    });
}

#[test]
fn a_push_before_hello_ack_is_taken_and_acknowledged_on_its_socket_after_it() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        assert_eq!(peer.recv().await["type"], "hello");
        peer.push("early").await;
        let inbound = rig.inbound.recv().await.expect("a push");
        assert_eq!(inbound.push.message_id, "early");
        assert_eq!(inbound.connection_key, rig.key());
        let ack = ClientAck { broker_message_id: Some("early".into()), client_message_id: None };
        inbound.acks.try_send(ack).expect("room");
        // Sooner, the broker would answer `no_hello`: what comes first is the answer to a ping.
        peer.message(Message::Ping(Vec::new().into())).await;
        let incoming = peer.0.next().await.expect("open").expect("a message");
        assert!(matches!(incoming, Message::Pong(_)), "{incoming:?}");
        peer.send(&hello_ack()).await;
        assert_eq!(peer.recv().await["type"], "feature_negotiation_request");
        let ack = peer.recv().await;
        assert_eq!(
            (&ack["type"], &ack["brokerMessageId"]),
            (&json!("client_ack"), &json!("early"))
        );
        peer.send(&negotiated()).await;
        rig.opened().await;
    });
}

#[test]
fn a_full_inbound_queue_holds_the_broker_back_but_not_the_sends() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        for n in 0..20 {
            peer.push(&n.to_string()).await;
        }
        let send = transport.deliver(message("out"));
        let (delivery, ()) = futures_lite::future::zip(send, async {
            assert_eq!(peer.recv_type("send").await["id"], "out");
            peer.ack("out", "b-out").await;
            for n in 0..20 {
                let inbound = rig.inbound.recv().await.expect("a push");
                assert_eq!(inbound.push.message_id, n.to_string());
            }
        })
        .await;
        assert_eq!(broker_id(&delivery), "b-out");
    });
}

#[test]
fn our_own_deafness_is_not_the_brokers_silence() {
    let quick = Rig::config(|config| {
        config.timers.ping_every = Duration::from_millis(20);
        config.timers.dead_after = Duration::from_millis(100);
    });
    with(quick, |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        for n in 0..20 {
            peer.push(&n.to_string()).await;
        }
        let reads = async { while let Some(Ok(_)) = peer.0.next().await {} };
        let long = rig.runtime.timeout(Duration::from_millis(400), reads);
        assert!(long.await.is_none(), "the link hung up");
        for _ in 0..20 {
            rig.inbound.recv().await.expect("a push");
        }
        let (delivery, ()) = futures_lite::future::zip(transport.deliver(message("out")), async {
            peer.recv_type("send").await;
            peer.ack("out", "b").await;
        })
        .await;
        assert_eq!(broker_id(&delivery), "b");
    });
}

#[test]
fn acknowledgements_after_the_socket_ended_go_nowhere() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        rig.opened().await;
        peer.push("p").await;
        let inbound = rig.inbound.recv().await.expect("a push");
        drop(peer);
        rig.waiting().await;
        assert!(inbound.acks.try_send(ClientAck::default()).is_err());
    });
}
