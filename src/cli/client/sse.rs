//! Server-sent events, read as they come (§3.5). Knows lines and fields; no event type.

use super::Error;

/// The longest event that is taken, in bytes: more than the daemon ever sends.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its type; `message` when the stream names none.
    pub event: String,
    /// Its own `id:`; only messages have one.
    pub id: Option<String>,
    /// Its data, lines joined with `\n`.
    pub data: String,
}

/// Collects chunks, wherever they are cut, into events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: Option<String>,
    id: Option<String>,
    data: Option<String>,
    data_bytes: usize,
}

impl Parser {
    /// Takes the next chunk; yields the events it completes.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<Vec<SseEvent>, Error> {
        let mut complete = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data_bytes > EVENT_BYTES_MAX {
                return Err(Error::invalid_response(format!(
                    "an event is longer than {EVENT_BYTES_MAX} bytes"
                )));
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                complete.extend(self.take_line(line.strip_suffix(b"\r").unwrap_or(line))?);
            }
        }
        Ok(complete)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<SseEvent>, Error> {
        if line.is_empty() {
            return Ok(self.finish());
        }
        let line = std::str::from_utf8(line)
            .map_err(|_| Error::invalid_response("the event stream is not UTF-8"))?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = Some(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "data" => {
                self.data_bytes += value.len() + 1;
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    none => *none = Some(value.to_owned()),
                }
            }
            // A comment has an empty field name; unknown fields are ignored, as the standard says.
            _ => {}
        }
        Ok(None)
    }

    fn finish(&mut self) -> Option<SseEvent> {
        self.data_bytes = 0;
        let (event, id) = (self.event.take(), self.id.take());
        let data = self.data.take()?;
        Some(SseEvent { event: event.unwrap_or_else(|| "message".to_owned()), id, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": connected\n\nevent: outbox\ndata: {\"a\":1}\n\nid: 7f-1\nevent: message\n\
                          data: one\ndata: ✔ two\nretry: 5\n\nevent: nothing\n\n: keepalive\n\n\
                          data:bare\r\n\r\ndata: unfinished\n";

    fn expected() -> Vec<SseEvent> {
        let event = |event: &str, id: Option<&str>, data: &str| SseEvent {
            event: event.into(),
            id: id.map(Into::into),
            data: data.into(),
        };
        vec![
            event("outbox", None, "{\"a\":1}"),
            event("message", Some("7f-1"), "one\n✔ two"),
            event("message", None, "bare"),
        ]
    }

    #[test]
    fn a_stream_is_read_the_same_wherever_it_is_cut() {
        for size in [1, 2, 3, 7, STREAM.len()] {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for chunk in STREAM.as_bytes().chunks(size) {
                events.extend(parser.push(chunk).expect("a good stream"));
            }
            assert_eq!(events, expected(), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_event_stream_is_refused() {
        assert!(Parser::default().push(b"data: \xFF\n").is_err());
        let mut parser = Parser::default();
        let megabyte = vec![b'x'; 1 << 20];
        let refused = (0..20).find_map(|_| parser.push(&megabyte).err());
        assert!(refused.expect("bounded").to_string().contains("longer than"));
    }
}
