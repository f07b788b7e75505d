//! Feature parameters, accepted and refused (§15).

use super::*;
use alloc::vec;

fn feature(name: &str, params: &[(&str, Param)]) -> Feature {
    let mut all = vec![("version".to_owned(), Param::Int(1))];
    all.extend(params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Feature { name: name.to_owned(), params: all }
}

fn text(value: &str) -> Param {
    Param::Text(value.to_owned())
}

fn good_dedupe() -> Feature {
    let mode = ("mode", text("retention_scoped"));
    let days = ("dedupe_retention_days", Param::Int(30));
    feature(DEDUPE, &[mode, days, ("request_fingerprint", Param::Bool(true))])
}

fn good() -> Offer {
    Offer { features: vec![good_dedupe(), feature(CONCURRENT, &[])], missing_required: vec![] }
}

/// The good offer with one parameter of one feature replaced, or taken away.
fn with(name: &str, param: &str, value: Option<Param>) -> Offer {
    let mut offer = good();
    offer.features.push(feature(KEYPAIR_ROTATED, &[]));
    offer.features.push(feature(KEY_EPOCH, &[("max_concurrent_epochs", Param::Int(2))]));
    let bytes = Param::Int(65_536);
    let params = [("inline_bytes", bytes.clone()), ("blob_bytes", bytes)];
    offer.features.push(feature(MAX_PAYLOAD, &params));
    offer.features.push(feature(RECEIPTS, &[]));
    for feature in offer.features.iter_mut().filter(|feature| feature.name == name) {
        feature.params.retain(|(known, _)| known != param);
        feature.params.extend(value.clone().map(|value| (param.to_owned(), value)));
    }
    offer
}

fn all_required() -> FeaturePolicy {
    let require = FEATURES.iter().map(ToString::to_string).collect();
    FeaturePolicy { require, ..FeaturePolicy::default() }
}

#[test]
fn a_good_offer_is_agreed_on() {
    let agreed = evaluate(&all_required(), &with("", "", None)).expect("agreed");
    assert_eq!(agreed.retention, DedupeWindow::Days(30));
    assert_eq!(agreed.concurrent, ConnectionPolicy::PreferNewest);
    assert_eq!(agreed.max_frame_bytes, Some(65_536));
    assert!(FEATURES.iter().all(|name| agreed.has(name)));
    assert!(agreed.notes.is_empty() && !agreed.legacy);
}

#[test]
fn every_row_of_the_feature_table_is_checked() {
    use NegotiationErrorKind::{ParamBelowFloor, ParamInvalid, Unavailable};
    let int = |value| Some(Param::Int(value));
    let no = Some(Param::Bool(false));
    let cases = [
        (DEDUPE, "version", int(2), Unavailable),
        (DEDUPE, "version", int(0), Unavailable),
        (DEDUPE, "version", None, ParamInvalid),
        (DEDUPE, "version", Some(text("1")), ParamInvalid),
        (DEDUPE, "mode", None, ParamInvalid),
        (DEDUPE, "mode", Some(text("sometimes")), ParamInvalid),
        (DEDUPE, "mode", int(1), ParamInvalid),
        (DEDUPE, "dedupe_retention_days", None, ParamInvalid),
        (DEDUPE, "dedupe_retention_days", Some(Param::Other), ParamInvalid),
        (DEDUPE, "dedupe_retention_days", int(2), ParamBelowFloor),
        (DEDUPE, "dedupe_retention_days", int(-3), ParamBelowFloor),
        (DEDUPE, "request_fingerprint", None, ParamInvalid),
        (DEDUPE, "request_fingerprint", no, ParamInvalid),
        (DEDUPE, "request_fingerprint", int(1), ParamInvalid),
        (CONCURRENT, "version", int(2), Unavailable),
        (CONCURRENT, "version", None, ParamInvalid),
        (KEYPAIR_ROTATED, "version", int(2), Unavailable),
        (KEYPAIR_ROTATED, "version", None, ParamInvalid),
        (KEY_EPOCH, "version", int(9), Unavailable),
        (KEY_EPOCH, "max_concurrent_epochs", None, ParamInvalid),
        (KEY_EPOCH, "max_concurrent_epochs", int(0), ParamBelowFloor),
        (MAX_PAYLOAD, "version", int(2), Unavailable),
        (MAX_PAYLOAD, "inline_bytes", None, ParamInvalid),
        (MAX_PAYLOAD, "inline_bytes", int(1023), ParamBelowFloor),
        (MAX_PAYLOAD, "blob_bytes", Some(text("64k")), ParamInvalid),
        (MAX_PAYLOAD, "blob_bytes", int(0), ParamBelowFloor),
        (RECEIPTS, "version", int(2), Unavailable),
        (RECEIPTS, "version", None, ParamInvalid),
    ];
    for (name, param, value, kind) in cases {
        let offer = with(name, param, value.clone());
        let refusal = evaluate(&all_required(), &offer).expect_err(param);
        assert_eq!((refusal.kind, refusal.feature.as_str()), (kind, name), "{param} {value:?}");
        assert!(refusal.detail.contains(param), "{refusal}");
        // The same flaw in a feature nobody requires costs only the feature.
        let lenient = FeaturePolicy { require: vec![], ..all_required() };
        let lenient = FeaturePolicy { optional: all_required().require, ..lenient };
        let agreed = evaluate(&lenient, &offer).expect("nothing is required");
        assert!(!agreed.has(name) && agreed.notes.len() == 1, "{param}: {:?}", agreed.notes);
        assert_eq!(agreed.max_frame_bytes.is_none(), name == MAX_PAYLOAD);
        assert_eq!(agreed.retention == DedupeWindow::Permanent, name == DEDUPE);
    }
}

#[test]
fn the_smallest_allowed_parameters_are_accepted() {
    for (name, param, floor) in [
        (DEDUPE, "dedupe_retention_days", RETENTION_DAYS_MIN),
        (KEY_EPOCH, "max_concurrent_epochs", EPOCHS_MIN),
        (MAX_PAYLOAD, "inline_bytes", PAYLOAD_BYTES_MIN),
        (MAX_PAYLOAD, "blob_bytes", PAYLOAD_BYTES_MIN),
    ] {
        let offer = with(name, param, Some(Param::Int(floor)));
        assert!(evaluate(&all_required(), &offer).is_ok(), "{param} {floor}");
    }
    let endless = with(DEDUPE, "dedupe_retention_days", Some(Param::Int(i64::MAX)));
    let agreed = evaluate(&all_required(), &endless).expect("agreed");
    assert_eq!(agreed.retention, DedupeWindow::Days(u32::MAX));
}

#[test]
fn permanent_mode_needs_no_days() {
    let mut offer = with(DEDUPE, "dedupe_retention_days", None);
    offer.features[0].params.retain(|(name, _)| name != "mode");
    offer.features[0].params.push(("mode".to_owned(), text("permanent")));
    let agreed = evaluate(&FeaturePolicy::default(), &offer).expect("agreed");
    assert_eq!(agreed.retention, DedupeWindow::Permanent);
}

#[test]
fn an_invalid_optional_parameter_becomes_our_default_and_is_noted() {
    let odd = evaluate(
        &FeaturePolicy::default(),
        &with(CONCURRENT, "default_policy", Some(text("prefer_me"))),
    )
    .expect("agreed");
    assert_eq!(odd.concurrent, ConnectionPolicy::PreferNewest);
    assert_eq!(
        odd.notes,
        [
            r#"concurrent_connection_policy: invalid default_policy ("prefer_me"), taken as prefer_newest"#
        ]
    );
    let window = "tombstone_history_pruned_window_days";
    let odd = evaluate(&FeaturePolicy::default(), &with(DEDUPE, window, Some(Param::Int(-1))));
    assert_eq!(odd.expect("agreed").notes.len(), 1);
    let fine = evaluate(&FeaturePolicy::default(), &with(DEDUPE, window, Some(Param::Int(90))));
    assert!(fine.expect("agreed").notes.is_empty());
    for policy in
        [ConnectionPolicy::PreferNewest, ConnectionPolicy::PreferOldest, ConnectionPolicy::Allow]
    {
        let offer = with(CONCURRENT, "default_policy", Some(text(policy.as_str())));
        assert_eq!(evaluate(&FeaturePolicy::default(), &offer).expect("agreed").concurrent, policy);
    }
}

#[test]
fn what_is_required_and_not_there_is_unavailable() {
    let mut said = good();
    said.missing_required.push(CONCURRENT.to_owned());
    let mut unsaid = good();
    unsaid.features.pop();
    for offer in [said, unsaid] {
        let refusal = evaluate(&FeaturePolicy::default(), &offer).expect_err("refused");
        assert_eq!(refusal.kind, NegotiationErrorKind::Unavailable);
        assert_eq!(refusal.feature, CONCURRENT);
    }
    let unknown =
        FeaturePolicy { require: vec!["telepathy".to_owned()], ..FeaturePolicy::default() };
    let mut offer = good();
    offer.features.push(feature("telepathy", &[]));
    let refusal = evaluate(&unknown, &offer).expect_err("refused");
    assert_eq!(refusal.detail, "this daemon does not know it");
    // What others miss is none of our business.
    let mut others = good();
    others.missing_required.push("telepathy".to_owned());
    assert!(evaluate(&FeaturePolicy::default(), &others).is_ok());
}

#[test]
fn silence_is_a_missing_feature_unless_legacy_brokers_are_allowed() {
    let Silence::Missing(refusal) = on_no_answer(&FeaturePolicy::default(), false) else {
        panic!("let in")
    };
    assert_eq!(
        (refusal.kind, refusal.feature.as_str()),
        (NegotiationErrorKind::Unavailable, DEDUPE)
    );
    let lenient = FeaturePolicy { allow_legacy: true, ..FeaturePolicy::default() };
    let Silence::Legacy(agreed) = on_no_answer(&lenient, false) else { panic!("refused") };
    assert_eq!(agreed, Negotiated::legacy());
    assert!(agreed.legacy && !agreed.has(DEDUPE));
    assert_eq!(agreed.notes, [LEGACY_NOTE]);
    // The door is open to brokers that do not negotiate, not to those that fail to: these are not
    // told of it.
    let answered = evaluate(&lenient, &Offer::default()).expect_err("refused");
    assert!(!answered.remedy().contains("--allow-legacy-broker"), "{}", answered.remedy());
}

#[test]
fn a_broker_that_said_it_negotiates_is_slow_and_neither_refused_nor_legacy() {
    let lenient = FeaturePolicy { allow_legacy: true, ..FeaturePolicy::default() };
    let undemanding = FeaturePolicy { require: vec![], ..FeaturePolicy::default() };
    for policy in [FeaturePolicy::default(), lenient, undemanding] {
        assert_eq!(on_no_answer(&policy, true), Silence::Slow);
    }
}

#[test]
fn a_close_reason_is_json_and_fits_its_frame() {
    let refusal = evaluate(
        &FeaturePolicy::default(),
        &with(DEDUPE, "dedupe_retention_days", Some(Param::Int(2))),
    )
    .expect_err("refused");
    assert_eq!(
        refusal.close_reason_json(),
        r#"{"close_reason":{"kind":"feature_param_below_floor","feature":"client_message_id_dedupe","detail":"dedupe_retention_days"}}"#
    );
    let short = NegotiationError { feature: "f".to_owned(), ..refusal };
    assert_eq!(
        short.close_reason_json(),
        r#"{"close_reason":{"kind":"feature_param_below_floor","feature":"f","detail":"dedupe_retention_days is 2; at least 3 is re"}}"#
    );
    for detail in ["é".repeat(99), "\"".repeat(99), "\u{1}".repeat(99), "𝄞a\\".repeat(40)] {
        for name in ["f", "ff", "fff", DEDUPE, &"long".repeat(40), &"\"é".repeat(60)] {
            let refusal =
                NegotiationError::of(NegotiationErrorKind::Unavailable, name, detail.clone());
            let reason = refusal.close_reason_json();
            assert!(reason.len() <= CLOSE_REASON_BYTES_MAX, "{reason}");
            assert!(reason.len() > CLOSE_REASON_BYTES_MAX - 6, "{reason}");
            assert!(reason.ends_with(r#""}}"#), "{reason}");
            assert!(reason.chars().all(|character| character >= ' '), "{reason}");
        }
    }
}

#[test]
fn a_max_age_the_window_cannot_cover_is_refused_by_name() {
    let week = Negotiated { retention: DedupeWindow::Days(7), ..Negotiated::none() };
    assert_eq!(week.max_age_hours(None), Ok(144));
    let refused = week.max_age_hours(Some(168)).expect_err("refused");
    assert_eq!(refused, MaxAgeRefused { hours: 168, hours_max: 167 });
    assert!(refused.to_string().starts_with(MAX_AGE_REASON), "{refused}");
    assert_eq!(Negotiated::legacy().max_age_hours(Some(720)), Ok(720));
}

#[test]
fn a_broker_says_what_it_lacks_once_each() {
    let asked: Vec<String> = ["b", DEDUPE, "a", "b"].iter().map(ToString::to_string).collect();
    assert_eq!(missing_required(&asked, &[DEDUPE]), ["b", "a"]);
    assert!(missing_required(&[], &FEATURES).is_empty());
}
