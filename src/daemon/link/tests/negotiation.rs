//! Every way in which a broker's offer can fail, on the wire and in the view (§15).

use super::rig::{Rig, with};
use claudemesh_fsm::negotiate::{
    CLOSE_REASON_BYTES_MAX, CONCURRENT, DEDUPE, FEATURES, FeaturePolicy, KEY_EPOCH,
    KEYPAIR_ROTATED, MAX_PAYLOAD, RECEIPTS,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// An offer that nobody can object to.
fn good() -> Value {
    json!({"type": "feature_negotiation_response", "missing_required": [], "supported": {
        DEDUPE: {"params": {"version": 1, "mode": "retention_scoped",
            "dedupe_retention_days": 30, "request_fingerprint": true}},
        CONCURRENT: {"params": {"version": 1, "default_policy": "prefer_newest"}},
        KEYPAIR_ROTATED: {"params": {"version": 1}},
        KEY_EPOCH: {"params": {"version": 1, "max_concurrent_epochs": 2}},
        MAX_PAYLOAD: {"params": {"version": 1, "inline_bytes": 65536, "blob_bytes": 65536}},
        RECEIPTS: {"params": {"version": 1}},
    }})
}

fn require(names: &[&str]) -> FeaturePolicy {
    let require = names.iter().map(ToString::to_string).collect();
    let optional = FEATURES.iter().filter(|name| !names.contains(name)).map(ToString::to_string);
    FeaturePolicy { require, optional: optional.collect(), allow_legacy: false }
}

/// The good offer with one flaw; `Value::Null` takes the parameter away.
fn flawed(feature: &str, param: &str, value: Value) -> Value {
    let mut offer = good();
    let params = offer["supported"][feature]["params"].as_object_mut().expect("params");
    params.remove(param);
    if !value.is_null() {
        params.insert(param.to_owned(), value);
    }
    offer
}

/// Every flaw of the table: feature, what is wrong, the offer.
fn flaws() -> Vec<(&'static str, String, Value)> {
    let mut flaws = Vec::new();
    for feature in FEATURES {
        let mut absent = good();
        absent["supported"].as_object_mut().expect("features").remove(feature);
        flaws.push((feature, "not offered".to_owned(), absent));
        let mut denied = good();
        denied["missing_required"] = json!([feature]);
        flaws.push((feature, "said to be missing".to_owned(), denied));
        let versions = [Value::Null, json!("1"), json!(1.5), json!(0), json!(2)];
        flaws.extend(versions.map(|version| flaw(feature, "version", version)));
    }
    for (feature, param, values) in [
        (DEDUPE, "mode", vec![Value::Null, json!("sometimes"), json!(1), json!("é".repeat(99))]),
        (
            DEDUPE,
            "dedupe_retention_days",
            vec![Value::Null, json!("30"), json!(30.5), json!([30]), json!(2), json!(-3)],
        ),
        (DEDUPE, "request_fingerprint", vec![Value::Null, json!(false), json!("true")]),
        (KEY_EPOCH, "max_concurrent_epochs", vec![Value::Null, json!(true), json!(0)]),
        (MAX_PAYLOAD, "inline_bytes", vec![Value::Null, json!("64k"), json!(1023)]),
        (MAX_PAYLOAD, "blob_bytes", vec![Value::Null, json!({}), json!(0)]),
    ] {
        flaws.extend(values.into_iter().map(|value| flaw(feature, param, value)));
    }
    flaws
}

fn flaw(feature: &'static str, param: &'static str, value: Value) -> (&'static str, String, Value) {
    let what = if value.is_null() { "missing".to_owned() } else { value.to_string() };
    let what = what.chars().take(40).collect::<String>();
    (feature, format!("{param}: {what}"), flawed(feature, param, value))
}

#[test]
fn every_flaw_of_a_required_feature_closes_4010_and_shows_in_the_view() {
    let mut page = String::new();
    for feature in FEATURES {
        let config = Rig::config(|config| config.policy = require(&[feature]));
        let page = &mut page;
        with(config, |rig| async move {
            for (_, what, offer) in flaws().into_iter().filter(|(of, ..)| *of == feature) {
                let mut peer = rig.accept().await;
                peer.greet().await;
                peer.send(&offer).await;
                let (code, reason) = peer.close_frame().await;
                assert_eq!(code, 4010, "{what}");
                assert!(reason.len() <= CLOSE_REASON_BYTES_MAX, "{reason}");
                serde_json::from_str::<Value>(&reason).expect("is JSON");
                let view = rig.refused().await;
                assert_eq!((view.close_code, view.feature.as_deref()), (Some(4010), Some(feature)));
                let (shown, remedy) = (view.reason.expect("reason"), view.remedy.expect("remedy"));
                let _ = writeln!(page, "{feature}, {what}");
                let _ = writeln!(page, "  close   4010 {reason} ({} bytes)", reason.len());
                let _ = writeln!(page, "  status  refused: {shown}: {remedy}\n");
                // An operator asks for another look.
                rig.redial();
            }
        });
    }
    super::pin("refused-negotiation", &page);
}

#[test]
fn the_same_flaws_of_an_optional_feature_cost_only_the_feature() {
    for feature in FEATURES {
        let config = Rig::config(|config| config.policy = require(&[]));
        with(config, |rig| async move {
            for (_, what, offer) in flaws().into_iter().filter(|(of, ..)| *of == feature) {
                let mut peer = rig.accept().await;
                peer.greet().await;
                peer.send(&offer).await;
                let (view, _) = rig.opened().await;
                let used: Vec<&str> = view.features.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(used.len(), FEATURES.len() - 1, "{feature}, {what}: {used:?}");
                assert!(!used.contains(&feature), "{feature}, {what}");
                assert_eq!(view.frame_bytes_max.is_none(), feature == MAX_PAYLOAD);
                rig.redial();
                peer.close_frame().await;
            }
        });
    }
}

#[test]
fn an_invalid_optional_parameter_opens_with_our_default() {
    for (feature, param, value) in [
        (CONCURRENT, "default_policy", json!("prefer_me")),
        (CONCURRENT, "default_policy", json!(7)),
        (DEDUPE, "tombstone_history_pruned_window_days", json!(-1)),
        (DEDUPE, "tombstone_history_pruned_window_days", json!("long")),
    ] {
        with(Rig::config(|config| config.policy = require(&FEATURES)), |rig| async move {
            let mut peer = rig.accept().await;
            peer.greet().await;
            peer.send(&flawed(feature, param, value)).await;
            assert_eq!(rig.opened().await.0.features.len(), FEATURES.len());
        });
    }
}
