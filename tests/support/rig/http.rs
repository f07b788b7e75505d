//! HTTP as bytes.

use super::text;
use serde_json::Value;
use std::io::{Read, Write};

/// Writes a raw request and reads the answer until the other side closes.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> Response {
    stream.write_all(request.as_bytes()).expect("writes");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("reads");
    Response::parse(&text(&bytes)).unwrap_or_else(|| panic!("{request}: {}", text(&bytes)))
}

/// A GET on a connection of its own.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// A POST on a connection of its own.
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len(),
    )
}

/// An HTTP response, whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status_line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// A whole answer out of what was read.
    pub fn of(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|| panic!("no answer: {text}"))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status_line = lines.next()?.to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Self { status_line, headers, body: body.to_owned() })
    }

    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}
