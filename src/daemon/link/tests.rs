//! The link against a scripted broker, over real sockets.

mod backoff;
mod broken;
mod closes;
mod delivery;
mod flood;
mod negotiation;
mod oversize;
mod receipts;
mod refusals;
mod rig;
mod suspend;
mod tls;
mod topics;

use rig::{Rig, Saw, hello_ack, negotiated, rig};
use serde_json::json;

/// Compares `text` with the snapshot `name`.
fn pin(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("{}/../../snapshots/link", env!("CARGO_MANIFEST_DIR")));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn a_link_greets_negotiates_opens_and_asks_who_is_there() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        let hello = peer.recv().await;
        assert_eq!(hello["type"], "hello");
        assert_eq!(hello["channel"], "claudemesh-daemon");
        assert_eq!(hello["peerType"], "ai");
        assert_eq!(hello["protocolVersion"], 1);
        assert_eq!(hello["sessionId"], "session-1");
        assert!(hello.get("sessionPubkey").is_none());
        let at = hello["timestamp"].as_i64().expect("timestamp");
        let key = rig.key();
        let signed = format!("mesh-1|member-1|{key}|{at}");
        assert!(key.verify(&signed, hello["signature"].as_str().expect("signature")));
        peer.send(&hello_ack()).await;
        let request = peer.recv().await;
        assert_eq!(request["type"], "feature_negotiation_request");
        assert_eq!(
            request["require"],
            json!(["client_message_id_dedupe", "concurrent_connection_policy"])
        );
        let optional = request["optional"].as_array().expect("optional");
        assert!(optional.contains(&json!("offline_roster")));
        peer.send(&negotiated()).await;

        let (view, transport) = rig.opened().await;
        assert!(!view.legacy_broker);
        assert_eq!(view.features.len(), 2);
        assert_eq!(transport.max_age_ms(), 168 * 3_600_000);
        let ask = peer.recv().await;
        assert_eq!(ask["type"], "list_peers");
        peer.send(
            &json!({"type": "peers_list", "_reqId": ask["_reqId"], "peers": [{"pubkey": "aa"}]}),
        )
        .await;
        let Saw::Roster(peers) = rig.saw().await else { panic!("expected a roster") };
        assert_eq!(peers.len(), 1);

        peer.push_system("peer_joined", json!({"pubkey": "bb"})).await;
        assert_eq!(peer.recv().await["type"], "list_peers");
    });
}

#[test]
fn stopping_closes_with_1000_and_ends() {
    rig(|mut rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        rig.stop();
        let (code, _) = peer.close_frame().await;
        assert_eq!(code, 1000);
        rig.ended().await;
        transport.closed().await;
        assert_eq!(rig.states().await.last().map(String::as_str), Some("offline"));
    });
}

#[test]
fn a_redial_cuts_the_wait_short_and_replaces_what_is_open() {
    let long = Rig::config(|config| config.timers.cap_ms = 3_600_000);
    rig::with(long, |rig| async move {
        // A code of its own makes it wait for half an hour at least.
        let mut peer = rig.accept().await;
        peer.greet().await;
        peer.close(4999, "what").await;
        let view = rig.waiting().await;
        assert_eq!(view.close_code, Some(4999));
        rig.redial();
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        rig.redial();
        assert_eq!(peer.close_frame().await.0, 1000);
        transport.closed().await;
        rig.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_quiet_broker_is_pinged_and_one_that_does_not_answer_is_dead() {
    let quick = Rig::config(|config| {
        config.timers.ping_every = std::time::Duration::from_millis(40);
        config.timers.dead_after = std::time::Duration::from_millis(400);
    });
    rig::with(quick, |rig| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        // Reading is answering: pongs go out by themselves.
        peer.pings(3).await;
        // From here on the peer exists, and reads nothing.
        transport.closed().await;
        let view = rig.waiting().await;
        assert!(view.reason.expect("reason").contains("nothing heard"));
    });
}
