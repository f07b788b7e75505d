//! What a broker may say against us, and what we may hold against it.

use super::rig::{Rig, Saw, hello_ack, negotiated, rig, with};
use crate::link::LinkConfig;
use claudemesh_fsm::link::LinkState;
use claudemesh_fsm::negotiate::LEGACY_NOTE;
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn a_banned_or_replaced_link_stays_refused_with_its_remedy() {
    for (code, reason, remedy) in [
        (4001, "kicked", "reload"),
        (4002, "banned", "new invite"),
        (4003, "replaced_by_newer_connection", "claudemesh daemon reload"),
        (4004, "member_already_connected", "claudemesh join <invite> --home"),
    ] {
        rig(|mut rig| async move {
            let mut peer = rig.open().await;
            let (_, transport) = rig.opened().await;
            peer.close(code, reason).await;
            let view = rig.refused().await;
            assert_eq!(view.close_code, Some(code));
            assert!(view.reason.expect("reason").contains(reason));
            assert!(view.remedy.expect("remedy").contains(remedy));
            transport.closed().await;
            let again = rig.runtime.timeout(Duration::from_millis(50), rig.accept_tcp()).await;
            assert!(again.is_none(), "it must not dial by itself");
            rig.stop();
            rig.ended().await;
            assert_eq!(rig.states().await, ["offline"]);
        });
    }
}

#[test]
fn a_refused_link_opens_once_an_operator_acts() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        rig.opened().await;
        peer.close(4001, "kicked").await;
        rig.refused().await;
        rig.redial();
        rig.open().await;
        let (view, _) = rig.opened().await;
        assert_eq!((view.reason, view.remedy, view.close_code), (None, None, None));
    });
}

#[test]
fn a_changed_configuration_holds_from_the_next_dial_on() {
    with(impatient(false), |rig| async move {
        let mut silent = rig.accept().await;
        silent.greet().await;
        assert_eq!(silent.close_frame().await.0, 4010);
        rig.refused().await;
        let url = rig.url();
        rig.remote.configure(LinkConfig { broker_url: url, ..impatient(true) });
        rig.redial();
        let mut silent = rig.accept().await;
        silent.greet().await;
        assert!(rig.opened().await.0.legacy_broker);
    });
}

#[test]
fn a_revocation_is_witnessed_once_with_how_it_was_learned() {
    for way in ["close 4002", "push keypair_revoked", "error revoked"] {
        rig(|rig| async move {
            match way.split_once(' ').expect("two words") {
                ("close", _) => rig.open().await.close(4002, "banned").await,
                ("push", event) => {
                    let mut peer = rig.open().await;
                    peer.push_system(event, json!({"pubkey": rig.key().to_hex()})).await;
                    peer.close_frame().await;
                }
                (_, code) => {
                    let mut peer = rig.accept().await;
                    peer.recv().await;
                    peer.send(&json!({"type": "error", "code": code, "message": "no"})).await;
                    peer.close_frame().await;
                }
            }
            let mut seen = Vec::new();
            loop {
                match rig.saw().await {
                    Saw::Revoked(via) => seen.push(via),
                    Saw::Down(view) if view.state == LinkState::Refused => break,
                    _ => {}
                }
            }
            assert_eq!(seen, [way]);
        });
    }
}

#[test]
fn a_skewed_clock_waits_and_names_the_clock() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        peer.recv().await;
        peer.close(1008, "timestamp_skew").await;
        let view = rig.waiting().await;
        assert_eq!(view.close_code, Some(1008));
        assert!(view.remedy.expect("remedy").contains("clock"));
        let mut peer = rig.accept().await;
        peer.recv().await;
        peer.send(&json!({"type": "error", "code": "timestamp_skew", "message": "no"})).await;
        assert!(rig.waiting().await.remedy.expect("remedy").contains("clock"));
    });
}

#[test]
fn a_revocation_of_us_refuses_and_one_of_somebody_else_does_not() {
    rig(|rig| async move {
        let mut peer = rig.open().await;
        rig.opened().await;
        peer.push_system("member_revoked", json!({"pubkey": "aa"})).await;
        peer.push_system("member_revoked", json!({"pubkey": rig.key().to_hex()})).await;
        assert_eq!(peer.close_frame().await.0, 1000);
        assert!(rig.refused().await.reason.expect("reason").contains("member_revoked"));
        for _ in 0..2 {
            let inbound = rig.inbound.recv().await.expect("the event is passed on as well");
            assert_eq!(inbound.push.event.as_deref(), Some("member_revoked"));
        }
    });
}

#[test]
fn a_missing_feature_closes_4010_and_says_which() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        peer.greet().await;
        peer.send(&json!({"type": "feature_negotiation_response", "supported": {},
            "missing_required": ["client_message_id_dedupe"]}))
            .await;
        let (code, reason) = peer.close_frame().await;
        assert_eq!(code, 4010);
        let reason: Value = serde_json::from_str(&reason).expect("JSON");
        assert_eq!(
            reason,
            json!({"close_reason": {"kind": "feature_unavailable",
                "feature": "client_message_id_dedupe", "detail": "the broker does not have it"}})
        );
        let view = rig.refused().await;
        assert_eq!(view.feature.as_deref(), Some("client_message_id_dedupe"));
        assert_eq!(view.close_code, Some(4010));
    });
}

#[test]
fn half_a_day_is_no_number_of_days() {
    rig(|rig| async move {
        let mut peer = rig.accept().await;
        peer.greet().await;
        let mut offer = negotiated();
        offer["supported"]["client_message_id_dedupe"]["params"] = json!({"version": 1,
            "mode": "retention_scoped", "dedupe_retention_days": 30.5,
            "request_fingerprint": true});
        peer.send(&offer).await;
        let (code, reason) = peer.close_frame().await;
        assert_eq!(code, 4010);
        assert!(reason.contains("feature_param_invalid"), "{reason}");
    });
}

#[test]
fn a_max_age_above_the_window_refuses_this_mesh() {
    let config = Rig::config(|config| config.max_age_override_hours = Some(168));
    with(config, |rig| async move {
        let mut peer = rig.accept().await;
        peer.greet().await;
        let mut offer = negotiated();
        offer["supported"]["client_message_id_dedupe"]["params"] = json!({"version": 1,
            "mode": "retention_scoped", "dedupe_retention_days": 3, "request_fingerprint": true});
        peer.send(&offer).await;
        let (_, reason) = peer.close_frame().await;
        assert_eq!(reason, "outbox_max_age_above_dedupe_window");
        let view = rig.refused().await;
        assert!(view.remedy.expect("remedy").contains("71"));
    });
}

fn impatient(allow_legacy: bool) -> LinkConfig {
    Rig::config(|config| {
        config.timers.negotiation_max = Duration::from_millis(50);
        config.policy.allow_legacy = allow_legacy;
    })
}

#[test]
fn a_broker_of_todays_network_is_refused_by_default() {
    with(impatient(false), |rig| async move {
        let mut peer = rig.accept().await;
        peer.greet().await;
        let (code, reason) = peer.close_frame().await;
        assert_eq!(code, 4010);
        assert!(reason.contains("no answer"), "{reason}");
        let view = rig.refused().await;
        assert!(view.remedy.expect("remedy").contains("--allow-legacy-broker"));
    });
}

#[test]
fn a_broker_of_todays_network_is_let_in_when_allowed() {
    with(impatient(true), |rig| async move {
        let mut peer = rig.accept().await;
        peer.recv().await;
        peer.send(&hello_ack()).await;
        let (view, _) = rig.opened().await;
        assert!(view.legacy_broker);
        assert_eq!(view.reason.as_deref(), Some(LEGACY_NOTE));
    });
}

#[test]
fn a_broker_that_said_it_negotiates_is_slow_and_is_asked_again() {
    for allow_legacy in [false, true] {
        with(impatient(allow_legacy), |rig| async move {
            let mut slow = rig.accept().await;
            slow.recv().await;
            let mut ack = hello_ack();
            ack["negotiates"] = true.into();
            slow.send(&ack).await;
            assert_eq!(slow.close_frame().await, (1000, "negotiation not answered".into()));
            let view = rig.waiting().await;
            assert!(view.remedy.expect("remedy").contains("link.negotiation_ms"));
            rig.open().await;
            assert!(!rig.opened().await.0.legacy_broker);
        });
    }
}

#[test]
fn what_is_no_promise_to_negotiate_is_none() {
    for odd in [json!(false), json!("yes"), json!(1), json!({}), Value::Null] {
        with(impatient(true), |rig| async move {
            let mut peer = rig.accept().await;
            peer.recv().await;
            let mut ack = hello_ack();
            ack["negotiates"] = odd;
            peer.send(&ack).await;
            assert!(rig.opened().await.0.legacy_broker);
        });
    }
}
