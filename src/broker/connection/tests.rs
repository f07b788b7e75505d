//! What only the inside can show: the moments between a check and what was checked for.

use super::*;
use crate::admin::{AdminAnswer, AdminRequest, MemberAct, carry_out};
use crate::hub::Identity;
use crate::ledger::{Member, MemberState};
use crate::testing::TestBroker;
use crate::{Settings, housekeeping};
use claudemesh_base::wire::hello::Group;
use claudemesh_fsm::id::Millis;
use futures_lite::future::poll_once;
use hello::Authenticated;

/// A connection without its socket.
struct Wire {
    peer: ClientConnection,
    ends: ConnectionEnds,
    session: Receiver<ConnectionId>,
}

fn wire(broker: &Arc<Context>) -> Wire {
    let (outbound, ends) = OutboundQueue::new();
    let (authenticated, session) = channel::bounded(1);
    let peer = ClientConnection {
        context: Arc::clone(broker),
        outbound,
        last_received_ms: AtomicU64::new(0),
        session: AtomicU64::new(0),
        authenticated,
        drained: channel::bounded(1).1,
    };
    Wire { peer, ends, session }
}

fn peer(broker: &Arc<Context>) -> (ClientConnection, Receiver<Outgoing>) {
    let Wire { peer, ends, .. } = wire(broker);
    (peer, ends.outgoing)
}

/// The frames queued so far.
fn frames(outgoing: &Receiver<Outgoing>) -> Vec<serde_json::Value> {
    let mut frames = Vec::new();
    while let Ok(Outgoing::Frame(text)) = outgoing.try_recv() {
        frames.push(serde_json::from_str(&text).expect("is JSON"));
    }
    frames
}

fn authenticated(member: Member) -> Authenticated {
    let identity = Identity {
        mesh_id: "m".into(),
        member: member.seq,
        member_pubkey: member.pubkey.clone(),
        routing_key: member.pubkey.clone(),
        session_id: "s".into(),
        ..Identity::default()
    };
    Authenticated { identity, member, groups: Vec::new() }
}

#[test]
fn a_member_that_is_revoked_between_its_check_and_its_welcome_does_not_get_in() {
    for what in [MemberAct::Revoke, MemberAct::Ban] {
        let test = TestBroker::new(Settings::default());
        let member = test.member("id1", &"1".repeat(64));
        // The hello was checked, and found good.
        let authenticated = authenticated(member);
        let broker = &test.connections;
        test.run(async {
            let (mesh, member) = ("test".to_owned(), "id1".to_owned());
            let request = AdminRequest::ActOnMember { mesh, member, act: what };
            let done = carry_out(&test.parts.admin, request).await.expect("is carried out");
            let AdminAnswer::Member(done) = done else { panic!("is about a member") };
            assert_eq!((done.changed, done.closed), (true, 0));
            let (peer, outgoing) = peer(broker);
            let rejection = peer.admit(authenticated).await.expect_err("is turned away");
            assert_eq!(rejection.close, (4002, "banned"));
            assert!(outgoing.is_empty(), "no hello_ack");
            peer.disconnect().await;
        });
        assert_eq!(broker.hub.connections(), 0);
        assert!(broker.hub.present("m").1.is_empty(), "nor was it ever there");
    }
}

#[test]
fn a_connection_that_ends_during_its_welcome_leaves_nothing_behind() {
    let test = TestBroker::new(Settings::default());
    let broker = &test.connections;
    let groups = vec![Group { name: "g".to_owned(), role: None }];
    let authenticated =
        Authenticated { groups, ..authenticated(test.member("id1", &"1".repeat(64))) };
    let (peer, _outgoing) = peer(broker);
    test.run(async {
        let (release, held) = std::sync::mpsc::channel();
        let mut holding = Box::pin(test.sqlite.hold_up(held));
        assert!(poll_once(&mut holding).await.is_none());
        let mut welcome = Box::pin(peer.admit(authenticated));
        while broker.hub.connections() == 0 {
            assert!(poll_once(&mut welcome).await.is_none(), "its groups cannot be stored yet");
            smol::future::yield_now().await;
        }
        // The writer failed, and took the reader with it.
        drop(welcome);
        drop(release);
        holding.await;
        peer.disconnect().await;
    });
    assert_eq!(broker.hub.connections(), 0);
    assert!(broker.hub.present("m").1.is_empty(), "nobody was told that it came");
}

#[test]
fn a_hidden_member_does_not_leave_as_it_did_not_come() {
    let test = TestBroker::new(Settings::default());
    let watcher = authenticated(test.member("id1", &"1".repeat(64)));
    let other = test.member("id2", &"2".repeat(64));
    let broker = &test.connections;
    test.run(async {
        let (watching, seen) = peer(broker);
        watching.admit(watcher).await.expect("comes in");
        for visible in [false, true] {
            let state = MemberState { visible: Some(visible), ..MemberState::default() };
            broker.ledger.set_state(other.seq, state).await.expect("sets");
            frames(&seen);
            let (peer, _outgoing) = peer(broker);
            peer.admit(authenticated(Member { visible, ..other.clone() })).await.expect("comes in");
            peer.disconnect().await;
            let later = broker.runtime.monotonic() + Duration::from_secs(3600);
            let (ledger, hub) = (&broker.ledger, &broker.hub);
            housekeeping::announce_departures(
                ledger,
                hub,
                &broker.runtime,
                broker.hub.expire_presences(later),
            )
            .await;
            let events: Vec<_> = frames(&seen).iter().map(|f| f["event"].clone()).collect();
            let expected: &[&str] = if visible { &["peer_joined", "peer_left"] } else { &[] };
            assert_eq!(events, expected, "visible: {visible}");
        }
    });
}

/// Makes the ledger refuse what `statement` names, as a full disk would.
fn break_ledger(test: &TestBroker, statement: &str) {
    let sql =
        format!("CREATE TRIGGER full BEFORE {statement} BEGIN SELECT RAISE(FAIL, 'full'); END");
    sqlite::open(test.dir.path().join("ledger.db")).and_then(|db| db.execute(sql)).expect("breaks");
}

fn mend_ledger(test: &TestBroker) {
    let db = sqlite::open(test.dir.path().join("ledger.db"));
    db.and_then(|db| db.execute("DROP TRIGGER full")).expect("mends");
}

#[test]
fn acknowledgements_the_ledger_does_not_take_wait_and_nothing_is_pushed_twice() {
    let test = TestBroker::new(Settings { lease_ms: 200, ..Settings::default() });
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    let broker = &test.connections;
    let Wire { peer, ends, session } = wire(broker);
    let pumping = async {
        peer.pump(&session, &ends.woken).await;
        panic!("the pump ended");
    };
    let story = async {
        assert_eq!(told(broker, &from, &to.pubkey, "a").await["code"], 201);
        peer.admit(authenticated(to.clone())).await.expect("comes in");
        peer.open();
        while ends.outgoing.len() < 2 {
            smol::future::yield_now().await;
        }
        let push = frames(&ends.outgoing).pop().expect("a push");
        peer.outbound.on_written(2 * 4096);
        break_ledger(&test, "DELETE ON delivery");
        let id = peer.session().expect("is in");
        let message_id = push["messageId"].as_str().map(str::to_owned);
        let ack = ClientAck { broker_message_id: message_id, client_message_id: None };
        broker.hub.acknowledge(id, &ack);
        for _ in 0..8 {
            broker.runtime.sleep(Duration::from_millis(200)).await;
            broker.hub.expire_leases(broker.runtime.monotonic());
        }
        assert!(ends.outgoing.is_empty(), "nothing came again");
        // QueuedMessage that comes meanwhile is delivered all the same.
        assert_eq!(told(broker, &from, &to.pubkey, "b").await["code"], 201);
        while ends.outgoing.is_empty() {
            smol::future::yield_now().await;
        }
        assert_eq!(test.sqlite.queued(to.seq).await, Ok(2));
        mend_ledger(&test);
        while test.sqlite.queued(to.seq).await != Ok(1) {
            broker.runtime.sleep(Duration::from_millis(10)).await;
        }
        assert!(
            crate::housekeeping::check(&broker.ledger, &broker.counters)
                .await
                .expect("checks")
                .is_whole()
        );
    };
    let told = test.run(broker.runtime.timeout(Duration::from_secs(30), or(story, pumping)));
    assert!(told.is_some(), "in time");
}

#[test]
fn a_ledger_that_takes_nothing_is_news_once_and_then_counted() {
    let test = TestBroker::new(Settings::default());
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    let broker = &test.connections;
    test.run(async {
        break_ledger(&test, "INSERT ON message");
        for id in ["a", "b"] {
            assert_eq!(told(broker, &from, &to.pubkey, id).await["code"], 503);
        }
        assert_eq!(broker.ledger.take_failures(), Some(2));
        assert_eq!(told(broker, &from, &to.pubkey, "a").await["code"], 503);
        mend_ledger(&test);
        assert_eq!(told(broker, &from, &to.pubkey, "a").await["code"], 201);
        assert_eq!(broker.ledger.take_failures(), None, "it ended with the first that was stored");
    });
}

#[test]
fn a_session_whose_key_and_groups_are_known_comes_in_while_the_ledger_takes_nothing() {
    let test = TestBroker::new(Settings::default());
    let member = test.member("id1", &"1".repeat(64));
    let broker = &test.connections;
    let (key, at) = ("2".repeat(64), Millis(1));
    let group = |name: &str| Group { name: name.to_owned(), role: None };
    let hello = |groups: Vec<Group>| {
        let mut authenticated = Authenticated { groups, ..authenticated(member.clone()) };
        authenticated.identity.is_session = true;
        authenticated
    };
    test.run(async {
        let bind = |key: String| async move {
            hello::bind_session_key(broker, "m", &key, member.seq, at).await
        };
        assert_eq!(bind(key.clone()).await, Ok(true));
        peer(broker).0.admit(hello(vec![group("a"), group("b")])).await.expect("comes in");
        break_ledger(&test, "UPDATE ON session_key");
        assert_eq!(bind(key).await, Ok(true), "it is bound already");
        mend_ledger(&test);
        break_ledger(&test, "INSERT ON session_key");
        assert!(bind("3".repeat(64)).await.is_err(), "this one nobody knows");
        mend_ledger(&test);
        break_ledger(&test, "INSERT ON group_member");
        peer(broker).0.admit(hello(vec![group("b")])).await.expect("comes in");
        let refused = peer(broker).0.admit(hello(vec![group("c")])).await;
        assert_eq!(refused.expect_err("is refused").code, "unavailable");
    });
}

#[test]
fn a_session_that_stays_connected_keeps_its_key_through_the_nightly_expiry() {
    // Whatever was not seen in this very millisecond is past its time.
    let test = TestBroker::new(Settings { undelivered_days: 0, ..Settings::default() });
    let member = test.member("id1", &"1".repeat(64));
    let (connected, gone) = ("2".repeat(64), "3".repeat(64));
    let broker = &test.connections;
    test.run(async {
        for key in [&connected, &gone] {
            let at = broker.runtime.now();
            let bound = broker.ledger.bind_session_key("m", key, member.seq, at).await;
            assert_eq!(bound, Ok(true));
        }
        let mut authenticated = authenticated(member.clone());
        authenticated.identity.routing_key = connected.clone();
        authenticated.identity.is_session = true;
        let (peer, _outgoing) = peer(broker);
        peer.admit(authenticated).await.expect("comes in");
        broker.runtime.sleep(Duration::from_millis(5)).await;
        test.parts.housekeeping.expire().await.expect("expires");
        let other = test_other(broker).await;
        let taken = |key: String| {
            let broker = Arc::clone(broker);
            async move {
                let at = broker.runtime.now();
                broker.ledger.bind_session_key("m", &key, other, at).await
            }
        };
        assert_eq!(taken(connected).await, Ok(false), "it still belongs to who is connected");
        assert_eq!(taken(gone).await, Ok(true), "this one was forgotten");
    });
}

async fn test_other(broker: &Context) -> i64 {
    let (key, at) = ("4".repeat(64), broker.runtime.now());
    broker.ledger.add_member("m", "id2", &key, "other", "member", at).await.expect("adds");
    broker.ledger.member("m", &key).await.expect("reads").expect("is there").seq
}

/// What a sender is told.
async fn told(broker: &Arc<Context>, from: &Member, to: &str, id: &str) -> serde_json::Value {
    let (peer, outgoing) = peer(broker);
    let sender = MessageSender {
        mesh_id: "m".into(),
        member: from.seq,
        member_pubkey: from.pubkey.clone(),
        routing_key: from.pubkey.clone(),
        name: from.display_name.clone(),
        other_connection: None,
    };
    let frame = claudemesh_base::wire::SendFrame {
        id: Some(id.to_owned()),
        target_spec: to.to_owned(),
        priority: "next".into(),
        client_message_id: Some(id.to_owned()),
        request_fingerprint: Some("ab".repeat(32)),
        ..claudemesh_base::wire::SendFrame::default()
    };
    broker.intake.send(sender, peer.outbound.clone(), frame).await;
    match outgoing.recv().await {
        Ok(Outgoing::Frame(text)) => serde_json::from_str(&text).expect("is JSON"),
        other => panic!("no ack: {other:?}"),
    }
}

#[test]
fn mail_past_its_days_goes_and_a_retry_learns_that_its_history_is_gone() {
    let test = TestBroker::new(Settings { undelivered_days: 0, ..Settings::default() });
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    let broker = &test.connections;
    test.run(async {
        let first = told(broker, &from, &to.pubkey, "a").await;
        assert_eq!(first["code"], 201);
        broker.runtime.sleep(Duration::from_millis(5)).await;
        test.parts.housekeeping.expire().await.expect("expires");
        assert_eq!(test.sqlite.queued(to.seq).await, Ok(0), "nobody came for it in time");
        let again = told(broker, &from, &to.pubkey, "a").await;
        assert_eq!((&again["code"], &again["history_available"]), (&200.into(), &false.into()));
        assert_eq!(again["broker_message_id"], first["broker_message_id"]);
        assert_eq!(test.sqlite.queued(to.seq).await, Ok(0), "and it is not queued again");
        assert!(
            crate::housekeeping::check(&broker.ledger, &broker.counters)
                .await
                .expect("checks")
                .is_whole()
        );
    });
}

#[test]
fn a_full_queue_is_a_503_that_may_pass_and_leaves_the_id_free() {
    let test = TestBroker::new(Settings::default());
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    test.run(async {
        test.sqlite.fill_mailbox(to.seq).await;
        for _ in 0..2 {
            let ack = told(&test.connections, &from, &to.pubkey, "a").await;
            assert_eq!((&ack["code"], &ack["permanent"]), (&503.into(), &false.into()));
            assert!(ack["error"].as_str().is_some_and(|e| e.starts_with("recipient_queue_full")));
        }
    });
}
