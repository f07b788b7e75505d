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

/// What is wrong with `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaFault {
    /// Not JSON at all.
    NotJson,
    /// JSON, but neither an object nor null.
    NotAnObject,
    /// A key stands twice in one object; readers disagree about which counts.
    DuplicateKey,
    /// A `\uD800`…`\uDFFF` escape without its other half, which is no character.
    LoneSurrogate,
    /// An integer beyond ±2^53, which other readers would round.
    UnsafeInteger,
    /// A number beyond the range of a double.
    NumberOutOfRange,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// Why `meta` is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaError {
    /// What is wrong.
    pub fault: MetaFault,
    /// Where, as `meta.a.b[3]`; for broken JSON, the place up to which it could be read.
    pub path: String,
}

impl MetaError {
    fn at_root(fault: MetaFault) -> Self {
        Self { fault, path: ROOT.into() }
    }

    /// The error for bytes that are not even text.
    pub(super) fn not_utf8() -> Self {
        Self::at_root(MetaFault::NotJson)
    }
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.fault {
            MetaFault::NotJson => write!(f, "`{path}` is not valid JSON"),
            MetaFault::NotAnObject => write!(f, "`{path}` must be a JSON object or null"),
            MetaFault::DuplicateKey => {
                write!(f, "`{path}` stands twice in its object: keep one of them")
            }
            MetaFault::LoneSurrogate => write!(
                f,
                "`{path}` has half of a surrogate pair: escape both halves or write the character"
            ),
            MetaFault::UnsafeInteger => write!(
                f,
                "`{path}` is an integer beyond ±{INTEGER_MAX} (2^53), which readers round: send it as a string"
            ),
            MetaFault::NumberOutOfRange => {
                write!(f, "`{path}` is beyond the range of a number: send it as a string")
            }
            MetaFault::TooDeep => write!(f, "`{path}` is nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

impl std::error::Error for MetaError {}

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
    let mut walk = Walk { path: Vec::new(), fault: None, numbers: Numbers { rest: raw } };
    let mut reader = serde_json::Deserializer::from_str(raw);
    let parsed = Seed(&mut walk).deserialize(&mut reader).and_then(|value| {
        walk.path.clear();
        reader.end().map(|()| value)
    });
    match parsed {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(MetaError::at_root(MetaFault::NotAnObject)),
        Err(error) => {
            let fault = walk.fault.unwrap_or_else(|| classify(&error));
            Err(MetaError { fault, path: render(&walk.path) })
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
fn classify(error: &serde_json::Error) -> MetaFault {
    let text = error.to_string();
    if text.starts_with("lone leading surrogate") || text.starts_with("unexpected end of hex") {
        MetaFault::LoneSurrogate
    } else if text.starts_with("number out of range") {
        MetaFault::NumberOutOfRange
    } else {
        MetaFault::NotJson
    }
}

enum Step {
    Key(String),
    Index(usize),
}

fn render(path: &[Step]) -> String {
    let mut text = String::from(ROOT);
    for step in path {
        match step {
            Step::Key(key) if is_plain(key) => {
                text.push('.');
                text += key;
            }
            // Quoted and escaped: a caller's key may hold anything, line breaks included.
            Step::Key(key) => {
                let shown: String = key.chars().take(KEY_SHOWN_MAX).collect();
                text += &format!("[{}]", Value::from(shown));
            }
            Step::Index(index) => text += &format!("[{index}]"),
        }
    }
    text
}

fn is_plain(key: &str) -> bool {
    (1..=KEY_SHOWN_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Where the parser stands. The path is not unwound on an error: it then names the place.
struct Walk<'a> {
    path: Vec<Step>,
    fault: Option<MetaFault>,
    numbers: Numbers<'a>,
}

impl Walk<'_> {
    fn refuse<E: serde::de::Error>(&mut self, fault: MetaFault) -> E {
        self.fault = Some(fault);
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

struct Seed<'w, 'a>(&'w mut Walk<'a>);

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
            return Err(self.0.refuse(MetaFault::UnsafeInteger));
        }
        Ok(Value::Number(number))
    }

    fn check_depth<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.0.path.len() >= DEPTH_MAX {
            return Err(self.0.refuse(MetaFault::TooDeep));
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
            None => Err(self.0.refuse(MetaFault::NumberOutOfRange)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        loop {
            self.0.path.push(Step::Index(list.len()));
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
            self.0.path.push(Step::Key(key.clone()));
            if is_duplicate {
                return Err(self.0.refuse(MetaFault::DuplicateKey));
            }
            fields.insert(key, entries.next_value_seed(Seed(self.0))?);
            self.0.path.pop();
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &str) -> String {
        canonical_meta(raw).expect("good meta").expect("an object")
    }

    fn refused(raw: &str) -> (MetaFault, String) {
        let error = canonical_meta(raw).expect_err(raw);
        (error.fault, error.path)
    }

    #[test]
    fn order_and_spacing_do_not_matter() {
        assert_eq!(canonical_meta(" null "), Ok(None));
        assert_eq!(canonical("{ }"), "{}");
        assert_eq!(
            canonical(r#"{ "b":1, "a":{"d":null,"c":[2,true]} }"#),
            canonical(r#"{"a":{"c":[2,true],"d":null},"b":1}"#)
        );
    }

    /// The example of RFC 8785 §3.2.2, and its order of keys by UTF-16 code units (§3.2.3).
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let raw = r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],
            "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        let want = concat!(
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        assert_eq!(canonical(raw), want);
        let sorted =
            canonical(r#"{"\ufb33":0,"\ud83d\ude00":0,"\u20ac":0,"1":0,"\r":0,"10":0,"9":0}"#);
        assert_eq!(sorted, "{\"\\r\":0,\"1\":0,\"10\":0,\"9\":0,\"€\":0,\"😀\":0,\"\u{fb33}\":0}");
    }

    #[test]
    fn doubles_keep_their_last_bit() {
        assert_eq!(
            canonical(r#"{"x":[0.1,-0,5e-324,1.7976931348623157e308]}"#),
            r#"{"x":[0.1,0,5e-324,1.7976931348623157e+308]}"#
        );
        assert_eq!(
            canonical(r#"{"x":2.2250738585072011e-308}"#),
            r#"{"x":2.225073858507201e-308}"#
        );
    }

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth() {
        assert_eq!(refused(r#"{"a":1,"a":1}"#), (MetaFault::DuplicateKey, "meta.a".into()));
        assert_eq!(
            refused(r#"{"a":[0,{"b":{"x y":1,"x\u0020y":2}}]}"#),
            (MetaFault::DuplicateKey, r#"meta.a[1].b["x y"]"#.into())
        );
    }

    #[test]
    fn half_a_surrogate_pair_is_refused_wherever_it_stands() {
        let lone = |raw| refused(raw).0;
        assert_eq!(
            refused(r#"{"a":{"b":"\ud800"}}"#),
            (MetaFault::LoneSurrogate, "meta.a.b".into())
        );
        assert_eq!(lone(r#"{"a":"\udc00"}"#), MetaFault::LoneSurrogate);
        assert_eq!(lone(r#"{"a":"\ud800x"}"#), MetaFault::LoneSurrogate);
        assert_eq!(lone(r#"{"a":"\ud800\n"}"#), MetaFault::LoneSurrogate);
        assert_eq!(lone(r#"{"a":"\ud800\ud800"}"#), MetaFault::LoneSurrogate);
        assert_eq!(lone(r#"{"\ud800":1}"#), MetaFault::LoneSurrogate);
    }

    #[test]
    fn an_integer_that_readers_would_round_is_refused() {
        assert_eq!(
            canonical(r#"{"a":9007199254740992,"b":-9007199254740992}"#),
            r#"{"a":9007199254740992,"b":-9007199254740992}"#
        );
        for raw in [
            r#"{"a":9007199254740993}"#,
            r#"{"a":-9007199254740993}"#,
            r#"{"a":18446744073709551615}"#,
            r#"{"a":100000000000000000000000000000}"#,
        ] {
            assert_eq!(refused(raw), (MetaFault::UnsafeInteger, "meta.a".into()), "{raw}");
        }
        assert_eq!(
            refused(r#"{"7 \" 8":["-9", 1e30, {"b":[1, 9007199254740993]}]}"#),
            (MetaFault::UnsafeInteger, r#"meta["7 \" 8"][2].b[1]"#.into())
        );
        assert_eq!(refused(r#"{"a":1e999}"#).0, MetaFault::NumberOutOfRange);
    }

    #[test]
    fn only_one_object_or_null_is_meta() {
        for raw in ["[]", "1", "\"x\"", "true"] {
            assert_eq!(refused(raw), (MetaFault::NotAnObject, "meta".into()), "{raw}");
        }
        for raw in ["", "{", "{} {}", "{\"a\":}", "{'a':1}", "{\"a\":01}", "{\"a\":NaN}"] {
            assert_eq!(refused(raw).0, MetaFault::NotJson, "{raw}");
        }
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert!(canonical_meta(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(refused(&nested(DEPTH_MAX + 1)).0, MetaFault::TooDeep);
        assert_eq!(refused(&nested(100_000)).0, MetaFault::TooDeep);
    }
}
