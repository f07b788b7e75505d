//! Request bodies. The daemon reads them field by field and names whatever is wrong; its client
//! writes the same types.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is wrong with a body. The text names the field and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON.
    #[error("the body must be JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object whose members are each named once.
    #[error("the body must be one JSON object: {0}")]
    NotAnObject(String),
    /// A field that must be there is not.
    #[error("`{field}` is missing: it must be {expected}")]
    Missing { field: &'static str, expected: &'static str },
    /// A field is there, and is something else.
    #[error("`{field}` must be {expected}")]
    Wrong { field: &'static str, expected: &'static str },
}

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

/// A type that a field of a body can have.
trait Field: Sized {
    /// Reads the field; `raw` is `None` where it is absent or `null`.
    fn read(
        name: &'static str,
        raw: Option<&RawValue>,
        expected: &'static str,
    ) -> Result<Self, BodyError>;

    /// Whether the field is left out when the body is written.
    fn is_absent(&self) -> bool {
        false
    }
}

fn value<T: DeserializeOwned>(
    field: &'static str,
    raw: &RawValue,
    expected: &'static str,
) -> Result<T, BodyError> {
    serde_json::from_str(raw.get()).map_err(|_| BodyError::Wrong { field, expected })
}

impl<T: DeserializeOwned> Field for Option<T> {
    fn read(
        name: &'static str,
        raw: Option<&RawValue>,
        expected: &'static str,
    ) -> Result<Self, BodyError> {
        raw.map(|raw| value(name, raw, expected)).transpose()
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl Field for bool {
    fn read(
        name: &'static str,
        raw: Option<&RawValue>,
        expected: &'static str,
    ) -> Result<Self, BodyError> {
        Ok(Option::read(name, raw, expected)?.unwrap_or_default())
    }
}

/// A field of this type must be there.
macro_rules! required {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(
                name: &'static str,
                raw: Option<&RawValue>,
                expected: &'static str,
            ) -> Result<Self, BodyError> {
                let missing = BodyError::Missing { field: name, expected };
                raw.map_or(Err(missing), |raw| value(name, raw, expected))
            }
        }
    )*};
}
required!(String, Vec<String>);

/// Declares a body once: each field with its type and with what it must be, in words.
macro_rules! body {
    (
        $(#[$about_body:meta])* $name:ident;
        $($(#[$about:meta])* $field:ident: $type:ty = $expected:literal,)*
    ) => {
        $(#[$about_body])*
        #[derive(Debug, Clone, Default, Serialize)]
        pub struct $name {
            $($(#[$about])* #[serde(skip_serializing_if = "Field::is_absent")] pub $field: $type,)*
        }

        impl RequestBody for $name {
            fn parse(body: &[u8]) -> Result<Self, BodyError> {
                #[derive(Deserialize)]
                struct Raw<'a> {
                    $(#[serde(borrow)] $field: Option<&'a RawValue>,)*
                }
                let raw: Raw<'_> = parse(body)?;
                Ok(Self { $($field: Field::read(stringify!($field), raw.$field, $expected)?,)* })
            }
        }
    };
}

/// A body of a request.
pub trait RequestBody: Sized {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// Names the first field that is missing or of the wrong type.
    fn parse(body: &[u8]) -> Result<Self, BodyError>;
}

body! {
    /// `POST /v1/send` (§3.3), each field of the right JSON type; what they mean is not checked here.
    SendBody;
    to: String = "a string: a public key, a name, @group, #topic or *",
    message: String = "a non-empty string",
    mesh: Option<String> = "a string: the slug of a mesh you joined",
    priority: Option<String> = "\"now\", \"next\" or \"low\"",
    /// As it came: canonicalising must see duplicate keys and large integers.
    meta: Option<Box<RawValue>> = "JSON",
    reply_to_id: Option<String> = "a string: a message id",
    client_message_id: Option<String> = "a string",
    mentions: Option<Vec<String>> = "a list of names",
}

body! {
    /// `POST /v1/outbox/requeue` (§4.5.3).
    RequeueBody;
    id: String = "a string: the row's `id` in GET /v1/outbox",
    new_client_message_id: Option<String> = "a string",
    payload: Option<String> = "a string: the new message",
    aborted_by: Option<String> = "a string: who asks",
    force: bool = "true or false",
}

body! {
    /// `POST /v1/outbox/abort` (§4.5.3).
    AbortBody;
    id: String = "a string: the row's `id` in GET /v1/outbox",
    aborted_by: Option<String> = "a string: who asks",
}

body! {
    /// `POST /v1/outbox/prune` (§4.5.2).
    PruneBody;
    before: String = "a string: a time such as 2024-11-22T01:17:46.591Z",
    confirm: bool = "true or false",
    cursor: Option<String> = "a string: a `next_cursor` of this route",
}

body! {
    /// `POST /v1/inbox/seen` (§3.4).
    SeenBody;
    /// The `id`s of inbox messages.
    ids: Vec<String> = "a list of strings: `id`s of GET /v1/inbox",
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
        let meta = parsed.meta.as_ref().map(|meta| meta.get());
        assert_eq!(meta, Some(r#"{"b":1,"a":12345678901234567890}"#));
    }

    #[test]
    fn what_the_client_writes_the_daemon_reads() {
        let body = AbortBody { id: "x".into(), aborted_by: None };
        let text = serde_json::to_string(&body).expect("text keys");
        assert_eq!(text, r#"{"id":"x"}"#);
        assert_eq!(AbortBody::parse(text.as_bytes()).expect("parses").id, "x");
    }
}
