//! Malformed requests, frames, links and files, made from chance. Nothing here is secret, and
//! nothing here is sent by accident.

mod frames;

pub use frames::{broker_frame, client_frame};

use crate::support::chance::Chance;
use serde_json::{Value, json};

const METHODS: &[&str] =
    &["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "G\0T", ""];
const PATHS: &[&str] = &[
    "/v1/health",
    "/v1/version",
    "/v1/send",
    "/v1/inbox",
    "/v1/inbox/seen",
    "/v1/events-not",
    "/v1/peers",
    "/v1/outbox",
    "/v1/inbox/x",
    "/v1/outbox/requeue",
    "/v1/outbox/abort",
    "/v1/outbox/prune",
    "/v1/outbox/x",
    "/v1/messages/x",
    "/v1/metrics",
    "/",
];

const TRICKS: &[&str] = &[
    "//v1//health",
    "/v1/../v1/health",
    "/v1/./health",
    "/v1/%2e%2e/health",
    "/v1/messages/%00",
    "/v1/messages/%ff%fe",
    "/v1/messages/..",
    "/v1/messages/.",
    "/v1/messages/",
    "/v1/messages/%2F",
    "/v1/messages/%",
    "/v1/messages/%2",
    "/v1/health/",
    "/V1/HEALTH",
    "/v1/health#frag",
    "*",
    "?",
    "/v1/health;x=1",
    "http://evil.example/v1/health",
    "/v1/inbox/%F0%9F%92%A9",
    "/\\v1\\health",
    "/v1/messages/'%20OR%201=1--",
];

const QUERIES: &[&str] = &[
    "limit=-1",
    "limit=0",
    "limit=99999999999999999999",
    "limit=1e3",
    "limit=",
    "limit",
    "limit=1&limit=2",
    "cursor=%00",
    "cursor=AAAA",
    "cursor=../..",
    "since=yesterday",
    "since=9999-99-99T99:99:99Z",
    "since=-292277022657-01-27T08:29:52Z",
    "mark_seen=maybe",
    "unread_only=2",
    "topic=%ff",
    "mesh=%00",
    "&&&===",
    "%%%",
    "from[]=x",
    "token=abc",
    "status=unknown",
    "status=pending&status=dead",
    "types=%2c",
];

/// The fields of every body, known and unknown.
const FIELDS: &[&str] = &[
    "to",
    "message",
    "mesh",
    "priority",
    "meta",
    "reply_to_id",
    "client_message_id",
    "mentions",
    "id",
    "new_client_message_id",
    "payload",
    "aborted_by",
    "force",
    "ids",
    "before",
    "all",
];

/// A value of any type, of bounded depth.
pub fn value(chance: &mut Chance, depth: usize) -> Value {
    match chance.below(if depth == 0 { 8 } else { 10 }) {
        0 => Value::Null,
        1 => Value::Bool(chance.one_in(2)),
        2 => json!(chance.next()),
        3 => json!(-(chance.below(1_000_000) as i64)),
        4 => json!(f64::from_bits(chance.next())),
        5 => Value::String(chance.text(40)),
        6 => Value::String(String::new()),
        7 => Value::String("x".repeat(chance.below(3000))),
        8 => (0..chance.below(4)).map(|_| value(chance, depth - 1)).collect(),
        _ => Value::Object(
            (0..chance.below(4)).map(|_| (chance.text(8), value(chance, depth - 1))).collect(),
        ),
    }
}

/// JSON of the right fields with the wrong things in them, or no JSON at all.
fn body(chance: &mut Chance) -> Vec<u8> {
    match chance.below(8) {
        0 => {
            let len = chance.below(400);
            chance.bytes(len)
        }
        1 => nested(chance),
        2 => value(chance, 3).to_string().into_bytes(),
        3 => {
            let whole =
                json!({"to": "*", "message": chance.text(30), "meta": {"a": 1}}).to_string();
            let end = chance.below(whole.len());
            whole.as_bytes()[..end].to_vec()
        }
        4 => b"{\"to\":\"*\",\"message\":\"\xff\xfe\xc0\x80\"}".to_vec(),
        5 => br#"{"to":"*","message":"\ud800","meta":{"a":1,"a":2,"b":9007199254740993}}"#.to_vec(),
        _ => {
            let mut map = serde_json::Map::new();
            for _ in 0..chance.below(6) + 1 {
                map.insert((*chance.pick(FIELDS)).to_owned(), value(chance, 2));
            }
            Value::Object(map).to_string().into_bytes()
        }
    }
}

/// Far deeper than any parser should follow.
fn nested(chance: &mut Chance) -> Vec<u8> {
    let depth = 1000 + chance.below(60_000);
    let open = *chance.pick(&["[", "{\"a\":", "[{\"meta\":"]);
    let text = open.repeat(depth / open.len());
    if chance.one_in(2) {
        return text.into_bytes();
    }
    format!("{{\"to\":\"*\",\"message\":\"m\",\"meta\":{text}").into_bytes()
}

fn target(chance: &mut Chance) -> Vec<u8> {
    let path = if chance.one_in(3) { chance.pick(TRICKS) } else { chance.pick(PATHS) };
    let mut target = path.as_bytes().to_vec();
    if chance.one_in(3) {
        target.push(b'?');
        target.extend_from_slice(chance.pick(QUERIES).as_bytes());
    }
    if chance.one_in(20) {
        let len = chance.below(30);
        target.extend(chance.bytes(len));
    }
    if chance.one_in(50) {
        target.extend(vec![b'a'; 20_000]);
    }
    target
}

/// A request that something is wrong with; whether all of it is there.
pub fn request(chance: &mut Chance) -> (Vec<u8>, bool) {
    if chance.one_in(10) {
        let len = 1 + chance.below(600);
        return (chance.bytes(len), false);
    }
    let body = body(chance);
    let post = chance.one_in(2);
    let method = if post { "POST" } else { *chance.pick(METHODS) };
    let mut request = Vec::new();
    request.extend_from_slice(method.as_bytes());
    request.push(b' ');
    if post && chance.one_in(2) {
        request.extend_from_slice(b"/v1/send");
    } else {
        request.extend(target(chance));
    }
    let version = if chance.one_in(10) {
        *chance.pick(&["HTTP/1.0", "HTTP/2.0", "HTTX", ""])
    } else {
        "HTTP/1.1"
    };
    request.extend_from_slice(format!(" {version}\r\n").as_bytes());
    headers(chance, &mut request);
    let length = match chance.below(8) {
        0 => String::from("content-length: -1\r\n"),
        1 => format!("content-length: {}\r\n", body.len() + 1 + chance.below(50)),
        2 => format!("content-length: {}\r\ncontent-length: 3\r\n", body.len()),
        3 => String::from("content-length: 99999999999999999999999\r\n"),
        4 => String::from("transfer-encoding: chunked\r\n"),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    request.extend_from_slice(length.as_bytes());
    request.extend_from_slice(b"connection: close\r\n\r\n");
    request.extend(body);
    if chance.one_in(6) {
        request.truncate(1 + chance.below(request.len()));
        return (request, false);
    }
    (request, !length.contains(": 9999") && !length.contains("chunked"))
}

fn headers(chance: &mut Chance, request: &mut Vec<u8>) {
    let mut add = |line: &[u8]| {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    };
    match chance.below(14) {
        0 => add(b"host: evil.example"),
        1 => (0..150).for_each(|number| add(format!("x-{number}: y").as_bytes())),
        2 => add(format!("x-huge: {}", "h".repeat(17_000)).as_bytes()),
        3 => add(b"x-bad: \xff\xfe\x80"),
        4 => add(b"no colon here"),
        5 => add(b"x-nul: a\0b"),
        6 => add(b"origin: https://evil.example"),
        7 => add(b"content-type: text/plain"),
        8 => add(b"idempotency-key: \"unclosed"),
        9 => add(format!("idempotency-key: {}", "k".repeat(300)).as_bytes()),
        10 => add(b"host: localhost\r\nhost: localhost"),
        11 => add(b"host: localhost\r\nexpect: 100-continue"),
        12 => add(b"host: localhost\r\nupgrade: websocket\r\nconnection: upgrade"),
        _ => add(b"host: localhost\r\ncontent-type: application/json"),
    }
}

/// Something that is no invite, for `authority`, where nobody listens.
pub fn link(chance: &mut Chance, authority: &str) -> String {
    let words = |chance: &mut Chance| {
        let text = chance.text(60);
        // The command line can hold no NUL.
        text.replace('\0', "0")
    };
    let token = match chance.below(4) {
        0 => words(chance),
        1 => data_encoding::BASE64URL_NOPAD.encode(value(chance, 3).to_string().as_bytes()),
        2 => {
            let invite = json!({"v": 1, "mesh_id": words(chance), "mesh_slug": value(chance, 1),
                "broker_url": format!("ws://{authority}/ws"), "expires_at": value(chance, 1),
                "mesh_root_key": value(chance, 1), "role": value(chance, 1),
                "owner_pubkey": value(chance, 1), "signature": value(chance, 1)});
            data_encoding::BASE64URL_NOPAD.encode(invite.to_string().as_bytes())
        }
        _ => {
            let len = chance.below(300);
            data_encoding::BASE64URL_NOPAD.encode(&chance.bytes(len))
        }
    };
    match chance.below(6) {
        0 => token,
        1 => format!("http://{authority}/join/{token}"),
        2 => format!("http://{authority}/{token}"),
        3 => format!("claudemesh://join/{token}"),
        4 => format!("{token}{token}{token}"),
        _ => format!("ic://join/{token}"),
    }
}
