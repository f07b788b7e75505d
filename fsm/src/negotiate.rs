//! Whether a broker's features will do (§15).
//!
//! A mesh is only used when its broker promises what delivery rests on: that it remembers ids, and
//! that it says what happens when one member connects twice. This file judges such an offer, as
//! neutral data: it reads no JSON, and it does not close the connection it refuses.

mod offer;
mod refusal;

pub use offer::{Feature, Offer, Param};
pub use refusal::{
    CLOSE_CODE, CLOSE_REASON_BYTES_MAX, MAX_AGE_REASON, MaxAgeRefused, NegotiationError,
    NegotiationErrorKind,
};

use crate::retry::{self, DedupeWindow};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use offer::{at_least, invalid, note};

/// The broker keeps one message per member and id (§4.5b).
pub const DEDUPE: &str = "client_message_id_dedupe";
/// The broker says what two connections of one member do to each other (§15.6).
pub const CONCURRENT: &str = "concurrent_connection_policy";
/// The broker announces a member's new key.
pub const KEYPAIR_ROTATED: &str = "member_keypair_rotated_event";
/// The broker keeps keys of several epochs.
pub const KEY_EPOCH: &str = "key_epoch";
/// The broker says how large a frame may be (§3.6).
pub const MAX_PAYLOAD: &str = "max_payload";

/// The broker tells a sender what became of its messages (§4.13).
pub const RECEIPTS: &str = "delivery_receipts";

/// Every feature this version can judge. A required feature that is not here is always missing.
pub const FEATURES: [&str; 6] =
    [DEDUPE, CONCURRENT, KEYPAIR_ROTATED, KEY_EPOCH, MAX_PAYLOAD, RECEIPTS];

/// The one version of every feature this version speaks.
pub const VERSION: i64 = 1;
/// The fewest days a broker may remember ids for.
pub const RETENTION_DAYS_MIN: i64 = 3;
/// The smallest frame and blob limits a broker may have, in bytes.
pub const PAYLOAD_BYTES_MIN: i64 = 1024;
/// The fewest key epochs a broker may keep.
pub const EPOCHS_MIN: i64 = 1;

/// What `status` says of a broker that knows no negotiation and was let in (§15).
pub const LEGACY_NOTE: &str = "legacy broker: duplicates possible on retry; receivers deduplicate";

/// What we ask of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeaturePolicy {
    /// Features without which the mesh is not used.
    pub require: Vec<String>,
    /// Features that are used when they are there.
    pub optional: Vec<String>,
    /// Accept a broker that does not answer at all.
    pub allow_legacy: bool,
}

impl Default for FeaturePolicy {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            require: names(&[DEDUPE, CONCURRENT]),
            optional: names(&[KEYPAIR_ROTATED, KEY_EPOCH, MAX_PAYLOAD, RECEIPTS]),
            allow_legacy: false,
        }
    }
}

/// What a second connection of one member key does to the first (§15.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionPolicy {
    /// It closes the first with 4003.
    #[default]
    PreferNewest,
    /// It is refused with 4004.
    PreferOldest,
    /// Both stay.
    Allow,
}

impl ConnectionPolicy {
    /// The word on the wire and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreferNewest => "prefer_newest",
            Self::PreferOldest => "prefer_oldest",
            Self::Allow => "allow_concurrent",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::PreferNewest, Self::PreferOldest, Self::Allow]
            .into_iter()
            .find(|policy| policy.as_str() == text)
    }
}

/// What a broker and this daemon agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// How long the broker remembers ids. [`DedupeWindow::Permanent`] also where it does not
    /// deduplicate at all: there is no window for a row to outlive.
    pub retention: DedupeWindow,
    /// What a second connection of our key does.
    pub concurrent: ConnectionPolicy,
    /// The most bytes of one frame, when the broker says (§3.6).
    pub max_frame_bytes: Option<u64>,
    /// The features in use, with their versions, in the order of the policy.
    pub features: Vec<(String, i64)>,
    /// What was ignored or replaced by our default: to be logged.
    pub notes: Vec<String>,
    /// Whether the broker knows no negotiation and was let in all the same.
    pub legacy: bool,
}

impl Negotiated {
    fn none() -> Self {
        Self {
            retention: DedupeWindow::Permanent,
            concurrent: ConnectionPolicy::default(),
            max_frame_bytes: None,
            features: Vec::new(),
            notes: Vec::new(),
            legacy: false,
        }
    }

    /// What holds with a broker of today's network: no feature at all.
    #[must_use]
    pub fn legacy() -> Self {
        Self { legacy: true, notes: Vec::from([LEGACY_NOTE.to_owned()]), ..Self::none() }
    }

    /// Whether a feature is in use.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.features.iter().any(|(known, _)| known == name)
    }

    /// How old a row may get before it expires on this mesh, in hours (§4.9).
    ///
    /// # Errors
    /// When `outbox.max_age_hours` is more than the broker's dedupe window covers.
    pub fn max_age_hours(&self, override_hours: Option<u64>) -> Result<u64, MaxAgeRefused> {
        retry::max_age_hours(self.retention, override_hours).map_err(|above| MaxAgeRefused {
            hours: override_hours.unwrap_or_default(),
            hours_max: above.hours_max,
        })
    }
}

/// Judges a broker's answer.
///
/// # Errors
/// Names the first required feature that is missing, of another version, invalid or too small.
pub fn evaluate(policy: &FeaturePolicy, offer: &Offer) -> Result<Negotiated, NegotiationError> {
    let mut agreed = Negotiated::none();
    for name in &policy.require {
        let feature = offered(offer, name)?;
        accept(feature, &mut agreed)?;
    }
    for name in policy.optional.iter().filter(|name| !policy.require.contains(name)) {
        let Ok(feature) = offered(offer, name) else { continue };
        // Each feature writes its terms only once all of them are good.
        if let Err(refusal) = accept(feature, &mut agreed) {
            agreed.notes.push(format!("optional feature not used: {refusal}"));
        }
    }
    Ok(agreed)
}

/// What a broker's silence means, once the deadline has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// It knows no negotiation, and is let in all the same.
    Legacy(Negotiated),
    /// It knows no negotiation, so everything required is missing.
    Missing(NegotiationError),
    /// It said that it negotiates: it is slow, and is asked again on another connection.
    Slow,
}

/// Judges a broker that did not answer in time (§15). `negotiates` is whether its `hello_ack` said
/// that it would: silence alone is weak evidence, and must not refuse such a broker for ever, nor
/// let it in as one that does not deduplicate.
#[must_use]
pub fn on_no_answer(policy: &FeaturePolicy, negotiates: bool) -> Silence {
    match policy.require.first() {
        _ if negotiates => Silence::Slow,
        Some(feature) if !policy.allow_legacy => {
            Silence::Missing(NegotiationError::silence(feature))
        }
        _ => Silence::Legacy(Negotiated::legacy()),
    }
}

/// The broker's side: which of the features a daemon requires are not among ours. In the order
/// asked, each once.
#[must_use]
pub fn missing_required(required: &[String], supported: &[&str]) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    for name in required {
        if !supported.contains(&name.as_str()) && !missing.contains(name) {
            missing.push(name.clone());
        }
    }
    missing
}

fn offered<'a>(offer: &'a Offer, name: &str) -> Result<&'a Feature, NegotiationError> {
    if offer.missing_required.iter().any(|missing| missing == name) {
        return Err(NegotiationError::unavailable(name, "the broker does not have it".to_owned()));
    }
    if !FEATURES.contains(&name) {
        return Err(NegotiationError::unavailable(name, "this daemon does not know it".to_owned()));
    }
    offer
        .features
        .iter()
        .find(|feature| feature.name == name)
        .ok_or_else(|| NegotiationError::unavailable(name, "not offered".to_owned()))
}

fn accept(feature: &Feature, agreed: &mut Negotiated) -> Result<(), NegotiationError> {
    let name = feature.name.as_str();
    match feature.param("version") {
        Some(Param::Int(VERSION)) => {}
        // A version we do not speak is a feature we do not have.
        Some(Param::Int(other)) => {
            return Err(NegotiationError::unavailable(
                name,
                format!("version {other}, need {VERSION}"),
            ));
        }
        other => return Err(invalid(name, "version", other)),
    }
    match name {
        DEDUPE => dedupe(feature, agreed)?,
        CONCURRENT => concurrent(feature, agreed),
        KEY_EPOCH => {
            at_least(feature, "max_concurrent_epochs", EPOCHS_MIN)?;
        }
        MAX_PAYLOAD => {
            let inline_bytes = at_least(feature, "inline_bytes", PAYLOAD_BYTES_MIN)?;
            at_least(feature, "blob_bytes", PAYLOAD_BYTES_MIN)?;
            agreed.max_frame_bytes = Some(inline_bytes);
        }
        _ => {}
    }
    if !agreed.has(name) {
        agreed.features.push((name.to_owned(), VERSION));
    }
    Ok(())
}

fn dedupe(feature: &Feature, agreed: &mut Negotiated) -> Result<(), NegotiationError> {
    let retention = match feature.text("mode") {
        Some("permanent") => DedupeWindow::Permanent,
        Some("retention_scoped") => {
            let days = at_least(feature, "dedupe_retention_days", RETENTION_DAYS_MIN)?;
            DedupeWindow::Days(u32::try_from(days).unwrap_or(u32::MAX))
        }
        _ => return Err(invalid(DEDUPE, "mode", feature.param("mode"))),
    };
    match feature.param("request_fingerprint") {
        Some(Param::Bool(true)) => {}
        other => return Err(invalid(DEDUPE, "request_fingerprint", other)),
    }
    let window = "tombstone_history_pruned_window_days";
    if feature.param(window).is_some() && feature.int(window).is_none_or(|days| days < 0) {
        agreed.notes.push(note(feature, window, "ignored"));
    }
    agreed.retention = retention;
    Ok(())
}

fn concurrent(feature: &Feature, agreed: &mut Negotiated) {
    let name = "default_policy";
    match feature.text(name).and_then(ConnectionPolicy::parse) {
        Some(policy) => agreed.concurrent = policy,
        None if feature.param(name).is_none() => {}
        None => {
            let default = ConnectionPolicy::default().as_str();
            agreed.notes.push(note(feature, name, &format!("taken as {default}")));
        }
    }
}

#[cfg(test)]
mod tests;
