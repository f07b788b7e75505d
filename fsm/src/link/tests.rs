//! The link, driven through every state and every way down (§15.5).

use super::*;
use crate::negotiate::{FeaturePolicy, Silence};
use alloc::vec::Vec;

const HALF: u32 = u32::MAX / 2 + 1;
const AT: Duration = Duration::from_secs(1000);

fn offline() -> Offline {
    Offline::new(Timers::default())
}

fn greeting() -> Greeting<&'static str> {
    offline().dial().connected("socket", AT)
}

fn open() -> Open<&'static str> {
    greeting().greeted(AT).agreed(Negotiated::legacy(), AT)
}

fn close(code: u16, reason: &str) -> Closed {
    Closed { code: Some(code), reason: reason.to_owned() }
}

fn hello_error(code: &str) -> HelloError {
    HelloError { code: code.to_owned(), ahead_ms: None }
}

fn waits(next: NextState) -> Waiting {
    match next {
        NextState::Wait(waiting) => waiting,
        NextState::Refused(refused) => panic!("refused: {refused:?}"),
    }
}

fn refuses(next: NextState) -> Refused {
    match next {
        NextState::Refused(refused) => refused,
        NextState::Wait(waiting) => panic!("waits: {waiting:?}"),
    }
}

#[test]
fn a_link_opens_step_by_step_and_an_open_link_holds_its_socket() {
    let greeting = offline().dial().connected("socket", AT);
    assert_eq!(greeting.deadline(), AT + HELLO_MAX);
    let negotiating = greeting.greeted(AT + Duration::from_secs(1));
    assert_eq!(negotiating.deadline(), AT + Duration::from_secs(1) + NEGOTIATION_MAX);
    let open = negotiating.agreed(Negotiated::legacy(), AT + Duration::from_secs(2));
    assert_eq!(*open.socket(), "socket");
    assert_eq!(open.opened_at(), AT + Duration::from_secs(2));
    assert!(open.negotiated().legacy);
}

#[test]
fn every_close_code_does_what_the_table_says() {
    use RetryPolicy::{Backoff, Never, Slow};
    let table = [
        (1000, "session_replaced", Cause::SessionReplaced, Slow),
        (1000, "disconnected", Cause::Closed, Backoff),
        (1000, "disconnected_stale", Cause::Closed, Backoff),
        (1000, "", Cause::Closed, Backoff),
        (1001, "shutting down", Cause::ShuttingDown, Backoff),
        (1005, "", Cause::Closed, Backoff),
        (1006, "", Cause::Closed, Backoff),
        (1008, "timestamp_skew", Cause::ClockSkew, Backoff),
        (1008, "expired", Cause::ClockSkew, Backoff),
        (1008, "ttl_too_long", Cause::ClockSkew, Backoff),
        (1008, "capacity", Cause::Capacity, Slow),
        (1008, "bad_signature", Cause::HelloRejected, Slow),
        (1008, "malformed", Cause::HelloRejected, Slow),
        (1008, "bad_session_pubkey", Cause::HelloRejected, Slow),
        (1008, "bad_parent_pubkey", Cause::HelloRejected, Slow),
        (1008, "attestation_mismatch", Cause::HelloRejected, Slow),
        (1008, "parent_member_id_mismatch", Cause::HelloRejected, Slow),
        (1008, "unauthorized", Cause::Unauthorized, Slow),
        (1008, "revoked", Cause::Revoked, Never),
        (1008, "", Cause::HelloRejected, Slow),
        (1009, "", Cause::FrameTooLarge, Backoff),
        (1011, "", Cause::Closed, Backoff),
        (4000, "", Cause::UnknownCode, Slow),
        (4001, "kicked", Cause::Kicked, Never),
        (4001, "kicked_stale", Cause::Kicked, Never),
        (4002, "banned", Cause::Revoked, Never),
        (4003, "replaced_by_newer_connection", Cause::ReplacedByNewer, Never),
        (4004, "member_already_connected", Cause::AlreadyConnected, Never),
        (4010, "{}", Cause::Negotiation, Never),
        (4999, "", Cause::UnknownCode, Slow),
    ];
    for (code, reason, cause, retry_policy) in table {
        let closed = close(code, reason);
        for next in [
            greeting().closed(&closed, HALF),
            greeting().greeted(AT).closed(&closed, HALF),
            open().closed(&closed, AT, HALF),
        ] {
            assert_eq!(cause.retry_policy(), retry_policy);
            if retry_policy == Never {
                let refused = refuses(next);
                assert_eq!((refused.cause(), refused.close_code()), (cause, Some(code)));
                assert!(!refused.remedy().is_empty());
                assert!(refused.reason().contains(reason), "{}", refused.reason());
            } else {
                let waiting = waits(next);
                assert_eq!(waiting.cause(), cause, "{code} {reason}");
                assert!(waiting.reason().contains(&code.to_string()));
                let delay_ms = if retry_policy == Slow { 225_000 } else { 500 };
                assert_eq!(waiting.delay_ms(), delay_ms, "{code} {reason}");
            }
        }
    }
}

#[test]
fn a_connection_that_just_went_away_is_dialled_again() {
    let waiting = waits(open().closed(&Closed::default(), AT, HALF));
    assert_eq!((waiting.cause(), waiting.reason()), (Cause::Closed, "the connection went away"));
    assert_eq!(waiting.remedy(), None);
    let local = Closed { code: None, reason: "connection reset".to_owned() };
    assert_eq!(waits(open().closed(&local, AT, HALF)).reason(), "connection reset");
}

#[test]
fn a_rejected_hello_is_read_by_its_code() {
    for (code, cause) in [
        ("timestamp_skew", Cause::ClockSkew),
        ("capacity", Cause::Capacity),
        ("bad_signature", Cause::HelloRejected),
        ("unauthorized", Cause::Unauthorized),
        ("no_hello", Cause::HelloRejected),
        ("never heard of", Cause::HelloRejected),
    ] {
        let waiting = waits(greeting().rejected(&hello_error(code), HALF));
        assert_eq!(waiting.cause(), cause);
        assert_eq!(waiting.reason(), format!("hello rejected: {code}"));
        assert!(waiting.remedy().is_some());
    }
    let skewed = |ahead_ms| {
        let error = HelloError { ahead_ms: Some(ahead_ms), ..hello_error("timestamp_skew") };
        waits(greeting().rejected(&error, 0))
    };
    assert!(skewed(1).remedy().is_some_and(|remedy| remedy.contains("clock")));
    for (ahead_ms, words) in [(95_400, "95 s ahead of"), (-3_600_000, "3600 s behind")] {
        let reason = skewed(ahead_ms).reason().to_owned();
        assert!(reason.contains(&format!("this host's clock is {words} the broker's")), "{reason}");
    }
    let theirs = waits(greeting().rejected(&hello_error("unavailable"), 0));
    assert_eq!((theirs.cause().retry_policy(), theirs.remedy()), (RetryPolicy::Backoff, None));
    for code in ["revoked", "member_already_connected"] {
        let refused = refuses(greeting().rejected(&hello_error(code), HALF));
        assert_eq!(refused.close_code(), None);
    }
}

#[test]
fn a_clone_is_told_both_remedies() {
    for code in [4003, 4004] {
        let refused = refuses(open().closed(&close(code, ""), AT, HALF));
        assert!(refused.remedy().contains("claudemesh daemon reload"));
        assert!(refused.remedy().contains("claudemesh join <invite> --home"));
    }
}

#[test]
fn failures_in_a_row_back_off_up_to_the_cap() {
    let mut waiting = offline().dial().failed("refused", u32::MAX);
    let mut delays = Vec::from([waiting.delay_ms()]);
    for _ in 0..6 {
        waiting = waiting.redial().connected((), AT).timed_out(u32::MAX);
        delays.push(waiting.delay_ms());
    }
    assert_eq!(delays, [999, 1999, 3999, 7999, 15_999, 29_999, 29_999]);
    assert_eq!(waiting.failures(), 7);
    let soon = waiting.redial().failed("refused", 0);
    assert_eq!(soon.delay_ms(), 1);
}

#[test]
fn the_cap_is_the_operators_for_slow_waits_too() {
    let timers = Timers { cap_ms: 40, ..Timers::default() };
    let dial = || Offline::new(timers).dial();
    assert_eq!(dial().failed("refused", u32::MAX).delay_ms(), 39);
    let full = hello_error("capacity");
    for (jitter, delay_ms) in [(0, 200), (HALF, 300), (u32::MAX, 399)] {
        let next = dial().connected((), AT).rejected(&full, jitter);
        assert_eq!(waits(next).delay_ms(), delay_ms);
    }
    let timers = Timers { cap_ms: 0, ..Timers::default() };
    let next = Offline::new(timers).dial().connected((), AT).rejected(&full, 0);
    assert_eq!(waits(next).delay_ms(), 1);
}

#[test]
fn only_a_stable_or_useful_connection_forgets_earlier_failures() {
    let flaky = || {
        let mut waiting = offline().dial().failed("refused", 0);
        for _ in 0..3 {
            waiting = waiting.redial().failed("refused", 0);
        }
        waiting.redial().connected((), AT).greeted(AT).agreed(Negotiated::legacy(), AT)
    };
    let failures = |next| waits(next).failures();
    let gone = Closed::default();
    let almost = AT + STABLE_AFTER - Duration::from_millis(1);
    assert_eq!(failures(flaky().closed(&gone, almost, 0)), 5);
    assert_eq!(failures(flaky().closed(&gone, AT + STABLE_AFTER, 0)), 1);
    assert_eq!(flaky().dead(AT + DEAD_AFTER, 0).failures(), 1);
    let mut useful = flaky();
    useful.note_delivery();
    assert_eq!(failures(useful.closed(&gone, AT, 0)), 1);
    // Time that runs backwards proves nothing.
    assert_eq!(failures(flaky().closed(&gone, Duration::ZERO, 0)), 5);
}

#[test]
fn a_failed_negotiation_stays_down_and_names_its_feature() {
    let Silence::Missing(refusal) = negotiate::on_no_answer(&FeaturePolicy::default(), false)
    else {
        panic!("let in")
    };
    let refused = greeting().greeted(AT).refused(&refusal);
    assert_eq!(refused.close_code(), Some(4010));
    assert!(refused.reason().contains(negotiate::DEDUPE));
    assert!(refused.remedy().contains("--allow-legacy-broker"));
    let above = MaxAgeRefused { hours: 200, hours_max: 167 };
    let refused = greeting().greeted(AT).max_age_refused(above);
    assert_eq!(refused.cause().as_str(), "outbox_max_age_above_dedupe_window");
    assert_eq!(refused.remedy(), "set outbox.max_age_hours to 167 or less");
    assert_eq!(refused.reset(), offline());
}

#[test]
fn a_slow_negotiation_is_tried_again_and_says_what_to_change() {
    let waiting = greeting().greeted(AT).timed_out(HALF);
    assert_eq!((waiting.cause(), waiting.delay_ms()), (Cause::NegotiationTimeout, 500));
    assert!(waiting.remedy().is_some_and(|remedy| remedy.contains("link.negotiation_ms")));
}

#[test]
fn a_revoked_member_stays_down_without_a_close() {
    let refused = open().revoked("member_revoked");
    assert_eq!((refused.cause(), refused.close_code()), (Cause::Revoked, None));
    assert_eq!(refused.reason(), "the broker says member_revoked");
}

#[test]
fn silence_is_pinged_and_then_fatal() {
    let timers = Timers::default();
    let at = Duration::from_secs;
    for (heard, pinged, now, expected) in [
        (0, 0, 0, KeepaliveAction::SleepUntil(at(30))),
        (0, 0, 29, KeepaliveAction::SleepUntil(at(30))),
        (0, 0, 30, KeepaliveAction::Ping),
        (0, 30, 30, KeepaliveAction::SleepUntil(at(60))),
        (0, 60, 61, KeepaliveAction::SleepUntil(at(75))),
        (0, 60, 75, KeepaliveAction::Dead),
        (50, 60, 75, KeepaliveAction::SleepUntil(at(90))),
        (0, 0, 500, KeepaliveAction::Dead),
        (10, 0, 5, KeepaliveAction::SleepUntil(at(30))),
    ] {
        assert_eq!(
            timers.keepalive(at(heard), at(pinged), at(now)),
            expected,
            "{heard} {pinged} {now}"
        );
    }
    assert!(matches!(
        timers.keepalive(Duration::MAX, Duration::MAX, at(0)),
        KeepaliveAction::SleepUntil(Duration::MAX)
    ));
}

#[test]
fn every_state_and_cause_has_a_word_of_its_own() {
    let mut words: Vec<&str> = LinkState::ALL.iter().map(|state| state.as_str()).collect();
    words.extend(Cause::ALL.iter().map(|cause| cause.as_str()));
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
    for cause in Cause::ALL {
        assert!(
            cause.retry_policy() != RetryPolicy::Never || cause.remedy().is_some(),
            "{cause:?}"
        );
    }
}
