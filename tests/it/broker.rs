//! The embedded broker, seen from its port (§17): real sockets, a real ledger, a raw client.

mod connections;
mod garbage;

use crate::support::raw_client::{self, As, TestBroker, message};
use claudemesh_base::http::client;
use claudemesh_broker::{Admin, BrokerError, MemberAct, Rate, Settings};
use serde_json::{Value, json};
use smol::block_on;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn quick_leases() -> Settings {
    Settings { lease_ms: 300, ..Settings::default() }
}

#[test]
fn a_message_is_acknowledged_pushed_and_then_gone() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s-a").await;
        let mut to = broker.connect(&b, As::Member, "s-b").await;
        let ack = from.post(&b.pubkey(), "id-1", 1).await;
        assert_eq!(
            (&ack["code"], &ack["queued"], &ack["duplicate"]),
            (&json!(201), &json!(true), &json!(false))
        );
        assert_eq!((&ack["id"], &ack["client_message_id"]), (&json!("id-1"), &json!("id-1")));
        let push = to.take().await;
        assert_eq!(push["messageId"], ack["messageId"]);
        assert_eq!(push["senderMemberPubkey"], json!(a.pubkey()));
        assert_eq!(push["senderName"], "name1");
        assert_eq!(push["client_message_id"], "id-1");
        to.settle().await;
        drop(to);
        let mut again = broker.connect(&b, As::Member, "s-b").await;
        again.settle().await;
        let ack = from.post(&b.pubkey(), "id-2", 1).await;
        assert_eq!(again.take().await["messageId"], ack["messageId"], "the first one is gone");
    });
}

#[test]
fn a_known_id_is_a_duplicate_or_a_conflict_also_after_a_restart() {
    let broker = TestBroker::start(Settings::default());
    let first = block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        from.post(&b.pubkey(), "id", 1).await
    });
    let broker = broker.restart(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let again = from.post(&b.pubkey(), "id", 1).await;
        assert_eq!((&again["code"], &again["duplicate"]), (&json!(200), &json!(true)));
        assert_eq!(again["broker_message_id"], first["broker_message_id"]);
        assert_eq!(again["history_available"], true);
        assert!(again["first_seen_at"].is_string());
        let other = from.post(&b.pubkey(), "id", 2).await;
        assert_eq!(
            (&other["code"], &other["error"]),
            (&json!(409), &json!("idempotency_key_reused"))
        );
        assert_eq!(other["conflict"], "request_fingerprint_mismatch");
        assert_eq!(other["broker_fingerprint_prefix"], "0101010101010101");
        let mut to = broker.connect(&b, As::Member, "s").await;
        assert_eq!(
            to.take().await["messageId"],
            first["messageId"],
            "it waited across the restart"
        );
        assert!(broker.admin().await.check().await.expect("checks").is_whole());
    });
}

#[test]
fn what_is_not_acknowledged_comes_again_and_in_order() {
    let broker = TestBroker::start(quick_leases());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        for n in 0..3 {
            from.post(&b.pubkey(), &format!("id-{n}"), 1).await;
        }
        let mut to = broker.connect(&b, As::Member, "s").await;
        for _round in 0..2 {
            for n in 0..3 {
                let push = to.expect("push").await;
                assert_eq!(
                    push["client_message_id"],
                    format!("id-{n}"),
                    "and nothing else happened"
                );
            }
        }
        drop(to);
        let mut to = broker.connect(&b, As::Member, "s").await;
        assert_eq!(
            to.expect("push").await["client_message_id"],
            "id-0",
            "at once: its lease died with its connection"
        );
    });
}

#[test]
fn hundreds_of_waiting_messages_all_arrive_in_order() {
    const COUNT: usize = 1500;
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let mut to = broker.connect(&b, As::Member, "s").await;
        for n in 0..COUNT {
            from.send(message(&b.pubkey(), &format!("{n}"), 1)).await;
        }
        for n in 0..COUNT {
            assert_eq!(from.expect("ack").await["id"], format!("{n}"));
        }
        for n in 0..COUNT {
            assert_eq!(to.take().await["client_message_id"], format!("{n}"));
        }
        to.settle().await;
        assert!(broker.admin().await.check().await.expect("checks").is_whole());
    });
}

#[test]
fn refused_sends_say_why_and_leave_the_id_free() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let to = b.pubkey();
        let with = |name: &str, value: Value| {
            let mut frame = message(&to, "id", 1);
            frame[name] = value;
            frame
        };
        let big = "A".repeat(65_536);
        let unknown = "ab".repeat(32);
        let cases = [
            (with("priority", json!("soon")), 400, "priority must be now, next or low"),
            (with("priority", json!(null)), 400, "invalid type"),
            (with("ciphertext", json!("a b")), 400, "ciphertext must be base64"),
            (
                with("ciphertext", json!(big)),
                413,
                "payload too large: 65632 bytes > MAX_MESSAGE_BYTES=65536",
            ),
            (with("targetSpec", json!(unknown)), 404, "unknown recipient"),
            (with("targetSpec", json!("bob")), 404, "unknown recipient"),
            (with("targetSpec", json!("#none")), 404, "unknown topic"),
            (with("targetSpec", json!(a.pubkey())), 503, "no connected peer for target"),
            (with("client_message_id", json!("a b")), 400, "client_message_id"),
            (with("request_fingerprint", json!("a")), 400, "request_fingerprint"),
        ];
        for (frame, code, words) in cases {
            from.send(frame).await;
            let ack = from.expect("ack").await;
            assert_eq!((&ack["code"], &ack["id"]), (&json!(code), &json!("id")), "{ack}");
            assert!(ack["error"].as_str().is_some_and(|error| error.contains(words)), "{ack}");
            assert_eq!(ack["permanent"], code != 503);
        }
        assert_eq!(from.post(&to, "id", 1).await["code"], 201);
        from.send(json!({"type": "send", "targetSpec": to, "priority": "low", "nonce": "", "ciphertext": ""})).await;
        assert_eq!(from.expect("ack").await["code"], 201, "old clients send neither id");
        let mut client = broker.connect(&b, As::Member, "s").await;
        client.take().await;
        let push = client.take().await;
        assert_eq!(push["client_message_id"], push["messageId"]);
    });
}

#[test]
fn groups_topics_and_everybody_reach_whom_they_name() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b, c) = (broker.member(1).await, broker.member(2).await, broker.member(3).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let mut core = broker.connect(&b, As::Member, "s").await;
        core.send(json!({"type": "join_group", "name": "@eng/core"})).await;
        core.settle().await;
        from.send(json!({"type": "topic_create", "name": "deploys", "_reqId": "t"})).await;
        let made = from.expect("topic_created").await;
        assert_eq!((&made["created"], &made["_reqId"]), (&json!(true), &json!("t")));
        core.send(json!({"type": "topic_join", "topic": "deploys"})).await;
        core.settle().await;
        for (n, to) in ["@eng", "#deploys", "*"].into_iter().enumerate() {
            from.post(to, &format!("id-{n}"), 1).await;
            let push = core.take().await;
            assert_eq!(
                (&push["client_message_id"], &push["targetSpec"]),
                (&json!(format!("id-{n}")), &json!(to))
            );
            assert_eq!(push["topic"], if n == 1 { json!("deploys") } else { Value::Null });
        }
        let mut late = broker.connect(&c, As::Member, "s").await;
        late.send(json!({"type": "topic_join", "topic": "deploys"})).await;
        assert_eq!(late.take().await["client_message_id"], "id-2", "offline members are queued");
        late.send(json!({"type": "topic_history", "topic": "deploys", "_reqId": "h"})).await;
        let history = late.expect("topic_history_response").await;
        assert_eq!(history["messages"].as_array().map(Vec::len), Some(1));
        late.send(json!({"type": "topic_join", "topic": "none", "_reqId": "e"})).await;
        let error = late.expect("error").await;
        assert_eq!((&error["code"], &error["_reqId"]), (&json!("topic_not_found"), &json!("e")));
        drop(late);
        from.post("#deploys", "id-3", 1).await;
        assert_eq!(core.take().await["client_message_id"], "id-3");
        let mut late = broker.connect(&c, As::Member, "s").await;
        assert_eq!(late.take().await["client_message_id"], "id-3", "a subscriber that was away");
    });
}

#[test]
fn who_does_not_read_its_answers_is_not_listened_to_until_it_does() {
    /// Pages of more than 2 MiB: far more than what the sockets hold.
    const PAGES: usize = 24;
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut greedy = broker.connect(&a, As::Member, "s").await;
        greedy.send(json!({"type": "topic_create", "name": "t"})).await;
        greedy.expect("topic_created").await;
        for n in 0..36 {
            let mut long = message("#t", &format!("id-{n}"), 1);
            long["ciphertext"] = json!("A".repeat(60_000));
            greedy.send(long).await;
            assert_eq!(greedy.expect("ack").await["code"], 201);
        }
        for _ in 0..PAGES {
            greedy.send(json!({"type": "topic_history", "topic": "t", "limit": 100})).await;
        }
        greedy.send(json!({"type": "set_summary", "summary": "heard"})).await;
        let mut watcher = broker.connect(&b, As::Member, "s").await;
        let heard = async |watcher: &mut raw_client::Client| {
            watcher.send(json!({"type": "list_peers"})).await;
            let list = watcher.expect("peers_list").await;
            list["peers"]
                .as_array()
                .is_some_and(|peers| peers.iter().any(|p| p["summary"] == "heard"))
        };
        // Each look is answered after whatever else the broker had to do.
        for _ in 0..200 {
            assert!(!heard(&mut watcher).await, "the broker holds {PAGES} pages for it");
        }
        for _ in 0..PAGES {
            let page = greedy.expect("topic_history_response").await;
            assert_eq!(page["messages"].as_array().map(Vec::len), Some(35));
        }
        while !heard(&mut watcher).await {}
    });
}

#[test]
fn a_rate_limit_refuses_the_hasty_and_spares_the_retry() {
    let rate = Some(Rate { burst: 2, per_second: 0.001 });
    let broker = TestBroker::start(Settings { rate, ..Settings::default() });
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let mut codes = Vec::new();
        for id in ["1", "2", "3", "1"] {
            codes.push(from.post(&b.pubkey(), id, 1).await["code"].clone());
        }
        assert_eq!(codes, [201, 201, 429, 200]);
    });
}

#[test]
fn a_disk_below_its_reserve_takes_no_message_and_still_answers_a_retry() {
    let broker = TestBroker::start(Settings::default());
    let first = block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        from.post(&b.pubkey(), "id", 1).await
    });
    // No disk has as much.
    let broker = broker.restart(Settings { disk_reserved_bytes: 1 << 62, ..Settings::default() });
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let again = from.post(&b.pubkey(), "id", 1).await;
        assert_eq!((&again["code"], &again["messageId"]), (&json!(200), &first["messageId"]));
        let new = from.post(&b.pubkey(), "new", 1).await;
        assert_eq!((&new["code"], &new["permanent"]), (&json!(503), &json!(false)));
        let mut to = broker.connect(&b, As::Member, "s-b").await;
        assert_eq!(to.take().await["messageId"], first["messageId"], "mail is still collected");
        let ready = http(&broker, client::Request::get("/health/ready")).await;
        let answer: Value = serde_json::from_slice(&ready.1).expect("json");
        assert_eq!((ready.0, &answer["status"]), (503, &json!("not_ready")));
    });
    let broker = broker.restart(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        assert_eq!(from.post(&b.pubkey(), "new", 2).await["code"], 201, "the id stayed free");
    });
}

#[test]
fn a_directory_without_a_ledger_is_refused_and_stays_empty() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let executor = std::sync::Arc::new(smol::Executor::new());
    let runtime = claudemesh_base::runtime::Runtime::real(executor);
    let opened = block_on(Admin::open(dir.path(), &runtime));
    assert!(matches!(opened.err(), Some(BrokerError::NoLedger(at)) if at == dir.path()));
    assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
    let made = block_on(Admin::open_or_create(dir.path(), &runtime)).expect("makes one");
    drop(made);
    assert!(block_on(Admin::open(dir.path(), &runtime)).is_ok());
}

async fn http(broker: &TestBroker, request: client::Request) -> (u16, Vec<u8>) {
    let (host, port) = (broker.addr.ip().to_string(), broker.addr.port());
    let socket = client::connect_tcp(&host, port, &broker.runtime, SECOND).await.expect("connects");
    let answer = client::request(socket, &broker.runtime, request, 10 * SECOND).await;
    let answer = answer.expect("answers");
    (answer.status, answer.body)
}

#[test]
fn one_process_writes_a_ledger_and_the_next_finds_it_whole() {
    let mut broker = TestBroker::start(Settings::default());
    block_on(async {
        let a = broker.member(1).await;
        let admin = broker.admin().await;
        let taken = admin.create_mesh("test").await;
        assert!(matches!(taken, Err(BrokerError::Conflict(_))), "{taken:?}");
        let bad = admin.create_mesh("No Good").await;
        assert!(matches!(bad, Err(BrokerError::Invalid(_))), "{bad:?}");
        let mut client = broker.connect(&a, As::Member, "s").await;
        admin.act_on_member("test", &a.pubkey(), MemberAct::Revoke).await.expect("revokes");
        client.expect_close(4002, "banned").await;
    });
    let mut client = block_on(async {
        let b = broker.member(2).await;
        broker.connect(&b, As::Member, "s").await
    });
    broker.stop();
    block_on(async {
        client.expect_close(1001, "shutting down").await;
        let alone =
            Admin::open(&broker.data_dir(), &broker.runtime).await.expect("the lock is free");
        let members = alone.members("test").await.expect("lists");
        assert_eq!(members.iter().map(|m| m.revoked).collect::<Vec<_>>(), [true, false]);
        let second = Admin::open(&broker.data_dir(), &broker.runtime).await.err();
        assert!(matches!(second, Some(BrokerError::AlreadyRunning(_))));
    });
}
