//! A client's text as a frame, or what can still be said about text that is none.

use claudemesh_base::wire::ClientFrame;
use serde::Deserialize;

/// What a text was.
pub(crate) enum Parsed {
    Frame(ClientFrame),
    /// Not a frame we can read: its type and id as far as they can be seen, and what is wrong.
    Malformed {
        kind: Option<String>,
        id: Option<String>,
        why: String,
    },
}

#[derive(Deserialize, Default)]
struct Outline {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
}

/// Reads one frame.
pub(crate) fn parse(text: &str) -> Parsed {
    match serde_json::from_str(text) {
        Ok(frame) => Parsed::Frame(frame),
        Err(error) => {
            let Outline { kind, id } = serde_json::from_str(text).unwrap_or_default();
            Parsed::Malformed { kind, id, why: error.to_string() }
        }
    }
}
