//! The table of close codes (`specs/wire.md`), played by a broker: what the link then is, how soon
//! it dials again, and what it tells the operator.

use super::rig::{Rig, Saw, rig};
use crate::port::LinkView;
use claudemesh_fsm::link::{Cause, Closed, LinkState, RetryPolicy};
use serde_json::json;
use std::fmt::Write;

/// Codes and reasons a broker may close with.
const CLOSES: [(u16, &str); 26] = [
    (1000, "session_replaced"),
    (1000, "disconnected"),
    (1000, "disconnected_stale"),
    (1000, ""),
    (1001, "shutting down"),
    (1008, "timestamp_skew"),
    (1008, "capacity"),
    (1008, "bad_signature"),
    (1008, "unauthorized"),
    (1008, "malformed"),
    (1008, "bad_session_pubkey"),
    (1008, "expired"),
    (1008, "revoked"),
    (1008, ""),
    (1009, "message too big"),
    (1011, "unavailable"),
    (1012, "restarting"),
    (3000, "what"),
    (4000, "what"),
    (4001, "kicked"),
    (4001, "kicked_stale"),
    (4002, "banned"),
    (4003, "replaced_by_newer_connection"),
    (4004, "member_already_connected"),
    (4010, "{}"),
    (4999, "what"),
];
/// What a broker may answer a hello with.
const HELLO_ERRORS: [&str; 14] = [
    "timestamp_skew",
    "capacity",
    "bad_signature",
    "unauthorized",
    "malformed",
    "bad_session_pubkey",
    "bad_parent_pubkey",
    "attestation_mismatch",
    "expired",
    "ttl_too_long",
    "parent_member_id_mismatch",
    "revoked",
    "unavailable",
    "never_heard_of",
];

fn retry_policy(cause: Cause) -> &'static str {
    match cause.retry_policy() {
        RetryPolicy::Backoff => "back-off",
        RetryPolicy::Slow => "minutes",
        RetryPolicy::Never => "never",
    }
}

fn row(page: &mut String, what: &str, cause: Cause, view: &LinkView) {
    let state = view.state.as_str();
    let _ = writeln!(page, "{what}\n  {state}, dials again: {}", retry_policy(cause));
    let _ = writeln!(page, "  reason  {}", view.reason.as_deref().unwrap_or("-"));
    let _ = writeln!(page, "  remedy  {}\n", view.remedy.as_deref().unwrap_or("-"));
    assert_eq!(
        view.state == LinkState::Refused,
        cause.retry_policy() == RetryPolicy::Never,
        "{what}"
    );
}

/// The next state in which nothing happens by itself for now.
async fn resting(rig: &Rig) -> LinkView {
    loop {
        if let Saw::Down(view) = rig.saw().await
            && matches!(view.state, LinkState::Waiting | LinkState::Refused)
        {
            return view;
        }
    }
}

#[test]
fn every_close_code_leads_where_the_table_says_and_is_shown_with_its_remedy() {
    let mut page = String::new();
    let text = &mut page;
    rig(|rig| async move {
        for (code, reason) in CLOSES {
            rig.open().await.close(code, reason).await;
            let view = resting(&rig).await;
            assert_eq!(view.close_code, Some(code), "{code} {reason}");
            let closed = Closed { code: Some(code), reason: reason.to_owned() };
            row(text, &format!("{code} {reason}"), Cause::of_close(&closed), &view);
            rig.redial();
        }
        // 1005 and 1006 are never sent: a close without a code, and none at all.
        let mut peer = rig.open().await;
        peer.0.close(None).await.expect("closed");
        row(text, "1005", Cause::of_close(&Closed::default()), &resting(&rig).await);
        drop(rig.open().await);
        let mut view = resting(&rig).await;
        // How a socket ends differs from run to run.
        view.reason =
            view.reason.map(|it| it.split_once(": ").map_or(it.clone(), |it| it.0.into()));
        row(text, "1006", Cause::of_close(&Closed::default()), &view);
    });
    super::pin("closed-by-code", &page);
}

#[test]
fn every_rejected_hello_leads_where_the_table_says_and_is_shown_with_its_remedy() {
    let mut page = String::new();
    let text = &mut page;
    rig(|rig| async move {
        for code in HELLO_ERRORS {
            let mut peer = rig.accept().await;
            peer.recv().await;
            peer.send(&json!({"type": "error", "code": code, "message": "no"})).await;
            peer.close_frame().await;
            row(text, &format!("error {code}"), Cause::of_hello(code), &resting(&rig).await);
            rig.redial();
        }
    });
    super::pin("closed-hello-rejected", &page);
}
