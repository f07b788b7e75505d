//! A client that does nothing but send: what a broker can take.

#![allow(unreachable_pub, reason = "a part of one benchmark")]

use async_tungstenite::tungstenite::{self, Message, WebSocket};
use claudemesh_base::message::seal::seal;
use claudemesh_base::message::{PublicKey, signed};
use claudemesh_daemon::identity::JoinedMesh;
use claudemesh_fsm::id::Millis;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How many sends await their answer at once: as many as the daemon's.
const IN_FLIGHT: u64 = 256;
/// How many answers are read before the next sends are written, together.
const REFILL: u64 = 32;

/// Sends `count` messages of `body_bytes` from `sender` to `recipient` and says how many a second
/// were answered. Sealing and JSON are done before the time begins.
pub fn per_second(
    port: u16,
    sender: &JoinedMesh,
    recipient: &PublicKey,
    count: u64,
    body_bytes: usize,
) -> f64 {
    let mut socket = connect(port, sender);
    let body = "x".repeat(body_bytes);
    let sealed = seal(body.as_bytes(), &sender.secret_key, recipient, [7; 24]);
    let frame = |number: u64| {
        let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let id = format!("raw-{scattered:016x}");
        let frame = json!({
            "type": "send", "id": id, "targetSpec": recipient.to_hex(), "priority": "next",
            "nonce": sealed.nonce_b64, "ciphertext": sealed.ciphertext_b64,
            "client_message_id": id, "request_fingerprint": format!("{scattered:064x}"),
        });
        Message::text(frame.to_string())
    };
    let mut frames = (0..count).map(frame).collect::<Vec<_>>().into_iter();
    let begun = Instant::now();
    let (mut answered, mut written) = (0, 0);
    while answered < count {
        if written == answered || written - answered <= IN_FLIGHT - REFILL {
            for frame in frames.by_ref().take((IN_FLIGHT - (written - answered)) as usize) {
                socket.write(frame).expect("writes");
                written += 1;
            }
            socket.flush().expect("flushes");
        }
        let ack = receive(&mut socket);
        if ack["type"] == "ack" {
            assert_eq!(ack["code"], 201, "{ack}");
            answered += 1;
        }
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn connect(port: u16, sender: &JoinedMesh) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_nodelay(true).expect("sends at once");
    let url = format!("ws://127.0.0.1:{port}/ws");
    let (mut socket, _) = tungstenite::client(url, stream).expect("upgrades");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let at = Millis(since.as_millis() as i64);
    let key = sender.pubkey();
    let text = signed::hello(&sender.mesh_id, &sender.member_id, &key, at);
    let hello = json!({
        "type": "hello", "meshId": sender.mesh_id, "memberId": sender.member_id,
        "pubkey": key.to_hex(), "sessionId": "raw", "pid": 1, "cwd": "/",
        "timestamp": at.0, "signature": sender.secret_key.sign(&text),
    });
    socket.send(Message::text(hello.to_string())).expect("writes");
    while receive(&mut socket)["type"] != "hello_ack" {}
    socket
}

fn receive(socket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().expect("reads") {
            return serde_json::from_str(&text).expect("is JSON");
        }
    }
}
