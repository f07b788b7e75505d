//! What only the inside can show: the moments between a check and what was checked for.

use super::*;
use crate::ledger::{Member, MemberState};
use crate::membership::{MemberAct, act};
use crate::route::Identity;
use crate::testing::TestBroker;
use crate::{Settings, keeper};
use claudemesh_base::wire::hello::Group;
use claudemesh_fsm::id::Millis;
use futures_lite::future::poll_once;
use hello::Greeted;

/// A connection without its socket.
struct Wire {
    peer: Peer,
    ends: Ends,
    session: Receiver<ConnectionId>,
}

fn wire(broker: &Arc<Broker>) -> Wire {
    let (lines, ends) = Lines::new();
    let (greeted, session) = channel::bounded(1);
    let peer = Peer {
        broker: Arc::clone(broker),
        lines,
        heard_at_ms: AtomicU64::new(0),
        session: AtomicU64::new(0),
        greeted,
        drained: channel::bounded(1).1,
    };
    Wire { peer, ends, session }
}

fn peer(broker: &Arc<Broker>) -> (Peer, Receiver<Outgoing>) {
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

fn greeted(member: Member) -> Greeted {
    let identity = Identity {
        mesh_id: "m".into(),
        member: member.seq,
        member_pubkey: member.pubkey.clone(),
        routing_key: member.pubkey.clone(),
        session_id: "s".into(),
        ..Identity::default()
    };
    Greeted { identity, member, groups: Vec::new() }
}

#[test]
fn a_member_that_is_revoked_between_its_check_and_its_welcome_does_not_get_in() {
    for what in [MemberAct::Revoke, MemberAct::Ban] {
        let test = TestBroker::new(Settings::default());
        let member = test.member("id1", &"1".repeat(64));
        // The hello was checked, and found good.
        let greeted = greeted(member);
        let broker = &test.broker;
        test.run(async {
            let (ledger, runtime) = (&broker.ledger, &broker.runtime);
            let done = act(ledger, runtime, Some(&**broker), "test", "id1", what).await;
            assert_eq!(done.map(|done| (done.changed, done.closed)), Ok((true, 0)));
            let (peer, outgoing) = peer(broker);
            let rejection = peer.welcome(greeted).await.expect_err("is turned away");
            assert_eq!(rejection.close, (4002, "banned"));
            assert!(outgoing.is_empty(), "no hello_ack");
            peer.depart().await;
        });
        assert_eq!(broker.hub.connections(), 0);
        assert!(broker.hub.present("m").1.is_empty(), "nor was it ever there");
    }
}

#[test]
fn a_connection_that_ends_during_its_welcome_leaves_nothing_behind() {
    let test = TestBroker::new(Settings::default());
    let broker = &test.broker;
    let groups = vec![Group { name: "g".to_owned(), role: None }];
    let greeted = Greeted { groups, ..greeted(test.member("id1", &"1".repeat(64))) };
    let (peer, _outgoing) = peer(broker);
    test.run(async {
        let (release, held) = std::sync::mpsc::channel();
        let mut holding = Box::pin(broker.ledger.hold_up(held));
        assert!(poll_once(&mut holding).await.is_none());
        let mut welcome = Box::pin(peer.welcome(greeted));
        while broker.hub.connections() == 0 {
            assert!(poll_once(&mut welcome).await.is_none(), "its groups cannot be stored yet");
            smol::future::yield_now().await;
        }
        // The writer failed, and took the reader with it.
        drop(welcome);
        drop(release);
        holding.await;
        peer.depart().await;
    });
    assert_eq!(broker.hub.connections(), 0);
    assert!(broker.hub.present("m").1.is_empty(), "nobody was told that it came");
}

#[test]
fn a_hidden_member_does_not_leave_as_it_did_not_come() {
    let test = TestBroker::new(Settings::default());
    let watcher = greeted(test.member("id1", &"1".repeat(64)));
    let other = test.member("id2", &"2".repeat(64));
    let broker = &test.broker;
    test.run(async {
        let (watching, seen) = peer(broker);
        watching.welcome(watcher).await.expect("comes in");
        for visible in [false, true] {
            let state = MemberState { visible: Some(visible), ..MemberState::default() };
            broker.ledger.set_state(other.seq, state).await.expect("sets");
            frames(&seen);
            let (peer, _outgoing) = peer(broker);
            peer.welcome(greeted(Member { visible, ..other.clone() })).await.expect("comes in");
            peer.depart().await;
            let later = broker.runtime.monotonic() + Duration::from_secs(3600);
            keeper::announce_departures(broker, broker.hub.exorcise(later)).await;
            let events: Vec<_> = frames(&seen).iter().map(|f| f["event"].clone()).collect();
            let expected: &[&str] = if visible { &["peer_joined", "peer_left"] } else { &[] };
            assert_eq!(events, expected, "visible: {visible}");
        }
    });
}

/// Makes the ledger refuse what `statement` names, as a full disk would.
fn break_ledger(broker: &Broker, statement: &str) {
    let sql =
        format!("CREATE TRIGGER full BEFORE {statement} BEGIN SELECT RAISE(FAIL, 'full'); END");
    sqlite::open(broker.dir.join("ledger.db")).and_then(|db| db.execute(sql)).expect("breaks");
}

fn mend_ledger(broker: &Broker) {
    let db = sqlite::open(broker.dir.join("ledger.db"));
    db.and_then(|db| db.execute("DROP TRIGGER full")).expect("mends");
}

#[test]
fn acknowledgements_the_ledger_does_not_take_wait_and_nothing_is_pushed_twice() {
    let test = TestBroker::new(Settings { lease_ms: 200, ..Settings::default() });
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    let broker = &test.broker;
    let Wire { peer, ends, session } = wire(broker);
    let pumping = async {
        peer.pump(&session, &ends.woken).await;
        panic!("the pump ended");
    };
    let story = async {
        assert_eq!(told(broker, &from, &to.pubkey, "a").await["code"], 201);
        peer.welcome(greeted(to.clone())).await.expect("comes in");
        peer.open();
        while ends.outgoing.len() < 2 {
            smol::future::yield_now().await;
        }
        let push = frames(&ends.outgoing).pop().expect("a push");
        peer.lines.wrote(2 * 4096);
        break_ledger(broker, "DELETE ON delivery");
        let id = peer.session().expect("is in");
        let message_id = push["messageId"].as_str().map(str::to_owned);
        let ack = ClientAck { broker_message_id: message_id, client_message_id: None };
        broker.hub.acknowledge(id, &ack);
        for _ in 0..8 {
            broker.runtime.sleep(Duration::from_millis(200)).await;
            broker.hub.expire_leases(broker.runtime.monotonic());
        }
        assert!(ends.outgoing.is_empty(), "nothing came again");
        // Mail that comes meanwhile is delivered all the same.
        assert_eq!(told(broker, &from, &to.pubkey, "b").await["code"], 201);
        while ends.outgoing.is_empty() {
            smol::future::yield_now().await;
        }
        assert_eq!(broker.ledger.queued(to.seq).await, Ok(2));
        mend_ledger(broker);
        while broker.ledger.queued(to.seq).await != Ok(1) {
            broker.runtime.sleep(Duration::from_millis(10)).await;
        }
        assert!(broker.check().await.expect("checks").is_whole());
    };
    let told = test.run(broker.runtime.timeout(Duration::from_secs(30), or(story, pumping)));
    assert!(told.is_some(), "in time");
}

#[test]
fn a_ledger_that_takes_nothing_is_news_once_and_then_counted() {
    let test = TestBroker::new(Settings::default());
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    let broker = &test.broker;
    test.run(async {
        break_ledger(broker, "INSERT ON message");
        for id in ["a", "b"] {
            assert_eq!(told(broker, &from, &to.pubkey, id).await["code"], 503);
        }
        assert_eq!(broker.ledger_failing.ended(), Some(2));
        assert_eq!(told(broker, &from, &to.pubkey, "a").await["code"], 503);
        mend_ledger(broker);
        assert_eq!(told(broker, &from, &to.pubkey, "a").await["code"], 201);
        assert_eq!(broker.ledger_failing.ended(), None, "it ended with the first that was stored");
    });
}

#[test]
fn a_session_whose_key_and_groups_are_known_comes_in_while_the_ledger_takes_nothing() {
    let test = TestBroker::new(Settings::default());
    let member = test.member("id1", &"1".repeat(64));
    let broker = &test.broker;
    let (key, at) = ("2".repeat(64), Millis(1));
    let group = |name: &str| Group { name: name.to_owned(), role: None };
    let hello = |groups: Vec<Group>| {
        let mut greeted = Greeted { groups, ..greeted(member.clone()) };
        greeted.identity.is_session = true;
        greeted
    };
    test.run(async {
        let bind = |key: String| async move {
            hello::bind_session_key(broker, "m", &key, member.seq, at).await
        };
        assert_eq!(bind(key.clone()).await, Ok(true));
        peer(broker).0.welcome(hello(vec![group("a"), group("b")])).await.expect("comes in");
        break_ledger(broker, "UPDATE ON session_key");
        assert_eq!(bind(key).await, Ok(true), "it is bound already");
        mend_ledger(broker);
        break_ledger(broker, "INSERT ON session_key");
        assert!(bind("3".repeat(64)).await.is_err(), "this one nobody knows");
        mend_ledger(broker);
        break_ledger(broker, "INSERT ON group_member");
        peer(broker).0.welcome(hello(vec![group("b")])).await.expect("comes in");
        let refused = peer(broker).0.welcome(hello(vec![group("c")])).await;
        assert_eq!(refused.expect_err("is refused").code, "unavailable");
    });
}

#[test]
fn a_session_that_stays_connected_keeps_its_key_through_the_nightly_expiry() {
    // Whatever was not seen in this very millisecond is past its time.
    let test = TestBroker::new(Settings { undelivered_days: 0, ..Settings::default() });
    let member = test.member("id1", &"1".repeat(64));
    let (connected, gone) = ("2".repeat(64), "3".repeat(64));
    let broker = &test.broker;
    test.run(async {
        for key in [&connected, &gone] {
            let at = broker.runtime.now();
            let bound = broker.ledger.bind_session_key("m", key, member.seq, at).await;
            assert_eq!(bound, Ok(true));
        }
        let mut greeted = greeted(member.clone());
        greeted.identity.routing_key = connected.clone();
        greeted.identity.is_session = true;
        let (peer, _outgoing) = peer(broker);
        peer.welcome(greeted).await.expect("comes in");
        broker.runtime.sleep(Duration::from_millis(5)).await;
        keeper::expire(broker).await.expect("expires");
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

async fn test_other(broker: &Broker) -> i64 {
    let (key, at) = ("4".repeat(64), broker.runtime.now());
    broker.ledger.add_member("m", "id2", &key, "other", "member", at).await.expect("adds");
    broker.ledger.member("m", &key).await.expect("reads").expect("is there").seq
}

/// What a sender is told.
async fn told(broker: &Arc<Broker>, from: &Member, to: &str, id: &str) -> serde_json::Value {
    let (peer, outgoing) = peer(broker);
    let author = Author {
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
    send(broker, author, peer.lines.clone(), frame).await;
    match outgoing.recv().await {
        Ok(Outgoing::Frame(text)) => serde_json::from_str(&text).expect("is JSON"),
        other => panic!("no ack: {other:?}"),
    }
}

#[test]
fn mail_past_its_days_goes_and_a_retry_learns_that_its_history_is_gone() {
    let test = TestBroker::new(Settings { undelivered_days: 0, ..Settings::default() });
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    let broker = &test.broker;
    test.run(async {
        let first = told(broker, &from, &to.pubkey, "a").await;
        assert_eq!(first["code"], 201);
        broker.runtime.sleep(Duration::from_millis(5)).await;
        keeper::expire(broker).await.expect("expires");
        assert_eq!(broker.ledger.queued(to.seq).await, Ok(0), "nobody came for it in time");
        let again = told(broker, &from, &to.pubkey, "a").await;
        assert_eq!((&again["code"], &again["history_available"]), (&200.into(), &false.into()));
        assert_eq!(again["broker_message_id"], first["broker_message_id"]);
        assert_eq!(broker.ledger.queued(to.seq).await, Ok(0), "and it is not queued again");
        assert!(broker.check().await.expect("checks").is_whole());
    });
}

#[test]
fn a_full_queue_is_a_503_that_may_pass_and_leaves_the_id_free() {
    let test = TestBroker::new(Settings::default());
    let (from, to) = (test.member("id1", &"1".repeat(64)), test.member("id2", &"2".repeat(64)));
    test.run(async {
        test.broker.ledger.fill_mailbox(to.seq).await;
        for _ in 0..2 {
            let ack = told(&test.broker, &from, &to.pubkey, "a").await;
            assert_eq!((&ack["code"], &ack["permanent"]), (&503.into(), &false.into()));
            assert!(ack["error"].as_str().is_some_and(|e| e.starts_with("recipient_queue_full")));
        }
    });
}
