//! What is forgotten, and what a clock that is wrong may not bring about.

use super::super::tests::{Fixture, NOW, create_topic, fixture, key, message, receipt, recipients};
use super::*;
use claudemesh_fsm::envelope::Destination;
use smol::future::block_on;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MONTH: Retention = Retention { message_ms: 30 * DAY_MS };

fn direct(id: &str, at: Millis) -> IncomingMessage {
    IncomingMessage {
        now: at,
        dedupe_expires_at: None,
        ..message(id, 1, Destination::Member(key(1)))
    }
}

impl Fixture {
    fn expire(&self, now: Millis) -> Expired {
        block_on(self.ledger.expire(now, MONTH)).expect("expires")
    }

    fn sweep(&self, now: Millis) -> usize {
        block_on(self.ledger.sweep(now)).expect("sweeps")
    }

    fn messages(&self) -> i64 {
        let check = block_on(self.ledger.check()).expect("checks");
        assert!(check.is_whole(), "{check:?}");
        check.messages
    }

    fn store(&self, n: usize) {
        let seqs = self.due_deliveries(n).iter().map(|queued| queued.seq).collect();
        block_on(self.ledger.acknowledge(self.members[n].seq, seqs)).expect("stores");
    }
}

#[test]
fn a_message_that_everybody_has_goes_and_a_retry_is_still_a_duplicate() {
    let broker = fixture(3);
    let everyone = IncomingMessage { destination: Ok(Destination::Everyone), ..direct("all", NOW) };
    recipients(broker.send(0, everyone));
    recipients(broker.send(0, IncomingMessage { client: None, ..direct("anonymous", NOW) }));
    broker.store(1);
    let later = NOW.plus(DELIVERED_KEPT_MS);
    assert_eq!(broker.sweep(NOW.plus(1)), 0, "a sender may just be asking again");
    assert_eq!((broker.sweep(later), broker.messages()), (1, 1), "one still waits for somebody");
    broker.store(2);
    assert_eq!((broker.sweep(later), broker.messages()), (1, 0));
    assert_eq!(receipt(&broker, 0, "all"), (2, 2, 0), "the receipt outlives the body");
    let again = IncomingMessage { destination: Ok(Destination::Everyone), ..direct("all", later) };
    let answer = broker.send(0, again);
    let Ok(AcceptOutcome::Duplicate(seen)) = answer.as_deref() else { panic!("is a duplicate") };
    assert_eq!(seen.broker_message_id.as_str(), "b-all");
    assert_eq!((seen.recipients, seen.history_available), (Some(2), false));
}

#[test]
fn what_nobody_gets_and_no_topic_remembers_goes_and_a_topics_past_stays() {
    let broker = fixture(1);
    create_topic(&broker);
    let to = |id, target| IncomingMessage { destination: Ok(target), ..direct(id, NOW) };
    assert!(
        recipients(broker.send(0, to("group", Destination::Group("nobody".into())))).is_empty()
    );
    assert!(recipients(broker.send(0, to("topic", Destination::Topic("t1".into())))).is_empty());
    assert_eq!(broker.sweep(NOW.plus(DELIVERED_KEPT_MS)), 1);
    assert_eq!(broker.messages(), 1);
}

#[test]
fn a_sweep_goes_on_behind_the_messages_that_wait() {
    let broker = fixture(3);
    let count = usize::try_from(AT_ONCE).expect("fits") + 10;
    for n in 0..count {
        let to = Destination::Member(key(1 + n % 2));
        recipients(
            broker
                .send(0, IncomingMessage { destination: Ok(to), ..direct(&format!("m{n}"), NOW) }),
        );
    }
    for _ in 0..2 {
        broker.store(2);
    }
    assert_eq!(broker.sweep(NOW.plus(DELIVERED_KEPT_MS)), count / 2);
    assert_eq!(broker.messages(), i64::try_from(count / 2).expect("fits"));
}

#[test]
fn a_message_from_the_future_does_not_keep_the_old_ones() {
    let broker = fixture(2);
    recipients(broker.send(0, direct("ahead", NOW.plus(365 * DAY_MS))));
    recipients(broker.send(0, direct("old", NOW)));
    broker.expire(NOW);
    for day in 1..=31 {
        broker.expire(NOW.plus(day * DAY_MS));
    }
    let left: Vec<_> = broker.due_deliveries(1).into_iter().map(|m| m.push.message_id).collect();
    assert_eq!(left, ["b-ahead"]);
}

#[test]
fn a_clock_that_is_ahead_for_a_moment_costs_no_mail_and_no_id() {
    let broker = fixture(2);
    recipients(broker.send(0, direct("waits", NOW)));
    let soon =
        IncomingMessage { dedupe_expires_at: Some(NOW.plus(40 * DAY_MS)), ..direct("id", NOW) };
    recipients(broker.send(0, soon));
    broker.expire(NOW);
    let year = NOW.plus(365 * DAY_MS);
    for now in [year, year.plus(1), year.plus(1000), NOW.plus(5000)] {
        assert_eq!(broker.expire(now), Expired::default(), "{now:?}");
    }
    // What the time really is counts, and what was lost on the way is caught up.
    for day in 1..=29 {
        assert_eq!(broker.expire(NOW.plus(day * DAY_MS)), Expired::default(), "day {day}");
    }
    for half_day in 60..=63 {
        broker.expire(NOW.plus(half_day * DAY_MS / 2));
    }
    assert_eq!(broker.messages(), 0);
}

/// How SQLite goes about a statement.
fn plan(broker: &Fixture, sql: &'static str) -> String {
    let explain: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {sql}").into_boxed_str());
    let steps = broker.ledger.db.read(move |tx| tx.query(explain, &[], |row| row.text(3)));
    block_on(steps).expect("explains").join("\n")
}

#[test]
fn a_night_finds_what_it_removes_by_an_index() {
    let broker = fixture(1);
    for (sql, index) in [
        (FORGET_IDS, "dedupe_forgettable"),
        (FORGET_SESSION_KEYS, "session_key_by_time"),
        (PAST_THEIR_TIME, "message_by_time"),
        (UNDELIVER, "delivery_by_message"),
        (DELIVERED, "message_by_time"),
        (DELIVERED, "delivery_by_message"),
    ] {
        let plan = plan(&broker, sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
    }
}
