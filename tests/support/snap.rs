//! HTTP answers as snapshots: whole, as they came, with what differs from run to run named.
//!
//! Nothing is left out but `date`. Ids, times, keys, ports and ages become words such as `<time>`;
//! the order of members stays as it was sent, headers are sorted.

use crate::support::rig::Response;
use insta::Settings;
use std::fmt::Write;

/// Compares `text` with the snapshot `name` of `subject`.
pub fn pin_text(subject: &str, name: &str, text: &str) {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path(format!("{}/snapshots/{subject}", env!("CARGO_MANIFEST_DIR")));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Compares a whole answer with the snapshot `name` of `subject`.
pub fn pin(subject: &str, name: &str, response: &Response) {
    pin_text(subject, name, &render(response));
}

/// A whole answer, normalised.
pub fn render(response: &Response) -> String {
    let mut text = format!("{}\n", response.status_line);
    // Their order means nothing, and a hash map chooses it.
    let mut headers = response.headers.clone();
    headers.sort();
    for (name, value) in &headers {
        match name.as_str() {
            "date" => {}
            "content-length" => {
                assert_eq!(value, &response.body.len().to_string(), "{response:?}");
                text += "content-length: <length>\n";
            }
            "link" => {
                let cursor = value.split("cursor=").nth(1).and_then(|rest| rest.split('>').next());
                let cursor = cursor.expect("the next page's cursor");
                let _ = writeln!(text, "link: {}", value.replace(cursor, "<next_cursor>"));
            }
            _ => {
                let _ = writeln!(text, "{name}: {}", by_shape(value));
            }
        }
    }
    text.push('\n');
    text += &pretty(&response.body);
    text
}

/// JSON indented, its members in the order they were sent; other text as it is.
pub fn pretty(json: &str) -> String {
    if serde_json::from_str::<serde_json::Value>(json).is_err() {
        return by_shape(json);
    }
    let mut pretty = String::new();
    let mut indent = 0;
    let mut member = String::new();
    let mut tokens = Tokens(json).peekable();
    let line = |pretty: &mut String, indent: usize| {
        let _ = write!(pretty, "\n{:1$}", "", indent * 2);
    };
    while let Some(token) = tokens.next() {
        match token {
            "{" | "[" if matches!(tokens.peek(), Some(&("}" | "]"))) => {
                pretty += token;
                pretty += tokens.next().unwrap_or_default();
            }
            "{" | "[" => {
                pretty += token;
                indent += 1;
                line(&mut pretty, indent);
            }
            "}" | "]" => {
                indent -= 1;
                line(&mut pretty, indent);
                pretty += token;
            }
            "," => {
                pretty += token;
                line(&mut pretty, indent);
            }
            ":" => pretty += ": ",
            name if tokens.peek() == Some(&":") => {
                member = name.trim_matches('"').to_owned();
                pretty += &by_shape(name);
            }
            value => pretty += &by_name(&member, value),
        }
    }
    pretty
}

/// The tokens of valid JSON.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let first = text.chars().next()?;
        let length = match first {
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            '"' => {
                let mut is_escaped = false;
                let end = text[1..].find(|character| {
                    let is_end = character == '"' && !is_escaped;
                    is_escaped = character == '\\' && !is_escaped;
                    is_end
                });
                end.expect("a closed string") + 2
            }
            _ => text.find([',', ':', '}', ']', ' ', '\n']).unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at(length);
        self.0 = rest;
        Some(token)
    }
}

/// What the name of a member says about its value.
fn by_name(member: &str, value: &str) -> String {
    let is_set = value != "null";
    match member {
        "broker_message_id" | "history_id" | "memberId" | "sessionId" | "next_cursor" if is_set => {
            format!("\"<{}>\"", snake(member))
        }
        "pid" | "uptime_seconds" | "free_bytes" | "used_percent" => format!("<{member}>"),
        "oldest_pending_age_seconds" if is_set => format!("<{member}>"),
        "daemon_version" => "\"<version>\"".to_owned(),
        "cwd" | "hostname" if is_set => format!("\"<{member}>\""),
        // How a socket ends differs from run to run.
        "last_error" | "reason" if value.starts_with(LOST) => format!("{LOST}<cause>\""),
        _ => by_shape(value),
    }
}

const LOST: &str = "\"connection lost: ";

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// Replaces times, keys, minted ids and loopback ports wherever they stand.
pub fn by_shape(text: &str) -> String {
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
            let (found, after) = rest.split_at(word);
            out += name_of(found).unwrap_or(found);
            rest = after;
        }
    }
    out
}

const TIME: &str = "dddd-dd-ddTdd:dd:dd.dddZ";

fn is_time(text: &str) -> bool {
    text.len() >= TIME.len()
        && TIME.bytes().zip(text.bytes()).all(|(shape, byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            shape => byte == shape,
        })
}

fn name_of(word: &str) -> Option<&'static str> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_crockford =
        |byte: u8| byte.is_ascii_digit() || (byte.is_ascii_uppercase() && !b"ILOU".contains(&byte));
    match word.len() {
        64 if word.bytes().all(is_hex) => Some("<key>"),
        26 if word.starts_with('0') && word.bytes().all(is_crockford) => Some("<minted id>"),
        _ => None,
    }
}
