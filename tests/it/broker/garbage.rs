//! What is almost a frame.

use super::http;
use crate::support::chance::{Chance, seed};
use crate::support::raw_client::{As, Client, Given, TestBroker, message};
use async_tungstenite::tungstenite::Message;
use claudemesh_base::http::client;
use claudemesh_broker::Settings;
use serde_json::{Value, json};
use smol::block_on;

#[test]
fn garbage_is_counted_and_never_stops_the_broker() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut client = broker.connect(&a, As::Member, "s").await;
        let mut dice = Chance::new(seed());
        let mut acks = 0;
        for n in 0..2000 {
            let garbage = garbage(&mut dice, &b.pubkey());
            acks += usize::from(garbage.is_text() && garbage.to_text().is_ok_and(is_a_send));
            client.raw(garbage).await;
            if n % 100 == 99 {
                drain(&mut client).await;
            }
        }
        assert!(acks > 0);
        assert_eq!(answer(&mut client, &b.pubkey(), "after").await["code"], 201);
        let metrics = http(&broker, client::Request::get("/metrics")).await;
        let metrics = String::from_utf8(metrics.1).expect("text");
        let counted = metrics.lines().find_map(|line| {
            line.strip_prefix("cm_broker_malformed_frames_total ")?.parse::<u64>().ok()
        });
        assert!(counted.is_some_and(|count| count > 500), "{metrics}");
        // Bytes that are not even frames end their own connection only.
        for _ in 0..20 {
            let mut other = broker.dial().await;
            let bytes: Vec<u8> = dice.bytes(64);
            use smol::io::AsyncWriteExt;
            other.socket.get_mut().write_all(&bytes).await.expect("writes");
        }
        let mut big = broker.connect(&b, As::Member, "s").await;
        // The socket may break before all of it is written.
        let huge = Message::text("x".repeat(2 * 1024 * 1024));
        let _ = futures_util::SinkExt::send(&mut big.socket, huge).await;
        assert_eq!(answer(&mut client, &b.pubkey(), "still").await["code"], 201);
    });
}

/// Sends a good message; answers to what was sent before may come first.
async fn answer(client: &mut Client, to: &str, id: &str) -> Value {
    client.send(message(to, id, 1)).await;
    loop {
        let ack = client.expect("ack").await;
        if ack["id"] == id {
            return ack;
        }
    }
}

fn is_a_send(text: &str) -> bool {
    text.contains("\"send\"")
}

async fn drain(client: &mut Client) {
    client.send(json!({"type": "list_peers", "_reqId": "drain"})).await;
    loop {
        match client.next().await {
            Given::Frame(frame) if frame["_reqId"] == "drain" => return,
            Given::Frame(_) => {}
            other => panic!("the connection ended: {other:?}"),
        }
    }
}

/// A frame that is almost right: a good one with one thing changed, or noise.
fn garbage(dice: &mut Chance, to: &str) -> Message {
    let values =
        [json!(null), json!(-1), json!(1e300), json!([]), json!({"a": [[]]}), json!("\u{0}é")];
    let kinds = [
        "send",
        "client_ack",
        "list_peers",
        "set_status",
        "set_profile",
        "join_group",
        "topic_create",
        "topic_history",
        "feature_negotiation_request",
        "nonsense",
    ];
    let mut frame = message(to, "garbage", 1);
    frame["type"] = json!(kinds[dice.below(kinds.len())]);
    let names: Vec<String> = frame.as_object().expect("an object").keys().cloned().collect();
    let name = names.iter().filter(|n| *n != "type").nth(dice.below(names.len() - 1)).expect("one");
    frame[name.as_str()] = values[dice.below(values.len())].clone();
    let text = frame.to_string();
    match dice.below(4) {
        0 => Message::text(text.chars().take(dice.below(text.len())).collect::<String>()),
        1 => {
            let len = dice.below(200);
            Message::binary(dice.bytes(len))
        }
        _ => Message::text(text),
    }
}
