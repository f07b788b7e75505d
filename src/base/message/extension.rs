//! What travels beside a message's body, as JSON: `meta` and the message that is answered (§3.6).

use super::canonical::{self, MetaError};
use serde_json::{Map, Value};

/// The only version of [`Extension`] there is.
pub const EXTENSION_VERSION: u64 = 1;

/// What travels beside the body of a direct message, in a box of its own (§3.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extension {
    /// Canonical JSON of `meta`.
    pub meta: Option<String>,
    /// The message this one answers.
    pub reply_to_id: Option<String>,
}

/// Why a second box says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// No box between these keys, or a damaged one.
    #[error("the second box does not open")]
    Unopened,
    /// Not the JSON of an extension.
    #[error("the second box is not an extension: {0}")]
    Malformed(MetaError),
    /// A `v` we do not know.
    #[error("the second box has a version this build predates")]
    UnknownVersion,
    /// This field has the wrong type.
    #[error("the second box has a malformed `{0}`")]
    BadField(&'static str),
}

impl Extension {
    /// Whether there is nothing to send, so that no second box is needed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.meta.is_none() && self.reply_to_id.is_none()
    }

    /// The JSON that is sealed. Its length plus [`TAG_BYTES`](super::seal::TAG_BYTES) counts against the frame limit.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = format!(r#"{{"v":{EXTENSION_VERSION}"#);
        if let Some(meta) = &self.meta {
            json += r#","meta":"#;
            json += meta;
        }
        if let Some(id) = &self.reply_to_id {
            json += r#","reply_to_id":"#;
            json += &Value::from(id.as_str()).to_string();
        }
        json + "}"
    }

    /// Reads the JSON of a second box. Unknown fields are left for later versions; `meta` comes
    /// back canonical whatever its sender wrote, under the same rules as a caller's.
    ///
    /// # Errors
    /// When it is not JSON, has another version, or a field of the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, ExtensionError> {
        let not_utf8 = |_| ExtensionError::Malformed(MetaError::not_utf8());
        let text = std::str::from_utf8(json).map_err(not_utf8)?;
        let mut fields = canonical::parse_object(text)
            .map_err(ExtensionError::Malformed)?
            .ok_or(ExtensionError::UnknownVersion)?;
        if fields.get("v").and_then(Value::as_u64) != Some(EXTENSION_VERSION) {
            return Err(ExtensionError::UnknownVersion);
        }
        Ok(Self { meta: take_meta(&mut fields)?, reply_to_id: take_reply(&mut fields)? })
    }
}

fn take_meta(fields: &mut Map<String, Value>) -> Result<Option<String>, ExtensionError> {
    match fields.remove("meta") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(meta)) => Ok(Some(canonical::to_canonical(&Value::Object(meta)))),
        Some(_) => Err(ExtensionError::BadField("meta")),
    }
}

fn take_reply(fields: &mut Map<String, Value>) -> Result<Option<String>, ExtensionError> {
    match fields.remove("reply_to_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(ExtensionError::BadField("reply_to_id")),
    }
}
