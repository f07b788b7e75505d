//! Joining against a broker that answers with what each test tells it to.

use super::*;
use claudemesh_fsm::id::Millis;
use data_encoding::BASE64URL_NOPAD;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::Executor;
use smol::net::TcpListener;
use std::sync::Arc;

const NOW: Millis = Millis(1_750_000_000_000);
const LATER_S: i64 = 4_000_000_000;

fn payload(broker_url: &str, slug: &str) -> Value {
    let owner = SecretKey::from_seed([9; 32]);
    let canonical =
        claudemesh_base::message::signed::invite(&claudemesh_base::message::signed::InviteClaims {
            mesh_id: "m1",
            mesh_slug: slug,
            broker_url,
            expires_at_s: LATER_S,
            mesh_root_key: "cm9vdA",
            role: "member",
            owner: &owner.public(),
        });
    json!({
        "v": 1, "mesh_id": "m1", "mesh_slug": slug, "broker_url": broker_url,
        "expires_at": LATER_S, "mesh_root_key": "cm9vdA", "role": "member",
        "owner_pubkey": owner.public().to_hex(), "signature": owner.sign(&canonical),
    })
}

fn token(payload: &Value) -> String {
    BASE64URL_NOPAD.encode(payload.to_string().as_bytes())
}

fn read(link: &str) -> Result<VerifiedInvite, String> {
    VerifiedInvite::read(link, NOW).map_err(|error| error.to_string())
}

#[test]
fn every_form_of_a_link_yields_the_same_invite() {
    let token = token(&payload("ws://127.0.0.1:7900/ws", "demo"));
    for link in [
        format!("http://127.0.0.1:7900/join/{token}"),
        format!("https://claudemesh.com/de/join/{token}/"),
        format!("ic://join/{token}"),
        format!(" {token}\n"),
    ] {
        let invite = read(&link).expect(&link);
        assert_eq!((invite.mesh_slug.as_str(), &invite.token), ("demo", &token));
        assert_eq!((invite.broker.host.as_str(), invite.broker.port), ("127.0.0.1", 7900));
    }
}

#[test]
fn what_is_no_link_is_refused_with_what_a_link_is() {
    for link in
        ["", "nonsense here", "ftp://h/join/x", "http://h/", "ic://other/x", "http://h/join/"]
    {
        assert!(read(link).expect_err(link).contains("not an invite link"), "{link}");
    }
    assert!(read("https://h/i/abc").expect_err("short").contains("short links"));
    for cut in ["http://h/join/eyJ2Ijo", "ic://join/%%%", "ic://join/W10"] {
        assert!(read(cut).expect_err(cut).contains("cut off"), "{cut}");
    }
}

#[test]
fn every_signed_field_is_checked_and_covered_by_the_signature() {
    let good = payload("ws://127.0.0.1:7900/ws", "demo");
    for (field, value, complaint) in [
        ("v", json!(2), "version 2"),
        ("v", json!("1"), "`v`"),
        ("mesh_id", json!("m2"), "`signature`"),
        ("mesh_id", Value::Null, "`mesh_id`"),
        ("mesh_slug", json!("other"), "`signature`"),
        ("mesh_slug", json!("a\u{1b}[2J"), "`mesh_slug`"),
        ("broker_url", json!("ws://evil:1/ws"), "`signature`"),
        ("broker_url", json!("http://h/ws"), "`broker_url`"),
        ("broker_url", json!("ws://:1/ws"), "`broker_url`"),
        ("broker_url", json!("ws://h:0/ws"), "`broker_url`"),
        ("broker_url", json!("ws://[::1/ws"), "`broker_url`"),
        ("expires_at", json!(LATER_S + 1), "`signature`"),
        ("expires_at", json!("soon"), "`expires_at`"),
        ("mesh_root_key", json!("eA"), "`signature`"),
        ("role", json!("admin"), "`signature`"),
        ("role", json!("king"), "`role`"),
        ("owner_pubkey", json!("00"), "`owner_pubkey`"),
        ("owner_pubkey", json!(SecretKey::from_seed([8; 32]).public().to_hex()), "`signature`"),
        ("signature", json!("00"), "`signature`"),
        ("signature", Value::Null, "`signature`"),
    ] {
        let mut changed = good.clone();
        changed[field] = value;
        let refused = read(&token(&changed)).expect_err(field);
        assert!(refused.contains(complaint), "{field}: {refused}");
    }
}

#[test]
fn an_expired_invite_says_since_when() {
    let token = token(&payload("ws://127.0.0.1:7900/ws", "demo"));
    let at_the_end = Millis(LATER_S * 1000);
    let refused = VerifiedInvite::read(&token, at_the_end).expect_err("over").to_string();
    assert!(refused.contains("expired at 2096-10-02T07:06:40.000Z"), "{refused}");
    VerifiedInvite::read(&token, Millis(at_the_end.0 - 1)).expect("not over yet");
}

/// Joins a broker that answers its n-th request with the n-th of `answers` (an empty one hangs
/// up), and yields what came of it and the bodies it was asked with.
fn join_with(
    answers: &[&str],
    paths: &Paths,
    slug: &str,
    options: &JoinOptions,
) -> (Result<Joined, JoinError>, Vec<Value>) {
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::real(Arc::clone(&executor));
    let (sender, requests) = smol::channel::unbounded();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let result = smol::block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let serving = runtime.spawn(async move {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await {
                        Ok(size) if size > 0 => request.extend_from_slice(&buffer[..size]),
                        _ => break,
                    }
                }
                sender.try_send(request).expect("unbounded");
                // Hanging up is one of the answers.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let link = token(&payload(&format!("ws://127.0.0.1:{port}/ws"), slug));
        let invite = VerifiedInvite::read(&link, NOW).expect("a good invite");
        let result = join(paths, &runtime, &invite, options).await;
        drop(serving);
        result
    }));
    let bodies = std::iter::from_fn(|| requests.try_recv().ok()).map(|request| {
        let text = String::from_utf8(request).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole request");
        assert!(head.starts_with("POST /join HTTP/1.1\r\n"), "{head}");
        serde_json::from_str(body).expect("JSON")
    });
    (result, bodies.collect())
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn options(name: &str) -> JoinOptions {
    JoinOptions { display_name: name.into(), slug: None }
}

fn home() -> (tempfile::TempDir, Paths) {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = Paths::under(dir.path()).expect("absolute");
    (dir, paths)
}

#[test]
fn a_join_is_stored_once_and_keeps_its_key() {
    let (_dir, paths) = home();
    let ok = answer("200 OK", r#"{"ok":true,"memberId":"mem1"}"#);
    // The first answer is lost: asking again with the same key is safe.
    let (first, bodies) = join_with(&["", &ok], &paths, "demo", &options("bob"));
    let first = first.expect("joined");
    assert_eq!((first.slug.as_str(), first.member_id.as_str()), ("demo", "mem1"));
    assert!(!first.was_joined);
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(bodies[0]["peer_pubkey"], first.pubkey);
    assert_eq!(bodies[0]["display_name"], "bob");
    let config = IdentityConfig::load(&paths).expect("readable");
    let mesh = config.mesh("demo").expect("stored");
    assert_eq!(mesh.pubkey().to_hex(), first.pubkey);
    assert_eq!((mesh.root_key.as_deref(), mesh.invite_version), (Some("cm9vdA"), Some(1)));
    assert_eq!(config.display_name.as_deref(), Some("bob"));

    let (again, bodies) = join_with(&[], &paths, "demo", &options("carol"));
    let again = again.expect("still joined");
    assert_eq!(again, Joined { was_joined: true, ..first });
    assert!(bodies.is_empty(), "the broker is not asked again");
}

#[test]
fn a_join_whose_every_answer_was_lost_is_repeated_with_the_same_key() {
    let (dir, paths) = home();
    let lost = vec![""; ATTEMPTS_MAX as usize];
    let (failed, first) = join_with(&lost, &paths, "demo", &options("bob"));
    let failed = failed.expect_err("nobody answered").to_string();
    assert!(failed.contains("run the same command again"), "{failed}");
    let keys = || {
        let names = std::fs::read_dir(dir.path()).expect("lists").flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".key")).count()
    };
    assert_eq!(keys(), 1, "the key is kept, because the broker may know it");
    let invite_of = |bodies: &[Value]| bodies[0]["invite_token"].clone();
    let known = answer("200 OK", r#"{"ok":true,"memberId":"mem1","alreadyMember":true}"#);
    let (other, second) = join_with(&[&known], &paths, "demo", &options("bob"));
    assert_ne!(invite_of(&first), invite_of(&second), "the port is part of an invite");
    assert_ne!(first[0]["peer_pubkey"], second[0]["peer_pubkey"], "a key belongs to one invite");
    other.expect("joined");
    assert_eq!(keys(), 1, "the other one's is forgotten");
}

#[test]
fn a_slug_of_another_mesh_is_not_taken_over() {
    let (_dir, paths) = home();
    let other = JoinedMesh {
        mesh_id: "m0".into(),
        member_id: "x".into(),
        slug: "demo".into(),
        name: "demo".into(),
        secret_key: SecretKey::from_seed([1; 32]),
        broker_url: "ws://h/ws".into(),
        joined_at: String::new(),
        root_key: None,
        invite_version: None,
        extra: Map::new(),
    };
    store(&paths, other, "alice").expect("stored");
    let (refused, bodies) = join_with(&[], &paths, "demo", &options("bob"));
    let refused = refused.expect_err("taken").to_string();
    assert!(refused.contains("mesh m0") && refused.contains("--as"), "{refused}");
    assert!(bodies.is_empty());
    let ok = answer("200 OK", r#"{"ok":true,"memberId":"mem1"}"#);
    let renamed = JoinOptions { slug: Some("demo2".into()), ..options("bob") };
    let (joined, _) = join_with(&[&ok], &paths, "demo", &renamed);
    let joined = joined.expect("joined");
    assert_eq!((joined.slug.as_str(), joined.display_name.as_deref()), ("demo2", Some("alice")));
    assert_eq!(super::joined(&paths).expect("listed").len(), 2);
}

#[test]
fn every_refusal_names_its_remedy_and_stores_nothing() {
    let (_dir, paths) = home();
    for (code, remedy) in [
        ("invite_exhausted", "used up"),
        ("invite_revoked", "revoked"),
        ("mesh_not_found", "no such mesh"),
        ("missing fields", "ask whoever"),
    ] {
        let body = json!({ "ok": false, "error": code }).to_string();
        let (refused, _) =
            join_with(&[&answer("400 Bad Request", &body)], &paths, "demo", &options("bob"));
        let refused = refused.expect_err(code).to_string();
        assert!(refused.contains(code) && refused.contains(remedy), "{refused}");
    }
    let page = answer("404 Not Found", "not found");
    let (refused, _) = join_with(&[&page], &paths, "demo", &options("bob"));
    assert!(matches!(refused, Err(JoinError::NotABroker { status: 404, .. })), "{refused:?}");
    assert!(!paths.config_json().exists());
    let left = std::fs::read_dir(&paths.config_dir).expect("lists").flatten();
    let keys = left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".key"));
    assert_eq!(keys.count(), 1, "after an answer of no broker alone a key is kept");
}

#[test]
fn names_that_cannot_be_shown_are_refused_before_anything_is_sent() {
    let (_dir, paths) = home();
    for name in ["", "  ", "a\u{7}", &"x".repeat(NAME_CHARACTERS_MAX + 1)] {
        let (refused, bodies) = join_with(&[], &paths, "demo", &options(name));
        assert!(matches!(refused, Err(JoinError::BadName)) && bodies.is_empty());
    }
    for slug in ["", "-x", "a b", "../x"] {
        let named = JoinOptions { slug: Some(slug.into()), ..options("bob") };
        assert!(matches!(join_with(&[], &paths, "demo", &named).0, Err(JoinError::BadSlug(_))));
    }
}
