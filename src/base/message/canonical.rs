//! `meta` as RFC 8785 canonical JSON (§4.4), so that the same request always hashes the same.
//!
//! Refuses what JSON readers change silently: a key given twice, half of a surrogate pair, an
//! integer that no double can hold. Text is never repaired; the error names the place.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The largest integer every JSON reader agrees on: 2^53.
pub const INTEGER_MAX: u64 = 1 << 53;
/// How deep arrays and objects may nest, `meta` itself counted.
pub const DEPTH_MAX: usize = 64;
/// How much of a long key an error shows, in characters.
const KEY_SHOWN_MAX: usize = 64;
/// What a path begins with.
const ROOT: &str = "meta";

/// What is wrong with `meta`; each text goes on from the path of the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what it is")]
pub enum MetaErrorKind {
    #[error("is not valid JSON")]
    NotJson,
    #[error("must be a JSON object or null")]
    NotAnObject,
    #[error("stands twice in its object: keep one of them")]
    DuplicateKey,
    #[error("has half of a surrogate pair: escape both halves or write the character")]
    LoneSurrogate,
    #[error("is an integer beyond ±{INTEGER_MAX} (2^53), which readers round: send it as a string")]
    UnsafeInteger,
    #[error("is beyond the range of a number: send it as a string")]
    NumberOutOfRange,
    #[error("is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// Why `meta` is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {kind}")]
pub struct MetaError {
    /// What is wrong.
    pub kind: MetaErrorKind,
    /// Where, as `meta.a.b[3]`; for broken JSON, the place up to which it could be read.
    pub path: String,
}

impl MetaError {
    fn at_root(kind: MetaErrorKind) -> Self {
        Self { kind, path: ROOT.into() }
    }

    /// The error for bytes that are not even text.
    pub(super) fn not_utf8() -> Self {
        Self::at_root(MetaErrorKind::NotJson)
    }
}

/// The canonical form of `meta` from the text a caller sent; `null` is `None`, `{}` is `{}`.
///
/// # Errors
/// When it is not a JSON object, or holds anything that would not survive other readers.
pub fn canonical_meta(raw: &str) -> Result<Option<String>, MetaError> {
    Ok(parse_object(raw)?.map(|fields| to_canonical(&Value::Object(fields))))
}

/// Parses one JSON object under the rules of this module; `null` is `None`.
///
/// # Errors
/// As [`canonical_meta`].
pub fn parse_object(raw: &str) -> Result<Option<Map<String, Value>>, MetaError> {
    let mut walk = ParseState { path: Vec::new(), kind: None, numbers: Numbers { rest: raw } };
    let mut reader = serde_json::Deserializer::from_str(raw);
    let parsed = Seed(&mut walk).deserialize(&mut reader).and_then(|value| {
        walk.path.clear();
        reader.end().map(|()| value)
    });
    match parsed {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(MetaError::at_root(MetaErrorKind::NotAnObject)),
        Err(error) => {
            let kind = walk.kind.unwrap_or_else(|| classify(&error));
            Err(MetaError { kind, path: render(&walk.path) })
        }
    }
}

/// A checked value as RFC 8785 text.
#[must_use]
pub fn to_canonical(value: &Value) -> String {
    serde_json_canonicalizer::to_string(value)
        .expect("a `Value` has text keys and finite numbers, and writing to memory cannot fail")
}

/// serde_json tells these apart only by their text, which a test below pins.
fn classify(error: &serde_json::Error) -> MetaErrorKind {
    let text = error.to_string();
    if text.starts_with("lone leading surrogate") || text.starts_with("unexpected end of hex") {
        MetaErrorKind::LoneSurrogate
    } else if text.starts_with("number out of range") {
        MetaErrorKind::NumberOutOfRange
    } else {
        MetaErrorKind::NotJson
    }
}

enum PathSegment {
    Key(String),
    Index(usize),
}

fn render(path: &[PathSegment]) -> String {
    let mut text = String::from(ROOT);
    for step in path {
        match step {
            PathSegment::Key(key) if is_plain(key) => {
                text.push('.');
                text += key;
            }
            // Quoted and escaped: a caller's key may hold anything, line breaks included.
            PathSegment::Key(key) => {
                let shown: String = key.chars().take(KEY_SHOWN_MAX).collect();
                text += &format!("[{}]", Value::from(shown));
            }
            PathSegment::Index(index) => text += &format!("[{index}]"),
        }
    }
    text
}

fn is_plain(key: &str) -> bool {
    (1..=KEY_SHOWN_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Where the parser stands. The path is not unwound on an error: it then names the place.
struct ParseState<'a> {
    path: Vec<PathSegment>,
    kind: Option<MetaErrorKind>,
    numbers: Numbers<'a>,
}

impl ParseState<'_> {
    fn refuse<E: serde::de::Error>(&mut self, kind: MetaErrorKind) -> E {
        self.kind = Some(kind);
        E::custom("refused")
    }
}

/// The number literals of a JSON text in order. The parser hands over a large integer as a
/// double, like `1e30`; only its spelling tells whether digits were lost.
struct Numbers<'a> {
    rest: &'a str,
}

impl<'a> Numbers<'a> {
    fn next_literal(&mut self) -> &'a str {
        let bytes = self.rest.as_bytes();
        let mut at = 0;
        let mut in_text = false;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if in_text => at += 1,
                b'"' => in_text = !in_text,
                b'-' | b'0'..=b'9' if !in_text => break,
                _ => {}
            }
            at += 1;
        }
        let tail = self.rest.get(at..).unwrap_or_default();
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let (literal, rest) = tail.split_at(tail.find(|c| !is_part(c)).unwrap_or(tail.len()));
        self.rest = rest;
        literal
    }
}

struct Seed<'w, 'a>(&'w mut ParseState<'a>);

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_, '_> {
    fn number<E: serde::de::Error>(self, number: serde_json::Number) -> Result<Value, E> {
        let literal = self.0.numbers.next_literal();
        let is_integer = !literal.contains(['.', 'e', 'E']);
        let digits = literal.trim_start_matches('-');
        // An integer of more digits than `u64` holds is beyond the limit as well.
        if is_integer && digits.parse().is_ok_and(|magnitude: u64| magnitude <= INTEGER_MAX) {
            return Ok(Value::Number(number));
        }
        if is_integer {
            return Err(self.0.refuse(MetaErrorKind::UnsafeInteger));
        }
        Ok(Value::Number(number))
    }

    fn check_depth<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.0.path.len() >= DEPTH_MAX {
            return Err(self.0.refuse(MetaErrorKind::TooDeep));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.number(number),
            None => Err(self.0.refuse(MetaErrorKind::NumberOutOfRange)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        loop {
            self.0.path.push(PathSegment::Index(list.len()));
            let Some(item) = items.next_element_seed(Seed(self.0))? else { break };
            self.0.path.pop();
            list.push(item);
        }
        self.0.path.pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let is_duplicate = fields.contains_key(&key);
            self.0.path.push(PathSegment::Key(key.clone()));
            if is_duplicate {
                return Err(self.0.refuse(MetaErrorKind::DuplicateKey));
            }
            fields.insert(key, entries.next_value_seed(Seed(self.0))?);
            self.0.path.pop();
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests;
