//! A caller that wastes no time: requests made in advance, on one connection each.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its part")]

use smol::io::AsyncReadExt;
use smol::net::unix::UnixStream;

/// How much text a message has.
pub const BODY_BYTES: usize = 256;
/// Hexadecimal digits of an id, behind its prefix.
const ID_BYTES: usize = 16;

/// Everything of a request that does not change, made once: the client shares the machine.
pub struct Template {
    before_id: String,
    after_id: String,
}

impl Template {
    /// To a public key.
    pub fn new(key: &str) -> Self {
        let text = "x".repeat(BODY_BYTES);
        let before = format!(r#"{{"to":"{key}","message":"{text}","client_message_id":"bench-"#);
        let after_id = r#""}"#.to_owned();
        let length = before.len() + ID_BYTES + after_id.len();
        let before_id = format!(
            "POST /v1/send HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{before}",
        );
        Self { before_id, after_id }
    }

    /// The `n`th request; ids are scattered, as those of callers are.
    pub fn request(&self, n: u64) -> String {
        let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("{}{scattered:016x}{}", self.before_id, self.after_id)
    }
}

/// Reads an answer, which must be a 202.
pub async fn read_202(stream: &mut UnixStream) {
    let mut buffer = [0_u8; 2048];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("reads");
        assert!(read > 0, "the daemon closed the connection");
        filled += read;
        let Some(head_end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n")
        else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..head_end]).expect("is text");
        assert!(head.starts_with("HTTP/1.1 202"), "{head}");
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if filled - head_end - 4 >= length.unwrap_or(0) {
            return;
        }
    }
}
