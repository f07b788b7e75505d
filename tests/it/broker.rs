//! The embedded broker, seen from its port (§17): real sockets, a real ledger, a raw client.

use crate::support::chance::{Chance, seed};
use crate::support::raw_client::{self, As, Client, Given, TestBroker, message};
use async_tungstenite::tungstenite::Message;
use claudemesh_base::http::client;
use claudemesh_base::message::SecretKey;
use claudemesh_broker::{Admin, BrokerError, InviteWish, MemberAct, Rate, Settings};
use data_encoding::BASE64URL_NOPAD;
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
fn a_hello_is_checked_and_its_refusal_explained() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, gone) = (broker.member(1).await, broker.member(2).await);
        let admin = broker.admin().await;
        admin.act_on_member("test", &gone.id, MemberAct::Revoke).await.expect("revokes");
        let good = || broker.hello(&a, "s");
        let with = |name: &str, value: Value| {
            let mut hello = good();
            hello[name] = value;
            hello
        };
        let old = broker.runtime.now().0 - 60_001;
        let cases = [
            (with("signature", json!("0".repeat(128))), "bad_signature", 1008, "bad_signature"),
            (with("signature", json!("zz")), "malformed", 1008, "malformed"),
            (with("timestamp", json!(old)), "timestamp_skew", 1008, "timestamp_skew"),
            (with("sessionPubkey", json!("AB")), "bad_session_pubkey", 1008, "bad_session_pubkey"),
            (with("cwd", json!(7)), "malformed", 1008, "malformed"),
            (broker.hello(&gone, "s"), "revoked", 4002, "banned"),
        ];
        for (hello, code, close, reason) in cases {
            let mut client = broker.dial().await;
            client.send(hello).await;
            let error = client.expect("error").await;
            assert_eq!(error["code"], code);
            // What time it is here helps whose clock is wrong, and nobody else.
            assert_eq!(error["brokerTime"].is_i64(), code == "timestamp_skew", "{error}");
            client.expect_close(close, reason).await;
        }
        let stranger = raw_client::Member { id: "x".into(), key: SecretKey::from_seed([9; 32]) };
        let mut client = broker.dial().await;
        client.send(message("*", "id", 1)).await;
        assert_eq!(client.expect("error").await["code"], "no_hello");
        client.send(broker.hello(&stranger, "s")).await;
        assert_eq!(client.expect("error").await["code"], "unauthorized");
        client.expect_close(1008, "unauthorized").await;
        let mut client = broker.dial().await;
        client.send(good()).await;
        let ack = client.expect("hello_ack").await;
        assert_eq!(ack["negotiates"], true);
        assert!(
            ack["brokerTime"]
                .as_i64()
                .is_some_and(|at| at.abs_diff(broker.runtime.now().0) < 60_000)
        );
    });
}

#[test]
fn a_session_is_vouched_for_and_takes_its_members_mail() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let key = SecretKey::from_seed([7; 32]);
        let mut client = broker.dial().await;
        let mut hello = broker.session_hello(&b, &key, "s2");
        hello["parentAttestation"]["expiresAt"] = json!(broker.runtime.now().0 + 90_000_000);
        client.send(hello).await;
        client.expect("error").await;
        client.expect_close(1008, "ttl_too_long").await;
        let mut member = broker.connect(&b, As::Member, "s1").await;
        let mut session = broker.connect(&b, As::Session(&key), "s2").await;
        let mut from = broker.connect(&a, As::Member, "s").await;
        from.post(&b.pubkey(), "to-member", 1).await;
        assert_eq!(session.take().await["client_message_id"], "to-member");
        from.post(&key.public().to_hex(), "to-session", 1).await;
        assert_eq!(session.take().await["client_message_id"], "to-session");
        session.settle().await;
        drop(session);
        from.post(&key.public().to_hex(), "kept", 1).await;
        from.post(&b.pubkey(), "to-other", 1).await;
        assert_eq!(member.take().await["client_message_id"], "to-other");
        let mut session = broker.connect(&b, As::Session(&key), "s2").await;
        assert_eq!(session.take().await["client_message_id"], "kept");
        // To oneself is to the other connection.
        session.post(&b.pubkey(), "to-self", 1).await;
        assert_eq!(member.take().await["client_message_id"], "to-self");
    });
}

#[test]
fn a_newer_install_closes_the_older_and_a_same_session_replaces_itself() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let a = broker.member(1).await;
        let mut first = broker.connect(&a, As::Member, "install-1").await;
        let mut second = broker.connect(&a, As::Member, "install-2").await;
        first.expect_close(4003, "replaced_by_newer_connection").await;
        for _ in 0..5 {
            let next = broker.connect(&a, As::Member, "install-2").await;
            std::mem::replace(&mut second, next).expect_close(1000, "session_replaced").await;
        }
        second.settle().await;
        let admin = broker.admin().await;
        admin.set_connection_policy("test", "prefer_oldest").await.expect("sets");
        let mut third = broker.dial().await;
        third.send(broker.hello(&a, "install-3")).await;
        assert_eq!(third.expect("error").await["code"], "member_already_connected");
        third.expect_close(4004, "member_already_connected").await;
        admin.set_connection_policy("test", "allow_concurrent").await.expect("sets");
        let _sibling = broker.connect(&a, As::Member, "install-3").await;
        second.settle().await;
    });
}

#[test]
fn a_mesh_has_room_for_so_many_and_replacing_does_not_leak_it() {
    let broker = TestBroker::start(Settings { connections_per_mesh_max: 2, ..Settings::default() });
    block_on(async {
        let (a, b, c) = (broker.member(1).await, broker.member(2).await, broker.member(3).await);
        let _a = broker.connect(&a, As::Member, "a").await;
        let mut held = broker.connect(&b, As::Member, "b").await;
        for n in 0..200 {
            let next = broker.connect(&b, As::Member, "b").await;
            let mut old = std::mem::replace(&mut held, next);
            match n % 2 {
                0 => old.expect_close(1000, "session_replaced").await,
                _ => drop(old),
            }
        }
        let mut third = broker.dial().await;
        third.send(broker.hello(&c, "c")).await;
        third.expect("error").await;
        third.expect_close(1008, "capacity").await;
        drop(held);
        // A place is free again as soon as the broker has seen the end of its holder.
        loop {
            let mut next = broker.dial().await;
            next.send(broker.hello(&c, "c")).await;
            match next.next().await {
                Given::Frame(frame) if frame["type"] == "hello_ack" => break,
                Given::Frame(frame) => assert_eq!(frame["code"], "capacity"),
                other => panic!("neither in nor out: {other:?}"),
            }
        }
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
fn features_are_negotiated_and_the_roster_knows_the_absent() {
    let broker = TestBroker::start(Settings { presence_lease_ms: 50, ..Settings::default() });
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut client = broker.connect(&a, As::Member, "s").await;
        let request = json!({
            "type": "feature_negotiation_request",
            "require": ["client_message_id_dedupe", "concurrent_connection_policy", "telepathy"],
            "optional": ["offline_roster"],
        });
        client.send(request).await;
        let answer = client.expect("feature_negotiation_response").await;
        assert_eq!(answer["missing_required"], json!(["telepathy"]));
        let dedupe = &answer["supported"]["client_message_id_dedupe"]["params"];
        assert_eq!(
            dedupe,
            &json!({"version": 1, "mode": "retention_scoped", "dedupe_retention_days": 365, "request_fingerprint": true})
        );
        assert_eq!(answer["supported"]["max_payload"]["params"]["inline_bytes"], 65_536);
        let other = broker.connect(&b, As::Member, "s").await;
        let joined = client.expect_event("peer_joined").await;
        assert_eq!(joined["eventData"]["pubkey"], json!(b.pubkey()));
        drop(other);
        client.expect_event("peer_left").await;
        client.send(json!({"type": "set_summary", "summary": "busy\u{7}"})).await;
        client.send(json!({"type": "list_peers", "_reqId": "r"})).await;
        let list = client.expect("peers_list").await;
        let peers = list["peers"].as_array().expect("a list");
        let of =
            |key: String| peers.iter().find(|p| p["memberPubkey"] == json!(key)).expect("listed");
        assert_eq!(
            (&of(b.pubkey())["online"], &of(a.pubkey())["online"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(of(a.pubkey())["summary"], "busy");
        assert_eq!(of(a.pubkey())["peerRole"], "control-plane");
    });
}

#[test]
fn members_that_are_as_fat_as_they_may_be_do_not_make_the_roster_too_heavy_for_others() {
    /// What a link of ours takes in one message.
    const LINK_BYTES_MAX: usize = 4 * 1024 * 1024;
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let a = broker.member(1).await;
        // One member alone may not have so many connections.
        let fat = [broker.member(2).await, broker.member(3).await, broker.member(4).await];
        let mut watcher = broker.connect(&a, As::Member, "s").await;
        watcher.send(json!({"type": "set_summary", "summary": "lean"})).await;
        let wide = "\u{1d11e}".repeat(300);
        let groups: Vec<Value> =
            (0..64).map(|n| json!({"name": format!("{n}{wide}"), "role": wide})).collect();
        let mut held = Vec::new();
        for n in 0..150_u8 {
            let key = SecretKey::from_seed([n + 10; 32]);
            let mut client = broker.dial().await;
            let member = &fat[usize::from(n) % fat.len()];
            let mut hello = broker.session_hello(member, &key, &format!("s{n}"));
            hello["displayName"] = json!(wide);
            hello["cwd"] = json!(wide);
            if usize::from(n) < fat.len() {
                hello["groups"] = json!(groups);
            }
            client.send(hello).await;
            client.expect("hello_ack").await;
            held.push(client);
        }
        held[0].send(json!({"type": "join_group", "name": "one more", "_reqId": "g"})).await;
        let error = held[0].expect("error").await;
        assert_eq!((&error["code"], &error["_reqId"]), (&json!("limit"), &json!("g")));
        watcher.send(json!({"type": "list_peers"})).await;
        let list = watcher.expect("peers_list").await;
        let peers = list["peers"].as_array().expect("a list");
        assert_eq!(peers.len(), 151, "everybody is listed");
        let bytes = list.to_string().len();
        assert!(bytes < LINK_BYTES_MAX, "{bytes}");
        let own = peers.iter().find(|peer| peer["memberPubkey"] == json!(a.pubkey()));
        assert_eq!(own.map(|peer| &peer["summary"]), Some(&json!("lean")), "untouched");
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
fn a_member_has_its_share_of_connections_and_no_more() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut held = Vec::new();
        for n in 0..64_u8 {
            let key = SecretKey::from_seed([n + 10; 32]);
            held.push(broker.connect(&a, As::Session(&key), &format!("s{n}")).await);
        }
        let mut more = broker.dial().await;
        more.send(broker.hello(&a, "one more")).await;
        assert_eq!(more.expect("error").await["code"], "capacity");
        more.expect_close(1008, "capacity").await;
        broker.connect(&b, As::Member, "s").await;
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
fn joining_takes_an_invite() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let admin = broker.admin().await;
        let wish = InviteWish { mesh: "test".into(), ..InviteWish::default() };
        let invite = admin.create_invite(&wish).await.expect("invites");
        let path = invite.link.split_once("/join/").map(|(_, token)| format!("/join/{token}"));
        let path = path.expect("a link");
        let line = http(&broker, client::Request::get(path.clone())).await;
        assert_eq!(line.0, 200);
        let key = |n: u8| SecretKey::from_seed([n; 32]).public().to_hex();
        let join = |n: u8| json!({"peer_pubkey": key(n), "display_name": "carol"}).to_string();
        let post = async |body: String| {
            let (status, body) =
                http(&broker, client::Request::post_json(path.clone(), body)).await;
            (status, serde_json::from_slice::<Value>(&body).expect("json"))
        };
        let (status, joined) = post(join(3)).await;
        assert_eq!(
            (status, &joined["ok"], &joined["mesh_id"]),
            (200, &json!(true), &json!(broker.mesh_id))
        );
        assert_eq!(joined["slug"], "test");
        let (_, again) = post(join(3)).await;
        assert_eq!(
            (&again["memberId"], &again["alreadyMember"]),
            (&joined["memberId"], &json!(true))
        );
        let (status, refused) = post(join(4)).await;
        assert_eq!((status, &refused["error"]), (400, &json!("invite_exhausted")));
        for bad in ["{", "[]", "{\"peer_pubkey\":\"zz\",\"display_name\":\"x\"}"] {
            assert_eq!(post(bad.to_owned()).await.0, 400);
        }
        assert_eq!(post("x".repeat(65_537)).await.0, 413);
        let forged = format!("/join/{}", promoted(&invite.token));
        let forged = http(&broker, client::Request::post_json(forged, join(5))).await;
        let answer: Value = serde_json::from_slice(&forged.1).expect("json");
        assert_eq!((forged.0, &answer["error"]), (400, &json!("invite_bad_signature")));
        let used_up = http(&broker, client::Request::get(path.clone())).await;
        let words = String::from_utf8(used_up.1).expect("is UTF-8");
        assert_eq!(used_up.0, 404);
        assert!(words.starts_with("invite_exhausted: ask"), "{words}");
        let member = raw_client::Member {
            id: joined["memberId"].as_str().expect("an id").into(),
            key: SecretKey::from_seed([3; 32]),
        };
        broker.connect(&member, As::Member, "s").await;
        let health = http(&broker, client::Request::get("/health")).await;
        let health: Value = serde_json::from_slice(&health.1).expect("json");
        assert_eq!((&health["status"], &health["db"]), (&json!("ok"), &json!("up")));
        let ready = http(&broker, client::Request::get("/health/ready")).await;
        assert_eq!((ready.0, ready.1.as_slice()), (200, &br#"{"status":"ready"}"#[..]));
        assert_eq!(http(&broker, client::Request::get("/ws?x=1")).await.0, 404);
        assert_eq!(http(&broker, client::Request::get("/other")).await.0, 404);
    });
}

/// The token with another role, which its signature does not cover.
fn promoted(token: &str) -> String {
    let json = BASE64URL_NOPAD.decode(token.as_bytes()).expect("is base64");
    let json = String::from_utf8(json).expect("is UTF-8");
    let other = json.replace(r#""role":"member""#, r#""role":"admin""#);
    assert_ne!(other, json);
    BASE64URL_NOPAD.encode(other.as_bytes())
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
        assert_eq!(client.post(&b.pubkey(), "after", 1).await["code"], 201);
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
        assert_eq!(client.post(&b.pubkey(), "still", 1).await["code"], 201);
    });
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
