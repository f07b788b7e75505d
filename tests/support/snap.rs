//! Texts and HTTP answers as snapshots, with what differs from run to run hidden.
//!
//! Nothing is left out but `date`. Times, lengths and ages become words such as `<time>`. Keys and
//! ids become numbered words such as `<key 1>`: in one snapshot the same number is the same value,
//! so that alice and bob can be told apart. The order of members stays as it was sent; headers are
//! sorted.

use super::rig::Response;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt::{Formatter, Write};

/// Compares an answer or a text with the snapshot `$name` of `$subject`, with what differs from run
/// to run hidden.
///
/// A macro, so that the snapshot names the file of the test that made it.
macro_rules! pin {
    ($subject:expr, $name:expr, $page:expr) => {
        $crate::support::snap::pin_as_is!(
            $subject,
            $name,
            $crate::support::snap::hide(&$crate::support::snap::Page::text($page))
        )
    };
}
pub(crate) use pin;

/// The same for a text that is the same in every run: nothing is hidden.
macro_rules! pin_as_is {
    ($subject:expr, $name:expr, $text:expr) => {{
        let text = $text;
        $crate::support::snap::settings($subject)
            .bind(|| insta::assert_snapshot!(AsRef::<str>::as_ref(&$name), text));
    }};
}
pub(crate) use pin_as_is;

/// Where the snapshots of a subject are.
pub fn settings(subject: &str) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("{}/snapshots/{subject}", env!("CARGO_MANIFEST_DIR")));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// What can be pinned.
pub trait Page {
    fn text(&self) -> String;
}

impl Page for str {
    fn text(&self) -> String {
        self.to_owned()
    }
}

impl Page for String {
    fn text(&self) -> String {
        self.clone()
    }
}

impl Page for Response {
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.status_line);
        // Their order means nothing, and a hash map chooses it.
        let mut headers = self.headers.clone();
        headers.sort();
        for (name, value) in headers.iter().filter(|(name, _)| name != "date") {
            if name == "content-length" {
                assert_eq!(value, &self.body.len().to_string(), "{self:?}");
                text += "content-length: <length>\n";
            } else {
                let _ = writeln!(text, "{name}: {value}");
            }
        }
        text + "\n" + &pretty(&self.body)
    }
}

/// JSON indented, its members in the order they were sent; other text as it is.
pub fn pretty(text: &str) -> String {
    let mut out = String::new();
    match serde_json::from_str(text) {
        Ok(value) => indent(value, 0, &mut out),
        Err(_) => out += text,
    }
    out
}

/// The members of an object as they were sent; serde_json's own map would sort them.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn indent(value: &RawValue, depth: usize, out: &mut String) {
    let text = value.get();
    let (open, close, items) = if let Ok(Members(members)) = serde_json::from_str(text) {
        let members = members.into_iter().map(|(name, value)| (Some(name), value)).collect();
        ('{', '}', members)
    } else if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) {
        ('[', ']', items.into_iter().map(|item| (None, item)).collect::<Vec<_>>())
    } else {
        return out.push_str(text);
    };
    out.push(open);
    for (number, (name, item)) in items.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\n{:1$}", "", 2 * depth + 2);
        if let Some(name) = name {
            let _ = write!(out, "{}: ", name.get());
        }
        indent(item, depth + 1, out);
    }
    if !items.is_empty() {
        let _ = write!(out, "\n{:1$}", "", 2 * depth);
    }
    out.push(close);
}

/// A text with what differs from run to run hidden.
pub fn hide(text: &str) -> String {
    let mut hidden = Hidden::default();
    let lines: Vec<String> = text.lines().map(|line| hidden.line(line)).collect();
    lines.join("\n")
}

/// Whether a word is an id that the daemon made.
pub fn is_minted_id(word: &str) -> bool {
    kind_of(word) == Some("id")
}

/// The values that were hidden so far: their kinds, and themselves.
#[derive(Default)]
struct Hidden(Vec<(String, String)>);

impl Hidden {
    fn number(&mut self, kind: &str, value: &str) -> String {
        let of_kind = || self.0.iter().filter(|(known, _)| known == kind);
        let known = of_kind().position(|(_, known)| known == value);
        let number = known.unwrap_or_else(|| of_kind().count());
        if known.is_none() {
            self.0.push((kind.to_owned(), value.to_owned()));
        }
        format!("<{kind} {}>", number + 1)
    }

    fn line(&mut self, line: &str) -> String {
        // A title says what was asked: it is the same in every run.
        if line.starts_with("# ") {
            return line.to_owned();
        }
        if let Some((before, after)) = line.split_once("cursor=") {
            let rest = after.find('>').map_or("", |end| &after[end..]);
            return format!("{before}cursor=<next_cursor>{rest}");
        }
        match line.split_once("\": ") {
            Some((member, value)) if member.trim_start().starts_with('"') => {
                let end = value.len() - usize::from(value.ends_with(','));
                let (value, comma) = value.split_at(end);
                let name = member.trim_start().trim_start_matches('"');
                format!("{}\": {}{comma}", self.by_shape(member), self.by_name(name, value))
            }
            _ => self.by_shape(line),
        }
    }

    /// What the name of a member says about its value.
    fn by_name(&mut self, member: &str, value: &str) -> String {
        const LOST: &str = "\"connection lost: ";
        match member {
            _ if value == "null" => value.to_owned(),
            "broker_message_id" | "history_id" | "memberId" | "sessionId" => {
                format!("\"{}\"", self.number(&snake(member), value))
            }
            "pid"
            | "uptime_seconds"
            | "free_bytes"
            | "used_percent"
            | "oldest_pending_age_seconds" => format!("<{member}>"),
            "daemon_version" => "\"<version>\"".to_owned(),
            "cwd" | "hostname" | "next_cursor" => format!("\"<{member}>\""),
            // How a socket ends differs from run to run.
            "last_error" | "reason" if value.starts_with(LOST) => format!("{LOST}<cause>\""),
            _ => self.by_shape(value),
        }
    }

    /// Hides times, keys and minted ids wherever they stand.
    fn by_shape(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            if is_time(rest) {
                out += "<time>";
                rest = &rest[TIME.len()..];
            } else if word == 0 {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            } else {
                let (word, after) = rest.split_at(word);
                match kind_of(word) {
                    Some(kind) => out += &self.number(kind, word),
                    None => out += word,
                }
                rest = after;
            }
        }
        out
    }
}

fn snake(name: &str) -> String {
    name.replace("memberId", "member_id").replace("sessionId", "session_id")
}

const TIME: &str = "dddd-dd-ddTdd:dd:dd.dddZ";

fn is_time(text: &str) -> bool {
    text.len() >= TIME.len()
        && TIME.bytes().zip(text.bytes()).all(|(shape, byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            shape => byte == shape,
        })
}

/// What a word must be, by its letters.
fn kind_of(word: &str) -> Option<&'static str> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_crockford =
        |byte: u8| byte.is_ascii_digit() || (byte.is_ascii_uppercase() && !b"ILOU".contains(&byte));
    match word.len() {
        64 if word.bytes().all(is_hex) => Some("key"),
        26 if word.starts_with('0') && word.bytes().all(is_crockford) => Some("id"),
        // What a broker mints.
        32 if word.bytes().any(|byte| byte.is_ascii_uppercase()) => Some("id"),
        _ => None,
    }
}
