//! Brokers that break off, say nothing, or say nonsense.

use super::rig::{Rig, hello_ack, message, negotiated, rig, with};
use crate::link::MESSAGE_BYTES_MAX;
use crate::port::SendOutcome;
use async_tungstenite::tungstenite::Message;
use serde_json::json;
use std::time::Duration;

#[test]
fn a_broker_that_closes_at_once_is_tried_again() {
    rig(|rig| async move {
        drop(rig.accept_tcp().await);
        let view = rig.waiting().await;
        assert!(view.reason.expect("reason").starts_with("cannot connect"));
        drop(rig.accept().await);
        rig.waiting().await;
        rig.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_broker_that_greets_nobody_is_left_and_the_second_hello_opens() {
    let impatient = Rig::config(|config| config.timers.hello_max = Duration::from_millis(60));
    with(impatient, |rig| async move {
        let mut late = rig.accept().await;
        assert_eq!(late.recv().await["type"], "hello");
        assert_eq!(late.close_frame().await.0, 1000);
        let view = rig.waiting().await;
        assert!(view.reason.expect("reason").contains("not answered in time"));
        // Its answer comes when nobody listens any more.
        let _ = late.0.send(Message::text(hello_ack().to_string())).await;
        rig.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_broker_that_accepts_and_never_speaks_is_left_with_the_reason() {
    let impatient = Rig::config(|config| {
        config.connect_max = Duration::from_millis(50);
        config.timers.hello_max = Duration::from_millis(50);
    });
    with(impatient, |rig| async move {
        let _mute = rig.accept_tcp().await;
        let reason = rig.waiting().await.reason.expect("reason");
        assert!(reason.contains("no WebSocket within 50ms"), "{reason}");
        let _mute = rig.accept().await;
        let reason = rig.waiting().await.reason.expect("reason");
        assert!(reason.contains("not answered in time"), "{reason}");
    });
}

#[test]
fn waiting_is_waiting_and_not_spinning() {
    let slow = Rig::config(|config| {
        config.timers.hello_max = Duration::from_millis(20);
        config.timers.cap_ms = 3_600_000;
    });
    with(slow, |rig| async move {
        let mut peer = rig.accept().await;
        peer.recv().await;
        peer.close(1008, "capacity").await;
        assert!(rig.waiting().await.remedy.expect("remedy").contains("full"));
        let again = rig.runtime.timeout(Duration::from_millis(200), rig.accept_tcp()).await;
        assert!(again.is_none(), "dialled again at once");
    });
}

#[test]
fn nonsense_is_dropped_and_the_link_stays_open() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        peer.recv().await;
        peer.message(Message::text("{not json")).await;
        peer.message(Message::text("[]")).await;
        peer.message(Message::text(r#"{"type":"push"}"#)).await;
        peer.message(Message::text("[".repeat(100_000))).await;
        peer.message(Message::Binary(vec![0xff, 0, 1].into())).await;
        peer.send(&json!({"type": "peers_list", "peers": 7})).await;
        peer.send(&json!({"type": "ack", "id": null, "messageId": [], "code": -1})).await;
        peer.send(&json!({"type": "stream_data"})).await;
        peer.send(&json!({"type": "feature_negotiation_response"})).await;
        // JSON in a binary message is a frame like any other.
        peer.message(Message::Binary(hello_ack().to_string().into_bytes().into())).await;
        assert_eq!(peer.recv().await["type"], "feature_negotiation_request");
        peer.send(&hello_ack()).await;
        peer.send(&negotiated()).await;
        let (_, transport) = rig.opened().await;
        peer.send(&json!({"type": "error", "code": "limit", "message": "no"})).await;
        peer.send(&hello_ack()).await;
        let (delivery, ()) = futures_lite::future::zip(transport.deliver(message("a")), async {
            peer.recv_type("send").await;
            peer.ack("nobody's", "b").await;
            peer.send(&json!({"type": "ack", "id": "nobody's", "error": "no"})).await;
            peer.ack("a", "b").await;
        })
        .await;
        assert!(matches!(delivery, SendOutcome::Acked(_)), "{delivery:?}");
    });
}

#[test]
fn a_giant_message_ends_the_connection_with_a_clear_reason() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        rig.opened().await;
        let giant = Message::text("x".repeat(20 * 1024 * 1024));
        // The link hangs up in the middle of it.
        let sent = peer.0.send(giant);
        let (_, view) = futures_lite::future::zip(sent, rig.waiting()).await;
        let reason = view.reason.expect("reason");
        assert!(reason.contains(&MESSAGE_BYTES_MAX.to_string()), "{reason}");
        rig.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_broker_that_stops_reading_is_dead_even_if_it_keeps_talking() {
    let quick = Rig::config(|config| {
        config.timers.dead_after = Duration::from_millis(300);
        config.inflight_max = 1000;
    });
    with(quick, |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        // More than any socket buffers: the writer must come to a halt.
        let sends = (0..1000).map(|n| {
            let mut large = message(&n.to_string());
            large.ciphertext = "x".repeat(60_000);
            transport.deliver(large)
        });
        let talk = async {
            loop {
                rig.runtime.sleep(Duration::from_millis(20)).await;
                let chat = Message::text(r#"{"type":"stream_data"}"#);
                if peer.0.send(chat).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let sends = futures_util::future::join_all(sends);
        let deliveries = futures_lite::future::or(sends, async {
            talk.await;
            Vec::new()
        })
        .await;
        assert_eq!(deliveries.len(), 1000);
        assert!(deliveries.iter().all(|it| !matches!(it, SendOutcome::Acked(_))));
        assert!(deliveries.iter().any(|it| matches!(it, SendOutcome::Unsent { .. })));
        rig.waiting().await;
    });
}

#[test]
fn an_address_that_is_none_waits_with_a_remedy() {
    for url in ["", "http://localhost/ws", "ws://", "not a url", "ws://127.0.0.1:1/ws"] {
        let mut config = Rig::config(|_| ());
        config.timers.cap_ms = 60_000;
        super::rig::rig_at(config, url, |mut rig| async move {
            let view = rig.waiting().await;
            assert!(view.reason.expect("reason").starts_with("cannot connect"), "{url}");
            rig.stop();
            rig.ended().await;
        });
    }
}
