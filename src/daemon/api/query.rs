//! Query strings and cursors: a malformed parameter is a 400, not ignored (§3.4).

use super::Request;
use super::reply::Problem;
use claudemesh_base::runtime::parse_iso;
use claudemesh_fsm::id::Millis;
use data_encoding::BASE64URL_NOPAD;
use std::collections::BTreeMap;

/// The parameters of one request, each at most once.
pub(super) struct QueryParameters(BTreeMap<String, String>);

impl QueryParameters {
    /// Reads the query string; `known` are the parameters of the route.
    pub(super) fn read(request: &Request, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for (name, value) in request.url().query_pairs() {
            if !known.contains(&name.as_ref()) {
                let known = known.join(", ");
                let detail =
                    format!("`{name}` is no query parameter of this route: it takes {known}");
                return Err(Problem::bad_request("invalid_parameter", detail));
            }
            if parameters.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(bad(&name, "given once"));
            }
        }
        Ok(Self(parameters))
    }

    /// A parameter as text; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// A parameter as text that narrows what is removed: an empty one is a slip, and must not count
    /// as none.
    pub(super) fn narrowing(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.0.get(name) {
            Some(value) if value.is_empty() => Err(bad(name, "absent, or not empty")),
            value => Ok(value.cloned()),
        }
    }

    /// `true` or `false`; absent is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(name, "true or false")),
        }
    }

    /// A number from 1 to `max`.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.text("limit") else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| bad("limit", &format!("a whole number from 1 to {max}")))
    }

    /// An ISO-8601 time in UTC.
    pub(super) fn instant(&self, name: &str) -> Result<Option<Millis>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let at = parse_iso(&text);
        at.map(Some).ok_or_else(|| bad(name, "a time such as 2024-11-22T01:17:46.591Z"))
    }

    /// A cursor of ours.
    pub(super) fn cursor(&self) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text("cursor") else { return Ok(None) };
        let seq = decode_cursor(&text);
        seq.map(Some).ok_or_else(|| bad("cursor", "a `next_cursor` of an earlier page"))
    }
}

pub(super) fn bad(name: &str, expected: &str) -> Problem {
    Problem::bad_request(
        "invalid_parameter",
        format!("query parameter `{name}` must be {expected}"),
    )
}

/// A place in the store as an opaque word.
pub(super) fn encode_cursor(seq: i64) -> String {
    BASE64URL_NOPAD.encode(&seq.to_be_bytes())
}

/// The place in the store behind an opaque word of ours.
pub(super) fn decode_cursor(text: &str) -> Option<i64> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_and_garbage_does_not() {
        assert_eq!(decode_cursor(&encode_cursor(42)), Some(42));
        assert_eq!(decode_cursor("x"), None);
        assert_eq!(decode_cursor("AAAA"), None);
    }
}
