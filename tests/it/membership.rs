//! What an operator does to members, and what everybody else sees of it (§17.3): real processes
//! and real frames.

use crate::support::raw_client::{As, TestBroker};
use crate::support::rig::{Broker, Daemon, Home, Mesh, Relay, eventually};
use crate::support::snap::pin;
use claudemesh_broker::{BrokerError, MemberAct, Settings};
use serde_json::json;
use smol::block_on;

/// How a daemon ends that no mesh takes any more.
const REFUSED: i32 = 10;

#[test]
fn a_kicked_member_is_told_announced_and_may_come_back() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut watcher = broker.connect(&a, As::Member, "s").await;
        let mut kicked = broker.connect(&b, As::Member, "s").await;
        watcher.expect_event("peer_joined").await;
        let admin = broker.admin().await;
        let done = admin.act_on_member("test", "name2", MemberAct::Kick).await.expect("kicks");
        assert_eq!((done.changed, done.closed, done.member.connections), (true, 1, Some(0)));
        kicked.expect_close(4001, "kicked").await;
        let left = watcher.expect_event("peer_left").await;
        assert_eq!(left["eventData"]["pubkey"], json!(b.pubkey()), "at once, without a grace");
        let again = admin.act_on_member("test", "name2", MemberAct::Kick).await.expect("answers");
        assert_eq!((again.changed, again.closed), (false, 0));
        let mut back = broker.connect(&b, As::Member, "s").await;
        watcher.post(&b.pubkey(), "id", 1).await;
        assert_eq!(back.take().await["client_message_id"], "id");
    });
}

#[test]
fn a_banned_member_is_kept_out_and_its_mail_is_kept_for_it() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        from.post(&b.pubkey(), "before", 1).await;
        let mut banned = broker.connect(&b, As::Member, "s").await;
        banned.expect("push").await;
        from.expect_event("peer_joined").await;
        let admin = broker.admin().await;
        let act = |act| admin.act_on_member("test", "name2", act);
        assert_eq!(act(MemberAct::Ban).await.map(|done| done.closed), Ok(1));
        banned.expect_close(4002, "banned").await;
        let mut refused = broker.dial().await;
        refused.send(broker.hello(&b, "s")).await;
        assert_eq!(refused.expect("error").await["code"], "banned");
        refused.expect_close(4002, "banned").await;
        let ack = from.post(&b.pubkey(), "during", 1).await;
        assert_eq!((&ack["code"], &ack["permanent"]), (&json!(404), &json!(true)));
        from.send(json!({"type": "list_peers"})).await;
        let peers = from.expect("peers_list").await;
        assert_eq!(peers["peers"].as_array().map(Vec::len), Some(1), "{peers}");
        assert!(act(MemberAct::Unban).await.is_ok_and(|done| done.changed));
        let mut back = broker.connect(&b, As::Member, "s").await;
        assert_eq!(back.take().await["client_message_id"], "before");
        back.settle().await;
        let acts: Vec<_> = admin.audit("test").await.expect("reads").into_iter().collect();
        let acts: Vec<_> = acts.iter().map(|row| (row.act.as_str(), row.actor.as_str())).collect();
        assert_eq!(acts[..2], [("member_unbanned", "operator"), ("member_banned", "operator")]);
    });
}

#[test]
fn a_revocation_is_told_to_the_mesh_before_the_member_is_closed_and_is_final() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut watcher = broker.connect(&a, As::Member, "s").await;
        let mut revoked = broker.connect(&b, As::Member, "s").await;
        watcher.expect_event("peer_joined").await;
        let admin = broker.admin().await;
        let act = |act| admin.act_on_member("test", &b.id, act);
        act(MemberAct::Revoke).await.expect("revokes");
        for client in [&mut watcher, &mut revoked] {
            let event = client.expect_event("member_revoked").await;
            assert_eq!(event["eventData"], json!({"pubkey": b.pubkey()}));
        }
        revoked.expect_close(4002, "banned").await;
        watcher.expect_event("peer_left").await;
        assert_eq!(act(MemberAct::Revoke).await.map(|done| done.changed), Ok(false));
        for final_act in [MemberAct::Ban, MemberAct::Unban] {
            assert!(matches!(act(final_act).await, Err(BrokerError::Conflict(_))));
        }
        let added = admin.add_member("test", &b.pubkey(), "again").await;
        assert!(matches!(added, Err(BrokerError::Conflict(_))), "{added:?}");
        assert!(admin.check().await.expect("checks").is_whole());
    });
}

#[test]
fn two_installs_of_one_key_leave_an_audit_row_under_every_policy() {
    let broker = TestBroker::start(Settings::default());
    block_on(async {
        let a = broker.member(1).await;
        let admin = broker.admin().await;
        let mut held = vec![broker.connect(&a, As::Member, "install-0").await];
        for (n, policy) in ["prefer_newest", "allow_concurrent", "prefer_oldest"].iter().enumerate()
        {
            admin.set_connection_policy("test", policy).await.expect("sets");
            let mut client = broker.dial().await;
            client.send(broker.hello(&a, &format!("install-{}", n + 1))).await;
            client.next().await;
            held.push(client);
        }
        let acts = admin.audit("test").await.expect("reads");
        let verdicts = acts.iter().filter(|row| row.actor == "broker");
        let verdicts: Vec<_> =
            verdicts.map(|row| (row.act.as_str(), row.detail.as_deref())).collect();
        assert_eq!(
            verdicts,
            [
                ("install_refused", Some("install-3")),
                ("install_admitted_beside", Some("install-2")),
                ("install_replaced", Some("install-1")),
            ]
        );
    });
}

fn said(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.trim_end().to_owned()
}

#[test]
fn the_command_line_says_what_was_done_with_a_broker_and_without() {
    let mut mesh = Mesh::new();
    let data = mesh.broker_home.path().join("broker");
    let data = data.to_str().expect("is UTF-8").to_owned();
    let mut bob = Daemon::start(&mesh.bob);
    bob.wait_for_link("open");
    let mut page = String::new();
    let mut run = |home: &Home, args: &[&str]| {
        let output = home.cli(&[args, &["--data", &data]].concat());
        let (code, text) = (output.status.code().expect("ends"), said(&output));
        let text = text.replace(&data, "<data>");
        page += &format!("$ claudemesh {}\n{text}\n[exit {code}]\n", args.join(" "));
        code
    };
    let home = &mesh.broker_home;
    run(home, &["member", "list"]);
    run(home, &["member", "list", "--json"]);
    run(home, &["member", "kick", "bob"]);
    assert_eq!(bob.process.wait(), Some(REFUSED), "it had no other mesh to stay for");
    run(home, &["member", "kick", "bob", "--json"]);
    run(home, &["member", "ban", "bob"]);
    run(home, &["member", "ban", "bob"]);
    run(home, &["member", "block", "bob", "alice"]);
    run(home, &["member", "block", "bob", "bob"]);
    run(home, &["member", "ban", "nobody"]);
    run(home, &["member", "list", "--mesh", "nowhere"]);
    run(home, &["broker", "check"]);
    run(home, &["broker", "check", "--json"]);
    mesh.broker.process.terminate();
    page_line(&mut page, "# the broker has stopped");
    let mut run = |args: &[&str]| {
        let output = mesh.broker_home.cli(&[args, &["--data", &data]].concat());
        let (code, text) = (output.status.code().expect("ends"), said(&output));
        page += &format!("$ claudemesh {}\n{text}\n[exit {code}]\n", args.join(" "));
    };
    run(&["member", "list"]);
    run(&["member", "kick", "bob"]);
    run(&["member", "unban", "bob"]);
    run(&["member", "unblock", "bob", "alice"]);
    run(&["member", "revoke", "bob"]);
    run(&["member", "unban", "bob"]);
    run(&["member", "revoke", "bob", "--json"]);
    run(&["broker", "audit"]);
    run(&["broker", "check"]);
    pin!("cli", "member", &page);
}

fn page_line(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}

#[test]
fn a_blocked_or_banned_recipient_ends_a_row_at_the_sender_and_an_unban_lets_it_through() {
    let mesh = Mesh::new();
    let data = mesh.broker_home.path().join("broker");
    let data = data.to_str().expect("is UTF-8");
    let member = |args: &[&str]| {
        mesh.broker_home.json(&[&["member"], args, &["--data", data]].concat());
    };
    let (alice, mut bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    member(&["block", "bob", "alice"]);
    alice.send(&json!({"to": "bob", "message": "x", "client_message_id": "blocked"}));
    alice.wait_for_status("blocked", "dead");
    let row = alice.get("/v1/messages/blocked").json();
    let words = row["last_error"].as_str().expect("words");
    assert!(words.contains("blocked by recipient grants"), "{row}");
    member(&["unblock", "bob", "alice"]);
    member(&["ban", "bob"]);
    assert_eq!(bob.process.wait(), Some(REFUSED));
    let key = mesh.bob.json(&["mesh", "list"])["meshes"][0]["member_pubkey"].clone();
    alice.send(&json!({"to": key, "message": "x", "client_message_id": "banned"}));
    alice.wait_for_status("banned", "dead");
    member(&["unban", "bob"]);
    let mut bob = Daemon::start(&mesh.bob);
    bob.wait_for_link("open");
    alice.send(&json!({"to": key, "message": "x", "client_message_id": "after"}));
    let inbox = eventually("the message", || Some(bob.inbox()).filter(|inbox| !inbox.is_empty()));
    assert_eq!(inbox.len(), 1);
    assert_eq!(inbox[0]["client_message_id"], "after");
    member(&["revoke", "bob"]);
    assert_eq!(bob.process.wait(), Some(REFUSED));
}

#[test]
fn a_join_whose_answers_are_lost_spends_its_invite_once() {
    let (broker_home, carol) = (Home::new(), Home::new());
    let mut broker = Broker::start(&broker_home, 0);
    let data = broker_home.path().join("broker");
    let data = data.to_str().expect("is UTF-8");
    broker_home.json(&["mesh", "create", "demo", "--name", "alice", "--data", data]);
    let invite = broker_home.json(&["mesh", "invite", "demo", "--uses", "1", "--data", data]);
    let link = invite["link"].as_str().expect("a link");
    // The invite names the first port; from now on that is the relay's.
    broker.process.kill();
    let moved = Broker::start(&broker_home, 0);
    let relay = Relay::start_on(broker.port, moved.port);
    relay.set_cutting(true);
    let lost = carol.cli(&["join", link, "--name", "carol", "--json"]);
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    let said = String::from_utf8_lossy(&lost.stdout);
    assert!(said.contains("run the same command again"), "{said}");
    let members = || {
        let list = broker_home.json(&["member", "list", "--data", data]);
        let members = list["members"].as_array().expect("a list").clone();
        members.iter().filter(|member| member["display_name"] == "carol").count()
    };
    assert_eq!(members(), 1, "the broker had taken it");
    relay.set_cutting(false);
    let joined = carol.json(&["join", link, "--name", "carol"]);
    assert_eq!((&joined["ok"], &joined["already_joined"]), (&json!(true), &json!(false)));
    assert_eq!(members(), 1);
    let left = std::fs::read_dir(carol.path()).expect("lists").flatten();
    let keys = left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".key"));
    assert_eq!(keys.count(), 0, "the key is in config.json now, and nowhere else");
    let daemon = Daemon::start(&carol);
    daemon.wait_for_link("open");
}

#[test]
fn a_damaged_ledger_is_told_in_words_and_exits_1() {
    let mesh = Mesh::new();
    let Mesh { broker_home, mut broker, alice, .. } = mesh;
    let data = broker_home.path().join("broker");
    let data_dir = data.to_str().expect("is UTF-8");
    let daemon = Daemon::start(&alice);
    daemon.wait_for_peer("bob");
    daemon.send(&json!({"to": "bob", "message": "x", "client_message_id": "waits"}));
    daemon.wait_for_status("waits", "done");
    broker.process.terminate();
    let check = || broker_home.cli(&["broker", "check", "--data", data_dir]);
    let whole = check();
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let ledger = sqlite::open(data.join("ledger.db")).expect("opens");
    let damage = "DELETE FROM member WHERE display_name = 'bob'; UPDATE mailbox SET bytes = 7";
    ledger.execute(damage).expect("damages");
    drop(ledger);
    let damaged = check();
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    let said = said(&damaged);
    assert_eq!(
        said,
        "damaged: 1 messages, 1 dedupe rows, 1 deliveries\n\
         1 deliveries are to a member that is not there\n\
         2 members have a wrong count or size of waiting messages"
    );
}
