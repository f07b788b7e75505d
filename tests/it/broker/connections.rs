//! Who gets in, who stays, and what the roster says of them.

use super::http;
use crate::support::raw_client::{self, As, Given, TestBroker, message};
use claudemesh_base::http::client;
use claudemesh_base::message::SecretKey;
use claudemesh_broker::{InviteWish, MemberAct, Settings};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use smol::block_on;

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
