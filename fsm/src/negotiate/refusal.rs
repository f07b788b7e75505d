//! Why a broker will not do, and how that is said in the 123 bytes a close frame has room for.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;

/// The WebSocket close code of a failed negotiation.
pub const CLOSE_CODE: u16 = 4010;
/// The longest close reason RFC 6455 has room for, in bytes.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// The reason shown when `outbox.max_age_hours` cannot be kept with a mesh (§4.9).
pub const MAX_AGE_REASON: &str = "outbox_max_age_above_dedupe_window";

/// In which way a required feature failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegotiationErrorKind {
    /// It is not there, or only in a version we do not speak.
    Unavailable,
    /// A required parameter is missing or of the wrong kind.
    ParamInvalid,
    /// A required parameter is smaller than we can work with.
    ParamBelowFloor,
}

impl NegotiationErrorKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "feature_unavailable",
            Self::ParamInvalid => "feature_param_invalid",
            Self::ParamBelowFloor => "feature_param_below_floor",
        }
    }
}

/// A required feature that will not do. The mesh's link stops in state `refused`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiationError {
    /// In which way.
    pub kind: NegotiationErrorKind,
    /// Which feature.
    pub feature: String,
    /// What exactly, uncut.
    pub detail: String,
    /// Whether the broker did not answer at all: such a one can be let in all the same.
    pub is_silence: bool,
}

impl NegotiationError {
    pub(super) fn unavailable(feature: &str, detail: String) -> Self {
        Self::of(NegotiationErrorKind::Unavailable, feature, detail)
    }

    pub(super) fn silence(feature: &str) -> Self {
        Self { is_silence: true, ..Self::unavailable(feature, "no answer".to_owned()) }
    }

    pub(super) fn of(kind: NegotiationErrorKind, feature: &str, detail: String) -> Self {
        Self { kind, feature: feature.to_owned(), detail, is_silence: false }
    }

    /// The reason of the close frame that goes with [`CLOSE_CODE`]: JSON, at most
    /// [`CLOSE_REASON_BYTES_MAX`] bytes. What does not fit is cut from the end of `detail`, and
    /// only then from `feature`.
    #[must_use]
    pub fn close_reason_json(&self) -> String {
        let kind = self.kind.as_str();
        let (mut feature, mut detail) = (String::new(), String::new());
        let bare = reason_json(kind, "", "").len();
        escape_within(&self.feature, CLOSE_REASON_BYTES_MAX - bare, &mut feature);
        let room = CLOSE_REASON_BYTES_MAX - bare - feature.len();
        escape_within(&self.detail, room, &mut detail);
        reason_json(kind, &feature, &detail)
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self.kind {
            _ if self.is_silence => {
                "this broker does not negotiate: accept it as it is with `claudemesh daemon up --allow-legacy-broker=<slug>`, or by features.allow_legacy_broker in config.toml and `claudemesh daemon reload`"
            }
            NegotiationErrorKind::Unavailable => {
                "use a broker that has the feature, or update this one"
            }
            NegotiationErrorKind::ParamInvalid | NegotiationErrorKind::ParamBelowFloor => {
                "ask the broker's operator to correct the feature's parameters"
            }
        }
    }
}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind.as_str(), self.feature, self.detail)
    }
}

impl core::error::Error for NegotiationError {}

/// An `outbox.max_age_hours` that outlives what the broker remembers: a retry that old could
/// double its message, so this mesh is refused (§4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxAgeRefused {
    /// What the configuration asks for, in hours.
    pub hours: u64,
    /// The most this mesh allows, in hours.
    pub hours_max: u64,
}

impl fmt::Display for MaxAgeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hours, hours_max } = self;
        write!(
            f,
            "{MAX_AGE_REASON}: outbox.max_age_hours is {hours}, this mesh allows {hours_max} at most"
        )
    }
}

impl core::error::Error for MaxAgeRefused {}

fn reason_json(kind: &str, feature: &str, detail: &str) -> String {
    format!(r#"{{"close_reason":{{"kind":"{kind}","feature":"{feature}","detail":"{detail}"}}}}"#)
}

/// Appends `text`, escaped for a JSON string, as far as whole characters fit in `room` bytes.
fn escape_within(text: &str, room: usize, out: &mut String) {
    for character in text.chars() {
        let mut one = String::new();
        match character {
            '"' | '\\' => one.extend(['\\', character]),
            control if control < ' ' => one = format!("\\u{:04x}", control as u32),
            plain => one.push(plain),
        }
        if out.len() + one.len() > room {
            return;
        }
        out.push_str(&one);
    }
}
