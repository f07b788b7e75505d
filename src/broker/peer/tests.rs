//! What only the inside can show: the moments between a check and what was checked for.

use super::*;
use crate::broker::ledger::Member;
use crate::broker::membership::{MemberAct, act};
use crate::broker::route::Identity;
use crate::broker::testing::TestBroker;
use crate::broker::{Settings, keeper};
use hello::Greeted;

fn peer(broker: &Arc<Broker>) -> (Peer, Receiver<Outgoing>) {
    let (out, outgoing) = channel::bounded(OUTGOING_MAX);
    let (wake, _) = channel::bounded(1);
    let (trigger, _) = Shutdown::new();
    let peer = Peer {
        broker: Arc::clone(broker),
        lines: Lines { out, wake, gone: Arc::new(trigger) },
        heard_at_ms: AtomicU64::new(0),
        session: AtomicU64::new(0),
        greeted: channel::bounded(1).0,
        drained: channel::bounded(1).1,
    };
    (peer, outgoing)
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
            let (ledger, clock) = (&broker.ledger, &broker.clock);
            let done = act(ledger, clock, Some(&**broker), "test", "id1", what).await;
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
fn a_session_that_stays_connected_keeps_its_key_through_the_nightly_expiry() {
    // Whatever was not seen in this very millisecond is past its time.
    let test = TestBroker::new(Settings { undelivered_days: 0, ..Settings::default() });
    let member = test.member("id1", &"1".repeat(64));
    let (connected, gone) = ("2".repeat(64), "3".repeat(64));
    let broker = &test.broker;
    test.run(async {
        for key in [&connected, &gone] {
            let at = broker.clock.now();
            let bound = broker.ledger.bind_session_key("m", key, member.seq, at).await;
            assert_eq!(bound, Ok(true));
        }
        let mut greeted = greeted(member.clone());
        greeted.identity.routing_key = connected.clone();
        greeted.identity.is_session = true;
        let (peer, _outgoing) = peer(broker);
        peer.welcome(greeted).await.expect("comes in");
        broker.clock.sleep(Duration::from_millis(5)).await;
        keeper::expire(broker).await.expect("expires");
        let other = test_other(broker).await;
        let taken = |key: String| {
            let broker = Arc::clone(broker);
            async move {
                let at = broker.clock.now();
                broker.ledger.bind_session_key("m", &key, other, at).await
            }
        };
        assert_eq!(taken(connected).await, Ok(false), "it still belongs to who is connected");
        assert_eq!(taken(gone).await, Ok(true), "this one was forgotten");
    });
}

async fn test_other(broker: &Broker) -> i64 {
    let (key, at) = ("4".repeat(64), broker.clock.now());
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
    let frame = crate::wire::Send {
        id: Some(id.to_owned()),
        target_spec: to.to_owned(),
        priority: "next".into(),
        client_message_id: Some(id.to_owned()),
        request_fingerprint: Some("ab".repeat(32)),
        ..crate::wire::Send::default()
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
        broker.clock.sleep(Duration::from_millis(5)).await;
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
