//! Request bodies, read field by field: whatever is wrong is named.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use std::fmt;

/// What is wrong with a body. The text names the field and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// Not JSON.
    NotJson(String),
    /// JSON, but not an object whose members are each named once.
    NotAnObject(String),
    /// A field that must be there is not.
    Missing {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A field is there, and is something else.
    Wrong {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "the body must be JSON: {why}"),
            Self::NotAnObject(why) => write!(f, "the body must be one JSON object: {why}"),
            Self::Missing { field, expected } => {
                write!(f, "`{field}` is missing: it must be {expected}")
            }
            Self::Wrong { field, expected } => write!(f, "`{field}` must be {expected}"),
        }
    }
}

impl std::error::Error for BodyError {}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    // serde would take a list for the object's members in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        let is_json = serde_json::from_slice::<IgnoredAny>(body);
        let why = "it begins with something else than `{`".to_owned();
        return Err(is_json.map_or_else(
            |error| BodyError::NotJson(error.to_string()),
            |_| BodyError::NotAnObject(why),
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        let why = error.to_string();
        if error.is_data() { BodyError::NotAnObject(why) } else { BodyError::NotJson(why) }
    })
}

fn optional<T: DeserializeOwned>(
    field: &'static str,
    raw: Option<&RawValue>,
    expected: &'static str,
) -> Result<Option<T>, BodyError> {
    match raw {
        None => Ok(None),
        Some(raw) => {
            serde_json::from_str(raw.get()).map_err(|_| BodyError::Wrong { field, expected })
        }
    }
}

fn required<T: DeserializeOwned>(
    field: &'static str,
    raw: Option<&RawValue>,
    expected: &'static str,
) -> Result<T, BodyError> {
    optional(field, raw, expected)?.ok_or(BodyError::Missing { field, expected })
}

/// `POST /v1/send` (§3.3), each field of the right JSON type; what they mean is not checked here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendBody {
    pub to: String,
    pub message: String,
    pub mesh: Option<String>,
    pub priority: Option<String>,
    /// As it came: canonicalising must see duplicate keys and large integers.
    pub meta: Option<String>,
    pub reply_to_id: Option<String>,
    pub client_message_id: Option<String>,
    pub mentions: Vec<String>,
}

#[derive(Deserialize)]
struct RawSend<'a> {
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    mesh: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    reply_to_id: Option<&'a RawValue>,
    #[serde(borrow)]
    client_message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    mentions: Option<&'a RawValue>,
}

impl SendBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// Names the first field that is missing or of the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawSend<'_> = parse(body)?;
        Ok(Self {
            to: required("to", raw.to, "a string: a public key, a name, @group, #topic or *")?,
            message: required("message", raw.message, "a non-empty string")?,
            mesh: optional("mesh", raw.mesh, "a string: the slug of a mesh you joined")?,
            priority: optional("priority", raw.priority, "\"now\", \"next\" or \"low\"")?,
            meta: raw.meta.map(|meta| meta.get().to_owned()),
            reply_to_id: optional("reply_to_id", raw.reply_to_id, "a string: a message id")?,
            client_message_id: optional("client_message_id", raw.client_message_id, "a string")?,
            mentions: optional("mentions", raw.mentions, "a list of names")?.unwrap_or_default(),
        })
    }
}

/// `POST /v1/outbox/requeue` (§4.5.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequeueBody {
    pub id: String,
    pub new_client_message_id: Option<String>,
    pub payload: Option<String>,
    pub aborted_by: Option<String>,
    pub force: bool,
}

#[derive(Deserialize)]
struct RawRequeue<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    new_client_message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    aborted_by: Option<&'a RawValue>,
    #[serde(borrow)]
    force: Option<&'a RawValue>,
}

impl RequeueBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// Names the first field that is missing or of the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawRequeue<'_> = parse(body)?;
        Ok(Self {
            id: required("id", raw.id, "a string: the row's `id` in GET /v1/outbox")?,
            new_client_message_id: optional(
                "new_client_message_id",
                raw.new_client_message_id,
                "a string",
            )?,
            payload: optional("payload", raw.payload, "a string: the new message")?,
            aborted_by: optional("aborted_by", raw.aborted_by, "a string: who asks")?,
            force: optional("force", raw.force, "true or false")?.unwrap_or_default(),
        })
    }
}

/// `POST /v1/outbox/abort` (§4.5.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AbortBody {
    pub id: String,
    pub aborted_by: Option<String>,
}

#[derive(Deserialize)]
struct RawAbort<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    aborted_by: Option<&'a RawValue>,
}

impl AbortBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// Names the first field that is missing or of the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawAbort<'_> = parse(body)?;
        Ok(Self {
            id: required("id", raw.id, "a string: the row's `id` in GET /v1/outbox")?,
            aborted_by: optional("aborted_by", raw.aborted_by, "a string: who asks")?,
        })
    }
}

/// `POST /v1/outbox/prune` (§4.5.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneBody {
    pub before: String,
    pub confirm: bool,
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct RawPrune<'a> {
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    confirm: Option<&'a RawValue>,
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
}

impl PruneBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// Names the first field that is missing or of the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawPrune<'_> = parse(body)?;
        Ok(Self {
            before: required(
                "before",
                raw.before,
                "a string: a time such as 2024-11-22T01:17:46.591Z",
            )?,
            confirm: optional("confirm", raw.confirm, "true or false")?.unwrap_or_default(),
            cursor: optional("cursor", raw.cursor, "a string: a `next_cursor` of this route")?,
        })
    }
}

/// `POST /v1/inbox/seen` (§3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenBody {
    /// The `id`s of inbox messages.
    pub ids: Vec<String>,
}

#[derive(Deserialize)]
struct RawSeen<'a> {
    #[serde(borrow)]
    ids: Option<&'a RawValue>,
}

impl SeenBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// When `ids` is missing or of the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawSeen<'_> = parse(body)?;
        Ok(Self { ids: required("ids", raw.ids, "a list of strings: `id`s of GET /v1/inbox")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let error = |body: &str| SendBody::parse(body.as_bytes()).expect_err(body).to_string();
        assert_eq!(
            error(r#"{"message":"x"}"#),
            "`to` is missing: it must be a string: a public key, a name, @group, #topic or *"
        );
        assert_eq!(error(r#"{"to":"a","message":7}"#), "`message` must be a non-empty string");
        assert_eq!(
            error(r#"{"to":"a","message":"x","priority":1}"#),
            "`priority` must be \"now\", \"next\" or \"low\""
        );
        assert!(error(r#"{"to":"a","to":"b","message":"x"}"#).contains("duplicate field `to`"));
        let list = r#"["bob","x",null,null,null,null,null,null]"#;
        assert!(error(list).starts_with("the body must be one JSON object"));
        assert!(error("[]").starts_with("the body must be one JSON object"));
        assert!(error("nonsense").starts_with("the body must be JSON"));
        assert!(error("").starts_with("the body must be JSON"));
    }

    #[test]
    fn unknown_fields_are_ignored_and_null_is_absent() {
        let body = br#"{"to":"a","message":"x","mesh":null,"later":{"a":[1]}}"#;
        let parsed = SendBody::parse(body).expect("parses");
        assert_eq!((parsed.to.as_str(), parsed.mesh), ("a", None));
    }

    #[test]
    fn meta_is_kept_as_it_came() {
        let body = br#"{"to":"a","message":"x","meta":{"b":1,"a":12345678901234567890}}"#;
        let parsed = SendBody::parse(body).expect("parses");
        assert_eq!(parsed.meta.as_deref(), Some(r#"{"b":1,"a":12345678901234567890}"#));
    }
}
