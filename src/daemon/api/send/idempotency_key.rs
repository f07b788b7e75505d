//! The `Idempotency-Key` header: a client's id for its message.

use crate::api::Request;
use crate::api::reply::Problem;

/// The id in `Idempotency-Key`: bare, or quoted as an RFC 8941 string.
pub(super) fn idempotency_key(request: &Request) -> Result<Option<String>, Problem> {
    let bad = |detail: &str| Problem::bad_request("invalid_client_message_id", detail);
    let Some(values) = request.header("idempotency-key") else { return Ok(None) };
    let (Some(value), None) = (values.get(0), values.get(1)) else {
        return Err(bad("`Idempotency-Key` came more than once: send one id"));
    };
    let value = value.as_str().trim();
    if !value.starts_with('"') {
        return Ok(Some(value.to_owned()));
    }
    let quoted = unquote(value);
    quoted
        .map(Some)
        .ok_or_else(|| bad("`Idempotency-Key` begins with a quote and is no RFC 8941 string"))
}

fn unquote(value: &str) -> Option<String> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => text.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            other => text.push(other),
        }
    }
    // A backslash that escaped the closing quote leaves the string open.
    (value.len() >= 2).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_key_is_unquoted_once() {
        assert_eq!(unquote(r#""a-1""#).as_deref(), Some("a-1"));
        assert_eq!(unquote(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        for broken in [r#"""#, r#""a"#, r#""a"b""#, r#""a\n""#, r#""a\""#] {
            assert_eq!(unquote(broken), None, "{broken}");
        }
    }
}
