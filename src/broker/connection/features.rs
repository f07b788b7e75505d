//! What this broker offers (§15).

use claudemesh_base::wire::FRAME_BYTES_MAX;
use claudemesh_base::wire::features::{Feature, FeatureRequest, FeatureResponse};
use claudemesh_fsm::negotiate::{
    CONCURRENT, ConnectionPolicy, DEDUPE, MAX_PAYLOAD, RECEIPTS, VERSION, missing_required,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Offline members are listed too, with `online: false` (§3.3).
pub(crate) const OFFLINE_ROSTER: &str = "offline_roster";

/// The answer to a negotiation.
pub(crate) fn response(
    dedupe_retention_days: Option<u32>,
    policy: ConnectionPolicy,
    request: &FeatureRequest,
) -> FeatureResponse {
    let dedupe = match dedupe_retention_days {
        Some(days) => json!({
            "version": VERSION,
            "mode": "retention_scoped",
            "dedupe_retention_days": days,
            "request_fingerprint": true,
        }),
        None => json!({"version": VERSION, "mode": "permanent", "request_fingerprint": true}),
    };
    let supported: BTreeMap<String, Feature> = [
        (DEDUPE, dedupe),
        (CONCURRENT, json!({"version": VERSION, "default_policy": policy.as_str()})),
        (
            MAX_PAYLOAD,
            json!({
                "version": VERSION,
                "inline_bytes": FRAME_BYTES_MAX,
                "blob_bytes": FRAME_BYTES_MAX,
            }),
        ),
        (OFFLINE_ROSTER, json!({"version": VERSION})),
        (RECEIPTS, json!({"version": VERSION})),
    ]
    .into_iter()
    .map(|(name, params)| (name.to_owned(), feature(params)))
    .collect();
    let names: Vec<&str> = supported.keys().map(String::as_str).collect();
    let missing_required = missing_required(&request.require, &names);
    FeatureResponse { supported, missing_required }
}

/// Whether a client asked for a feature by name.
pub(crate) fn asks_for(request: &FeatureRequest, name: &str) -> bool {
    request.require.iter().chain(&request.optional).any(|asked| asked == name)
}

fn feature(params: Value) -> Feature {
    match params {
        Value::Object(params) => Feature { params },
        _ => Feature::default(),
    }
}
