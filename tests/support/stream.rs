//! A listener on `GET /v1/events`, reading bytes as they come.

use crate::support::rig::PATIENCE;
use crate::support::snap::pretty;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// An open stream.
pub struct Stream {
    reader: BufReader<UnixStream>,
    /// The status line and the headers without `date`.
    pub head: String,
    /// What of the body was read and not yet asked for.
    body: String,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub kind: String,
    pub id: Option<String>,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The event as it came, normalised.
    pub fn render(&self) -> String {
        let id = self.id.as_ref().map_or(String::new(), |_| "id: <epoch>-<seq>\n".to_owned());
        format!("{id}event: {}\ndata: {}\n", self.kind, pretty(&self.data))
    }
}

impl Stream {
    pub fn open(socket: &Path, headers: &[&str]) -> Self {
        Self::open_at(socket, "/v1/events", headers)
    }

    /// Opens one and waits for its headers.
    pub fn open_at(socket: &Path, path: &str, headers: &[&str]) -> Self {
        let mut stream = UnixStream::connect(socket).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("writes");
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line in time");
            match line.trim_end() {
                "" => break,
                line if line.starts_with("date: ") => {}
                line => head.push(line.to_owned()),
            }
        }
        // The status line first; the order of headers means nothing.
        head[1..].sort();
        Self { reader, head: head.join("\n"), body: String::new() }
    }

    /// Reads one chunk of the chunked body.
    fn read_chunk(&mut self) {
        let mut size = String::new();
        self.reader.read_line(&mut size).expect("a chunk in time");
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).expect("a whole chunk");
        chunk.truncate(size);
        self.body += &String::from_utf8(chunk).expect("UTF-8");
    }

    /// What stands before the next empty line.
    pub fn next_block(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.body.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.body = rest;
                return block;
            }
            self.read_chunk();
        }
    }

    /// The next event; comments are passed over.
    pub fn next_event(&mut self) -> Event {
        loop {
            let block = self.next_block();
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                return Event { kind, id: field("id: "), data };
            }
        }
    }

    /// The next event of a kind.
    pub fn next_of(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next_event();
            if event.kind == kind {
                return event;
            }
        }
    }
}
