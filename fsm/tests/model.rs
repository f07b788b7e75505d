//! The delivery contract (§4.12), explored exhaustively within a bound: caller × operator × sender ×
//! broker × receiver, with a fault possible at each step.
//!
//! `specs/model.md` says what is modelled, what is left out, the bounds and the counts. What is
//! decided in the product's `fsm` is decided here by the same code; the order of durable steps is
//! the product's; the rest is this model's.

#[path = "model/broker.rs"]
mod broker;
#[path = "model/explore.rs"]
mod explore;
#[path = "model/promises.rs"]
mod promises;
#[path = "model/receiver.rs"]
mod receiver;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/sender.rs"]
mod sender;
#[path = "model/state.rs"]
mod state;
#[path = "model/table.rs"]
mod table;
#[path = "model/world.rs"]
mod world;

use broker::Mood;
use explore::{Broken, Counterexample, Model, explore};
use promises::Asked;
use rules::Rules;
use state::Left;
use world::{Action, Bound, Mesh};

const fn bound(ids: u8, requests: u8, wishes: u8, faults: u8) -> Bound {
    Bound { ids, left: Left { requests, wishes, faults } }
}

/// Explores, and says how much there was.
#[allow(clippy::print_stdout, reason = "the counts are a result: shown by `--nocapture`")]
fn explore_all(mesh: Mesh) {
    let begun = std::time::Instant::now();
    match explore(&mesh) {
        Ok(explored) => println!("{:?}: {explored} in {:.1?}", mesh.bound, begun.elapsed()),
        Err(broken) => panic!("{broken:?}"),
    }
}

fn the_product_keeps_every_promise(bound: Bound) {
    explore_all(Mesh { bound, rules: Rules::KEPT, asked: Asked::Kept });
}

#[test]
fn the_contract_holds_for_one_message_with_three_faults() {
    the_product_keeps_every_promise(bound(1, 2, 1, 3));
}

#[test]
fn the_contract_holds_for_two_messages() {
    the_product_keeps_every_promise(bound(2, 3, 1, 1));
}

/// Any bound: `CLAUDEMESH_MODEL_BOUND=<ids>,<requests>,<wishes>,<faults>`.
#[test]
#[ignore = "minutes and gigabytes: see specs/model.md"]
fn the_contract_holds_within_a_larger_bound() {
    let text = std::env::var("CLAUDEMESH_MODEL_BOUND").unwrap_or_else(|_| "1,1,1,4".to_owned());
    let numbers: Result<Vec<u8>, _> = text.split(',').map(str::parse).collect();
    let Ok([ids, requests, wishes, faults]) = numbers.as_deref() else {
        panic!("CLAUDEMESH_MODEL_BOUND is `{text}`: four numbers with commas were expected");
    };
    the_product_keeps_every_promise(bound(*ids, *requests, *wishes, *faults));
}

/// A product without one of its rules breaks `promise`, and the explorer notices.
fn is_needed_for(promise: Broken, rules: Rules) -> Box<Counterexample<Mesh>> {
    let mesh = Mesh { bound: bound(1, 2, 1, 2), rules, asked: Asked::Kept };
    let broken = explore(&mesh).expect_err("a broken rule breaks a promise");
    assert_eq!(broken.promise, promise, "{broken:?}");
    broken
}

#[test]
fn an_answer_before_the_commit_is_a_promise_that_a_crash_breaks() {
    let rules = Rules { answers_after_commit: false, ..Rules::KEPT };
    let broken = is_needed_for(promises::ACCEPTED_STAYS, rules);
    assert!(matches!(broken.trace[..], [Action::Ask { .. }, Action::Restart { .. }]));
}

#[test]
fn an_id_that_takes_any_body_loses_one() {
    is_needed_for(promises::ACCEPTED_STAYS, Rules { binds_ids: false, ..Rules::KEPT });
}

#[test]
fn an_unguarded_done_revives_an_aborted_row() {
    is_needed_for(promises::FINAL_STAYS, Rules { guards_done: false, ..Rules::KEPT });
}

#[test]
fn an_unguarded_expiry_kills_a_row_that_has_ended() {
    is_needed_for(promises::FINAL_STAYS, Rules { guards_expiry: false, ..Rules::KEPT });
}

#[test]
fn without_recovery_a_crash_leaves_a_row_that_nobody_sends() {
    let rules = Rules { recovers: false, ..Rules::KEPT };
    is_needed_for(promises::SOMEBODY_SENDS, rules);
    let mesh = Mesh { bound: bound(1, 1, 0, 1), rules, asked: Asked::Only(promises::ENDS) };
    explore(&mesh).expect_err("such a row never ends, either");
}

#[test]
fn without_the_brokers_dedupe_a_retry_is_a_second_message() {
    is_needed_for(promises::ONE_MESSAGE, Rules { deduplicates: false, ..Rules::KEPT });
}

#[test]
fn a_receiver_drops_the_second_message_of_a_broker_without_dedupe() {
    let rules = Rules { deduplicates: false, ..Rules::KEPT };
    let asked = Asked::Only(promises::STORED_ONCE);
    explore_all(Mesh { bound: bound(1, 1, 0, 2), rules, asked });
}

#[test]
fn an_acknowledgement_before_the_commit_loses_a_message() {
    is_needed_for(promises::STORED_THEN_ACKED, Rules { stores_before_ack: false, ..Rules::KEPT });
}

#[test]
fn without_the_seen_table_a_message_is_stored_twice() {
    is_needed_for(promises::STORED_ONCE, Rules { knows_what_it_saw: false, ..Rules::KEPT });
}

#[test]
fn a_start_that_doubts_nothing_denies_what_a_power_cut_made_it_forget() {
    let rules = Rules { doubts_after_power_cut: false, ..Rules::KEPT };
    let broken = is_needed_for(promises::UNSENT_IS_UNSENT, rules);
    assert!(broken.trace.iter().any(|action| matches!(action, Action::PowerCut { .. })));
}

#[test]
fn a_late_refusal_ends_the_next_attempt_unless_what_is_owed_is_counted() {
    is_needed_for(promises::OWN_ANSWER, Rules { counts_given_up: false, ..Rules::KEPT });
}

/// The story behind it: what was refused is the frame that timed out, and the broker takes the next.
#[test]
fn a_late_refusal_does_not_end_the_next_attempt() {
    let story = [
        Action::Ask { id: 0, body: 0 },
        Action::Claim { row: 0 },
        Action::Write { hand: 0 },
        Action::TimeOut { hand: 0 },
        Action::Settle { hand: 0 },
        Action::Claim { row: 0 },
        Action::Write { hand: 0 },
        Action::BrokerRefuses { mood: Mood::Blocking },
        Action::Hear,
        Action::BrokerTakes,
        Action::Hear,
        Action::Settle { hand: 0 },
    ];
    let mesh = Mesh { bound: bound(1, 1, 0, 2), rules: Rules::KEPT, asked: Asked::Kept };
    let world = story.iter().fold(mesh.initial(), |world, action| {
        let mut allowed = Vec::new();
        mesh.actions(&world, &mut allowed);
        assert!(allowed.contains(action), "{action:?} is none of {allowed:?}");
        mesh.step(&world, *action)
    });
    let row = world.sender.table[0];
    assert_eq!(row.status, claudemesh_fsm::outbox::Status::Done);
    assert!(world.is_at_the_broker((row.id, row.body)));
}
