//! The ledger's promises, on real files.

mod membership_status;

use super::*;
use claudemesh_base::wire::SendFrame;
use claudemesh_fsm::envelope::Destination;
use claudemesh_fsm::id::{Fingerprint, Millis};
use smol::future::block_on;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) const NOW: Millis = Millis(1_750_000_000_000);

pub(super) struct Fixture {
    _dir: tempfile::TempDir,
    pub(super) ledger: SqliteLedger,
    pub(super) members: Vec<Member>,
}

pub(super) fn key(n: usize) -> String {
    format!("{n:064x}")
}

/// A mesh `m` with members 0 to `count` - 1.
pub(super) fn fixture(count: usize) -> Fixture {
    let dir = tempfile::tempdir().expect("a temp dir");
    let ledger = SqliteLedger::open(dir.path()).expect("opens");
    let members = block_on(async {
        let mesh = Mesh {
            id: "m".into(),
            slug: "test".into(),
            owner_pubkey: key(999),
            root_key: "r".into(),
            connection_policy: "prefer_newest".into(),
            created_at: NOW,
        };
        assert!(ledger.insert_mesh(mesh.clone()).await.expect("inserts"));
        assert!(!ledger.insert_mesh(Mesh { id: "n".into(), ..mesh }).await.expect("answers"));
        for n in 0..count {
            let (id, key, name) = (format!("id{n}"), key(n), format!("name{n}"));
            ledger.add_member("m", &id, &key, &name, "member", NOW).await.expect("adds");
        }
        ledger.members("m").await.expect("reads")
    });
    Fixture { _dir: dir, ledger, members }
}

impl Fixture {
    fn sender(&self, n: usize) -> MessageSender {
        let member = &self.members[n];
        MessageSender {
            mesh_id: "m".into(),
            member: member.seq,
            member_pubkey: member.pubkey.clone(),
            routing_key: member.pubkey.clone(),
            name: member.display_name.clone(),
            other_connection: None,
        }
    }

    pub(super) fn send(&self, from: usize, message: IncomingMessage) -> Accepted {
        block_on(self.ledger.accept(
            self.sender(from),
            message,
            Box::new(|_| Ok(())),
            Box::new(|_| ()),
        ))
    }

    fn queued(&self, n: usize) -> i64 {
        block_on(self.ledger.queued(self.members[n].seq)).expect("counts")
    }

    pub(super) fn due_deliveries(&self, n: usize) -> Vec<QueuedMessage> {
        let mailbox = QueueFilter {
            member: self.members[n].seq,
            routing_key: self.members[n].pubkey.clone(),
            takes_member_messages: true,
        };
        block_on(self.ledger.due_deliveries(mailbox, 0, 100)).expect("reads")
    }

    fn is_whole(&self) -> bool {
        block_on(self.ledger.check()).expect("checks").is_whole()
    }
}

pub(super) fn message(id: &str, fingerprint: u8, destination: Destination) -> IncomingMessage {
    IncomingMessage {
        id: format!("b-{id}"),
        client: Some((id.into(), Fingerprint::new([fingerprint; 32]))),
        destination: Ok(destination),
        frame: SendFrame {
            target_spec: "spec".into(),
            priority: "next".into(),
            nonce: "AAAA".into(),
            ciphertext: "Qk9E".into(),
            ..SendFrame::default()
        },
        now: NOW,
        dedupe_expires_at: Some(NOW.plus(1000)),
    }
}

pub(super) fn recipients(accepted: Accepted) -> Vec<i64> {
    match accepted.as_deref() {
        Ok(AcceptOutcome::First { recipients, .. }) => {
            recipients.iter().map(|recipient| recipient.member).collect()
        }
        other => panic!("is not the first: {other:?}"),
    }
}

#[test]
fn an_id_is_accepted_once_and_known_ever_after() {
    let broker = fixture(2);
    assert_eq!(recipients(broker.send(0, message("a", 1, Destination::Member(key(1))))).len(), 1);
    let again =
        IncomingMessage { id: "b-other".into(), ..message("a", 1, Destination::Member(key(1))) };
    let answer = broker.send(0, again);
    let Ok(AcceptOutcome::Duplicate(seen)) = answer.as_deref() else { panic!("is a duplicate") };
    assert_eq!(seen.broker_message_id.as_str(), "b-a");
    assert!(seen.history_available);
    let other =
        IncomingMessage { id: "b-x".into(), ..message("a", 2, Destination::Member(key(1))) };
    let answer = broker.send(0, other);
    let Ok(AcceptOutcome::Mismatch { broker_message_id, broker_fingerprint_prefix }) =
        answer.as_deref()
    else {
        panic!("is a mismatch")
    };
    assert_eq!(
        (broker_message_id.as_str(), broker_fingerprint_prefix.as_str()),
        ("b-a", "0101010101010101")
    );
    // Another sender's same id is another message.
    let theirs =
        IncomingMessage { id: "b-y".into(), ..message("a", 2, Destination::Member(key(0))) };
    assert_eq!(recipients(broker.send(1, theirs)).len(), 1);
    assert_eq!((broker.queued(0), broker.queued(1)), (1, 1));
    assert!(broker.is_whole());
}

#[test]
fn a_known_id_is_answered_before_anything_else_is_looked_at() {
    let broker = fixture(2);
    recipients(broker.send(0, message("a", 1, Destination::Member(key(1)))));
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let admit = move |_: &dyn Fn() -> u64| {
        seen.fetch_add(1, Ordering::Relaxed);
        Err(Refusal::RateLimited)
    };
    let bad = IncomingMessage {
        destination: Err(Refusal::Invalid("x".into())),
        ..message("a", 1, Destination::Everyone)
    };
    let answer =
        block_on(broker.ledger.accept(broker.sender(0), bad, Box::new(admit), Box::new(|_| ())));
    assert!(matches!(answer.as_deref(), Ok(AcceptOutcome::Duplicate(_))));
    assert_eq!(asked.load(Ordering::Relaxed), 0, "the rate limit is not touched");
}

#[test]
fn a_refusal_in_the_transaction_leaves_the_id_free() {
    let broker = fixture(2);
    let refusals = [
        (Destination::Member(key(77)), Refusal::UnknownRecipient),
        (Destination::Topic("none".into()), Refusal::UnknownTopic("none".into())),
        (Destination::Member(key(0)), Refusal::OnlyYourself),
    ];
    for (target, expected) in refusals {
        let Err(AcceptError::Refused(refusal)) = broker.send(0, message("a", 1, target)) else {
            panic!("is refused")
        };
        assert_eq!(refusal, expected);
    }
    let limited = message("a", 1, Destination::Member(key(1)));
    let refuse = |_: &dyn Fn() -> u64| Err(Refusal::RateLimited);
    let limited = block_on(broker.ledger.accept(
        broker.sender(0),
        limited,
        Box::new(refuse),
        Box::new(|_| ()),
    ));
    assert!(matches!(limited, Err(AcceptError::Refused(Refusal::RateLimited))));
    assert_eq!(recipients(broker.send(0, message("a", 9, Destination::Member(key(1))))).len(), 1);
    assert!(broker.is_whole());
}

#[test]
fn groups_topics_and_everybody_reach_their_members_but_the_sender() {
    let broker = fixture(4);
    let seq = |n: usize| broker.members[n].seq;
    let group =
        |name: &str| vec![claudemesh_base::wire::hello::Group { name: name.into(), role: None }];
    block_on(async {
        let ledger = &broker.ledger;
        for (n, name) in [(0, "eng"), (1, "eng/core"), (2, "engine"), (3, "eng")] {
            ledger.join_groups("m", seq(n), group(name), false).await.expect("joins");
        }
        let topic = TopicRow { visibility: "private".into(), ..topic("t1", "deploys") };
        assert!(ledger.create_topic("m", seq(0), topic.clone()).await.expect("creates").1);
        assert!(!ledger.create_topic("m", seq(0), topic).await.expect("finds").1);
    });
    let to = |id: &str, target| recipients(broker.send(0, message(id, 1, target)));
    assert_eq!(to("g", Destination::Group("eng".into())), [seq(1), seq(3)]);
    assert_eq!(to("h", Destination::Group("nobody".into())), [0_i64; 0]);
    assert_eq!(to("e", Destination::Everyone), [seq(1), seq(2), seq(3)]);
    assert_eq!(to("t", Destination::Topic("deploys".into())), [0_i64; 0]);
    let outsider = broker.send(1, message("o", 1, Destination::Topic("t1".into())));
    assert!(matches!(outsider, Err(AcceptError::Refused(Refusal::MayNotWrite(_)))));
    let topic = TopicKey { mesh_id: "m".into(), member: seq(0), topic: "deploys".into() };
    let (_, page) = block_on(broker.ledger.topic_history(topic, None, None)).expect("reads");
    assert_eq!(page.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["b-t"]);
    assert!(broker.is_whole());
}

#[test]
fn mail_waits_in_order_until_it_is_acknowledged() {
    let broker = fixture(2);
    for n in 0..5 {
        recipients(broker.send(0, message(&format!("a{n}"), n, Destination::Member(key(1)))));
    }
    let waiting = broker.due_deliveries(1);
    let ids: Vec<_> = waiting.iter().map(|queued| queued.push.message_id.as_str()).collect();
    assert_eq!(ids, ["b-a0", "b-a1", "b-a2", "b-a3", "b-a4"]);
    assert_eq!(waiting[0].push.client_message_id.as_deref(), Some("a0"));
    let member = broker.members[1].seq;
    block_on(broker.ledger.acknowledge(member, vec![waiting[0].seq])).expect("acks");
    block_on(broker.ledger.acknowledge_by_id(member, "b-a3")).expect("acks");
    block_on(broker.ledger.acknowledge_by_id(member, "b-a3")).expect("acks again");
    assert_eq!(broker.queued(1), 3);
    assert!(broker.is_whole());
}

#[test]
fn mail_for_a_session_key_is_for_that_key_alone() {
    let broker = fixture(2);
    let (member, session) = (broker.members[1].seq, key(55));
    let bind = |who: i64| block_on(broker.ledger.bind_session_key("m", &session, who, NOW));
    assert_eq!(bind(member), Ok(true));
    assert_eq!(bind(member), Ok(true));
    assert_eq!(bind(broker.members[0].seq), Ok(false), "nobody takes another's key");
    let own = block_on(broker.ledger.bind_session_key("m", &key(0), member, NOW));
    assert_eq!(own, Ok(false), "nor a member key");
    recipients(broker.send(0, message("s", 1, Destination::Member(session.clone()))));
    assert!(broker.due_deliveries(1).is_empty());
    let mailbox = QueueFilter { member, routing_key: session, takes_member_messages: false };
    assert_eq!(block_on(broker.ledger.due_deliveries(mailbox, 0, 9)).expect("reads").len(), 1);
}

#[test]
fn a_message_past_its_time_goes_and_its_id_stays() {
    let broker = fixture(2);
    recipients(broker.send(0, message("old", 1, Destination::Member(key(1)))));
    let keep = Retention { message_ms: 1000 };
    let later = NOW.plus(2000);
    let fresh = IncomingMessage { now: later, ..message("new", 1, Destination::Member(key(1))) };
    recipients(broker.send(0, fresh));
    let expired = block_on(broker.ledger.expire(NOW.plus(500), keep)).expect("expires");
    assert_eq!(expired.messages, 0);
    // The dedupe row of `old` is past its time as well, but not before its message.
    let expired = block_on(broker.ledger.expire(NOW.plus(1001), Retention { message_ms: 2000 }));
    assert_eq!(expired.expect("expires").dedupe, 0);
    let kept = IncomingMessage {
        dedupe_expires_at: None,
        ..message("kept", 1, Destination::Member(key(1)))
    };
    recipients(broker.send(0, kept));
    let expired = block_on(broker.ledger.expire(later, keep)).expect("expires");
    assert_eq!((expired.messages, expired.undelivered, expired.dedupe), (2, 2, 1));
    assert!(broker.is_whole());
}

#[test]
fn a_full_queue_refuses_one_sender_and_is_left_out_of_many() {
    let broker = fixture(3);
    let member = broker.members[1].seq;
    block_on(broker.ledger.fill_mailbox(member));
    let direct = broker.send(0, message("d", 1, Destination::Member(key(1))));
    assert!(matches!(direct, Err(AcceptError::Refused(Refusal::QueueFull))));
    let all = recipients(broker.send(0, message("e", 1, Destination::Everyone)));
    assert_eq!(all, [broker.members[2].seq]);
}

#[test]
fn a_revoked_member_neither_sends_nor_receives() {
    let broker = fixture(3);
    let revoke = || block_on(broker.ledger.revoke_member(&broker.members[1], NOW));
    assert_eq!((revoke(), revoke()), (Ok(true), Ok(false)), "once");
    let from = broker.send(1, message("f", 1, Destination::Member(key(0))));
    assert!(matches!(from, Err(AcceptError::Refused(Refusal::NotAMember))));
    let to = broker.send(0, message("t", 1, Destination::Member(key(1))));
    assert!(matches!(to, Err(AcceptError::Refused(Refusal::UnknownRecipient))));
    let all = recipients(broker.send(0, message("e", 1, Destination::Everyone)));
    assert_eq!(all, [broker.members[2].seq]);
}

#[test]
fn an_invite_is_used_up_and_a_member_burns_none() {
    let broker = fixture(1);
    invite(&broker);
    let join = |id: &str, n: usize, at: Millis| {
        block_on(broker.ledger.join("tok", "m", id, &key(n), "x", at)).expect("answers")
    };
    let refused = |joined: JoinOutcome| match joined {
        JoinOutcome::Refused(problem) => problem.code(),
        other => panic!("joined: {other:?}"),
    };
    assert_eq!(refused(join("late", 50, NOW.plus(1000))), "invite_expired");
    assert_eq!(join("again", 0, NOW), JoinOutcome::Already("id0".into()));
    let problem = |at: Millis| {
        let problem = block_on(broker.ledger.invite_problem("tok", "m", at)).expect("answers");
        problem.map(InviteProblem::code)
    };
    assert_eq!((problem(NOW), problem(NOW.plus(1000))), (None, Some("invite_expired")));
    assert_eq!(join("new", 50, NOW), JoinOutcome::New("new".into()));
    assert_eq!(refused(join("third", 51, NOW)), "invite_exhausted");
    assert_eq!(problem(NOW), Some("invite_exhausted"));
}

fn topic(id: &str, name: &str) -> TopicRow {
    TopicRow {
        id: id.into(),
        name: name.into(),
        description: None,
        visibility: "public".into(),
        member_count: 0,
        created_at: NOW,
    }
}

/// A public topic `deploys`, led by the first member.
pub(super) fn create_topic(broker: &Fixture) {
    let lead = broker.members[0].seq;
    block_on(broker.ledger.create_topic("m", lead, topic("t1", "deploys"))).expect("creates");
}

/// An invite `tok` of one use, good for a second.
fn invite(broker: &Fixture) {
    let invite = Invite {
        token: "tok".into(),
        mesh_id: "m".into(),
        role: "member".into(),
        expires_at: NOW.plus(1000),
        uses_max: 1,
        created_at: NOW,
    };
    assert_eq!(block_on(broker.ledger.insert_invite(invite)), Ok(true));
}

pub(super) fn receipt(broker: &Fixture, from: usize, id: &str) -> (u32, u32, u32) {
    let pubkey = broker.members[from].pubkey.clone();
    let ids = vec!["unknown".to_owned(), id.to_owned()];
    let found = block_on(broker.ledger.receipts("m", &pubkey, ids)).expect("reads");
    assert_eq!(found.len(), 1, "an unknown id has no receipt");
    (found[0].recipients, found[0].stored, found[0].expired)
}

#[test]
fn each_recipient_is_counted_once_however_often_it_acknowledges() {
    let broker = fixture(4);
    recipients(broker.send(0, message("all", 1, Destination::Everyone)));
    assert_eq!(receipt(&broker, 0, "all"), (3, 0, 0));
    for (n, stored) in [(1, 1), (2, 2)] {
        let (member, seq) = (broker.members[n].seq, broker.due_deliveries(n)[0].seq);
        let told = block_on(broker.ledger.acknowledge(member, vec![seq, seq])).expect("stores");
        assert_eq!(told.len(), 1, "the second time is no news");
        assert_eq!((told[0].sender, told[0].receipt.stored), (broker.members[0].seq, stored));
        let again = block_on(broker.ledger.acknowledge_by_id(member, "b-all")).expect("stores");
        assert_eq!(again, None);
    }
    assert_eq!(receipt(&broker, 0, "all"), (3, 2, 0));
}

#[test]
fn what_will_never_arrive_is_said_to_have_expired() {
    let broker = fixture(4);
    recipients(broker.send(0, message("all", 1, Destination::Everyone)));
    let (member, seq) = (broker.members[1].seq, broker.due_deliveries(1)[0].seq);
    block_on(broker.ledger.acknowledge(member, vec![seq])).expect("stores");
    let gone = &broker.members[2];
    assert!(block_on(broker.ledger.revoke_member(gone, NOW)).expect("revokes"));
    assert_eq!(receipt(&broker, 0, "all"), (3, 1, 1), "a member that is gone gets nothing");
    let keep = Retention { message_ms: 0 };
    block_on(broker.ledger.expire(NOW.plus(1), keep)).expect("expires");
    assert_eq!(receipt(&broker, 0, "all"), (3, 1, 2), "nor does who did not come in time");
    let again = message("all", 1, Destination::Everyone);
    let answer = broker.send(0, again);
    let Ok(AcceptOutcome::Duplicate(seen)) = answer.as_deref() else { panic!("is a duplicate") };
    assert_eq!((seen.recipients, seen.history_available), (Some(3), false));
}

impl SqliteLedger {
    /// Makes a member's queue look full.
    pub(crate) async fn fill_mailbox(&self, member: i64) {
        let sql = "UPDATE mailbox SET queued = 100000 WHERE member = ?";
        let filled = self.synced(move |tx| tx.execute(sql, &[member.into()]));
        assert_eq!(filled.await, Ok(1));
    }

    /// Keeps the writer busy until the other end is dropped.
    pub(crate) async fn hold_up(&self, until: std::sync::mpsc::Receiver<()>) {
        let held = move |_: &Tx<'_>| -> Result<bool, Error> { Ok(until.recv().is_err()) };
        assert_eq!(self.synced(held).await, Ok(true));
    }

    /// Brings a defect of a statement on its writer's thread.
    pub(crate) async fn break_down(&self) {
        let defect = |_: &Tx<'_>| -> Result<(), Error> { panic!("a defect in a job") };
        assert!(self.synced(defect).await.is_err());
    }
}
