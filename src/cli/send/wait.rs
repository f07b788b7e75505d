//! Waits for what becomes of a message, and says why it did not arrive.

use super::line;
use crate::client::{Client, Error};
use crate::print::Tone;
use crate::{Context, Failure, exit};
use claudemesh_daemon::api::bodies::{MessageStatus, ReceiptBody, Sent};
use serde_json::{Value, json};
use std::time::Duration;

/// The pause between two looks at a message: short at first, because a broker may be near.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// What `--wait` and `--delivered` wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// The broker has it.
    Done,
    /// Everybody it is for has stored it (§4.13).
    Delivered,
}

/// Looks at the message until it has arrived or failed for good, or the time is over.
pub(super) async fn wait_for(
    context: &Context,
    client: &Client,
    to: &str,
    sent: Sent,
    wait_target: WaitFor,
    wait: Duration,
) -> Result<u8, Failure> {
    let seconds = humantime::format_duration(wait);
    let state = format!("queued, waiting up to {seconds},");
    let id = &sent.client_message_id;
    context.print.progress(&line(&state, to, &sent.mesh, id, sent.encryption));
    let deadline = context.runtime.monotonic() + wait;
    let mut pause = POLL_INTERVAL_MIN;
    loop {
        let last_status = client.message(id).await;
        match &last_status {
            Ok(message) if message.status == "done" => match (wait_target, &message.receipt) {
                (WaitFor::Done, _) => return done(context, to, message, &sent),
                (WaitFor::Delivered, None) => return Err(receipt_unavailable(message)),
                (WaitFor::Delivered, Some(receipt)) if receipt.delivered => {
                    return done(context, to, message, &sent);
                }
                (WaitFor::Delivered, Some(receipt)) if is_final(receipt) => {
                    return Err(undelivered(message, receipt));
                }
                (WaitFor::Delivered, Some(_)) => {}
            },
            Ok(message) if message.status == "dead" || message.status == "aborted" => {
                return Err(permanently_failed(message));
            }
            // The daemon may run again soon.
            Ok(_) | Err(Error::NotRunning | Error::NotWritten(_) | Error::Unanswered(_)) => {}
            Err(_) => {}
        }
        let left = deadline.saturating_sub(context.runtime.monotonic());
        if left.is_zero() {
            return Err(wait_timed_out(context, client, id, &last_status, &sent.mesh).await);
        }
        context.runtime.sleep(pause.min(left)).await;
        pause = (pause * 2).min(POLL_INTERVAL_MAX);
    }
}

fn done(context: &Context, to: &str, message: &MessageStatus, sent: &Sent) -> Result<u8, Failure> {
    let done = Sent {
        status: message.status.clone(),
        broker_message_id: message.broker_message_id.clone(),
        history_id: message.history_id.clone(),
        ..sent.clone()
    };
    let mut value = json!(done);
    value["ok"] = true.into();
    value["via"] = "daemon".into();
    value["receipt"] = json!(message.receipt);
    context.print.answer(&value, || {
        let state = context.print.paint(Tone::Good, &delivery_state(message.receipt.as_ref()));
        line(&state, to, &done.mesh, &done.client_message_id, done.encryption)
    })
}

/// How far a message has come that the broker has.
fn delivery_state(receipt: Option<&ReceiptBody>) -> String {
    match receipt {
        Some(ReceiptBody { delivered: true, recipients: 1, .. }) => {
            "delivered and stored".to_owned()
        }
        Some(ReceiptBody { delivered: true, recipients, .. }) => {
            format!("delivered and stored by all {recipients}")
        }
        Some(ReceiptBody { recipients, stored, .. }) if *stored > 0 => {
            format!("delivered to the broker, stored by {stored} of {recipients},")
        }
        _ => "delivered to the broker".to_owned(),
    }
}

/// Whether the receipt will not change any more.
const fn is_final(receipt: &ReceiptBody) -> bool {
    receipt.stored.saturating_add(receipt.expired) >= receipt.recipients
}

/// The failure of a message that the broker has, and for which it gives no receipts.
fn receipt_unavailable(message: &MessageStatus) -> Failure {
    let id = &message.client_message_id;
    let words = format!("the broker has message {id}, and does not tell who has stored it");
    Failure::new(exit::NOT_IN_TIME, "receipt_unavailable", words)
        .hint("this broker has no `delivery_receipts`: wait without --delivered")
        .with("message", json!(message))
        .with("client_message_id", id.as_str())
}

/// The failure of a message that the broker has, and that some of its recipients will never store.
fn undelivered(message: &MessageStatus, receipt: &ReceiptBody) -> Failure {
    let (id, ReceiptBody { recipients, stored, .. }) = (&message.client_message_id, receipt);
    let words = match recipients {
        0 => format!("message {id} was for nobody: no member was there to receive it"),
        _ => format!(
            "message {id} was stored by {stored} of {recipients}, and will not be by the others: it waited too long for them, or they left the mesh"
        ),
    };
    Failure::new(exit::FAILED, "undelivered", words)
        .with("message", json!(message))
        .with("client_message_id", id.as_str())
}

fn permanently_failed(message: &MessageStatus) -> Failure {
    let id = &message.client_message_id;
    let why = message.last_error.as_deref().unwrap_or("no reason given");
    let (code, words, hint) = match &message.superseded_by {
        Some(other) => (
            "aborted",
            format!("message {id} was requeued as {other}"),
            format!("follow that one: claudemesh outbox list (row {other})"),
        ),
        None if message.status == "aborted" => (
            "aborted",
            format!("message {id} was given up"),
            "send it anew, without --id".to_owned(),
        ),
        None => (
            "dead",
            format!("the broker will not take message {id}: {why}"),
            "see `claudemesh outbox list --failed`; requeue it once the cause is gone".to_owned(),
        ),
    };
    Failure::new(exit::FAILED, code, words)
        .hint(hint)
        .with("message", json!(message))
        .with("client_message_id", id.as_str())
}

/// The failure of a message whose time is over: where it is, and what it waits for.
async fn wait_timed_out(
    context: &Context,
    client: &Client,
    id: &str,
    last_status: &Result<MessageStatus, Error>,
    mesh: &str,
) -> Failure {
    let (status, value) = match last_status {
        Ok(message) if message.status == "done" => {
            ("with the broker, not yet stored by everybody it is for".to_owned(), json!(message))
        }
        Ok(message) => (message.status.clone(), json!(message)),
        Err(error) => (format!("of unknown state ({error})"), Value::Null),
    };
    let is_done = matches!(last_status, Ok(message) if message.status == "done");
    let look_again = if is_done { "outbox list --done" } else { "outbox list --pending" };
    let mut words = format!("message {id} is still {status}");
    if !is_done
        && let Ok(health) = client.health().await
        && let Some(link) = health.meshes.iter().find(|link| link.mesh == mesh)
        && link.link != "open"
    {
        words += &format!("; the link of mesh `{mesh}` is {}", link.link);
        for why in [&link.reason, &link.remedy].into_iter().flatten() {
            words += &format!(": {why}");
        }
    }
    Failure::new(exit::NOT_IN_TIME, "not_delivered_in_time", words)
        .with("message", value)
        .with("client_message_id", id)
        .hint(format!("the daemon goes on; look again with `{}`", context.command(look_again)))
}
