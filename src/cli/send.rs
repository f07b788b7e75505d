//! `send`: hands a message to the daemon, and says truthfully what became of it.
//!
//! The id is made here when nobody gave one, so that a request whose answer was lost is sent again
//! as the same message and never as a second one.

use super::args::Parsed;
use super::context::Context;
use super::exit;
use super::failure::Failure;
use super::print::{Tone, inline};
use crate::client::{Client, Error};
use claudemesh_daemon::api::bodies::{Encryption, MessageStatus, ReceiptBody, SendBody, Sent};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::time::Duration;

/// The longest message that is read, in bytes: a daemon takes no longer request (§1.2).
pub(super) const MESSAGE_BYTES_MAX: u64 = 256 * 1024;
/// How often one message is offered to the daemon.
const ATTEMPTS_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// `--wait` without a time.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Between two looks at a message: short at first, for a broker that is near.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(500);
/// What a daemon says that will have time in a moment.
const BUSY: [&str; 2] = ["daemon_busy", "too_many_connections"];
const PRIORITIES: [&str; 3] = ["now", "next", "low"];

/// `send <to> <message>`
pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let message = message(parsed, || context.runtime.mint_id())?;
    let until = if parsed.has("delivered") { Until::Delivered } else { Until::Done };
    let wait = match (parsed.has("wait"), parsed.duration("wait")?) {
        (false, _) if until == Until::Done => None,
        (_, wait) => Some(wait.unwrap_or(WAIT_DEFAULT)),
    };
    context.block_on(async {
        let client = context.daemon().await?;
        let sent = send(context, &client, &message).await?;
        match wait {
            None => report(context, &message.to, &sent),
            Some(wait) => wait_for(context, &client, &message.to, sent, until, wait).await,
        }
    })
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The broker has it.
    Done,
    /// Everybody it is for has stored it (§4.13).
    Delivered,
}

fn message(parsed: &Parsed, mint_id: impl FnOnce() -> String) -> Result<SendBody, Failure> {
    let (to, words) = parsed.operands.split_first().expect("<to> is required by the table");
    let text = match words {
        [dash] if dash == "-" => read_whole(std::io::stdin().lock(), "standard input")?,
        words => words.join(" "),
    };
    if text.is_empty() {
        return Err(Failure::usage("<message> is empty"));
    }
    let expected = "now, next or low";
    let priority = parsed
        .parsed("priority", expected, |text| PRIORITIES.contains(&text).then(|| text.to_owned()))?;
    let own = |flag| parsed.value(flag).map(str::to_owned);
    Ok(SendBody {
        to: to.clone(),
        message: text,
        mesh: own("mesh"),
        priority,
        meta: meta(&parsed.values("meta"))?,
        reply_to_id: own("reply-to"),
        // Always ours: without it a retry could not be told from a new message.
        client_message_id: Some(own("id").unwrap_or_else(mint_id)),
        mentions: None,
    })
}

/// Text from a file or standard input, at most [`MESSAGE_BYTES_MAX`].
pub(super) fn read_whole(from: impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MESSAGE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > MESSAGE_BYTES_MAX {
        let message = format!("{name} is longer than {MESSAGE_BYTES_MAX} bytes");
        return Err(Failure::usage(message).hint("send a link, or several messages"));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{name} is not UTF-8 text")))
}

fn meta(pairs: &[&str]) -> Result<Option<Box<RawValue>>, Failure> {
    let mut meta = Map::new();
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::usage(format!("--meta is {pair:?}; expected name=value")))?;
        if meta.insert(name.to_owned(), value.into()).is_some() {
            return Err(Failure::usage(format!("--meta names {name:?} twice")));
        }
    }
    let is_given = !meta.is_empty();
    Ok(is_given.then(|| to_raw_value(&meta).expect("text keys")))
}

/// Offers the message until the daemon answers. What was written and not answered is offered again
/// here, with the same id, and nowhere else (§8).
async fn send(context: &Context, client: &Client, message: &SendBody) -> Result<Sent, Failure> {
    let mut may_be_taken = false;
    let mut attempt = 1;
    loop {
        let error = match client.send(message).await {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        let is_worth_another = match &error {
            Error::Unanswered(_) => {
                may_be_taken = true;
                true
            }
            Error::NotWritten(_) => true,
            Error::Problem(problem) => BUSY.contains(&problem.error.as_str()),
            // A daemon that took it may be restarting; one that did not is simply not there.
            Error::NotRunning | Error::Unreachable(_) => may_be_taken,
            Error::BadAnswer(_) => false,
        };
        if !is_worth_another || attempt == ATTEMPTS_MAX {
            return Err(if may_be_taken && !tells_of_the_id(&error) {
                unknown(message, &error)
            } else {
                context.explain(error)
            });
        }
        attempt += 1;
        context.runtime.sleep(RETRY_PAUSE).await;
    }
}

/// Whether an answer holds for every request of its id. A daemon that is busy, or that cannot read
/// its outbox, speaks of one request: another one before it may have been taken all the same. One
/// without room has looked the id up.
fn tells_of_the_id(error: &Error) -> bool {
    let Error::Problem(problem) = error else { return false };
    let has_not_looked = match problem.status {
        429 => true,
        507 => false,
        status => status >= 500,
    };
    !has_not_looked && !problem.error.is_empty()
}

fn unknown(message: &SendBody, error: &Error) -> Failure {
    let id = message.client_message_id.as_deref().unwrap_or_default();
    let words = format!("it is unknown whether the daemon has message {id}: {error}");
    Failure::new(exit::FAILED, "outcome_unknown", words)
        .with("client_message_id", id)
        .hint(format!("repeat the command with --id {id}: it cannot be sent twice"))
}

/// What the answer says, and no more.
fn report(context: &Context, to: &str, sent: &Sent) -> Result<u8, Failure> {
    let mut value = json!(sent);
    value["ok"] = true.into();
    value["via"] = "daemon".into();
    context.print.answer(&value, || {
        let again = sent.duplicate == Some(true);
        let state = match (sent.status.as_str(), again) {
            ("done", _) => context.print.paint(Tone::Good, "delivered to the broker"),
            ("queued", false) => "queued".to_owned(),
            (status, _) => format!("already accepted ({})", inline(status)),
        };
        line(&state, to, &sent.mesh, &sent.client_message_id, sent.encryption)
    })?;
    Ok(exit::OK)
}

fn line(state: &str, to: &str, mesh: &str, id: &str, encryption: Encryption) -> String {
    let (to, mesh, id) = (inline(to), inline(mesh), inline(id));
    let sealed = match encryption {
        Encryption::Direct => "",
        Encryption::None => ", not encrypted",
    };
    format!("{state} for {to} in {mesh} ({id}, via daemon{sealed})")
}

/// Looks until the message came to an end, or time did.
async fn wait_for(
    context: &Context,
    client: &Client,
    to: &str,
    sent: Sent,
    until: Until,
    wait: Duration,
) -> Result<u8, Failure> {
    let seconds = humantime::format_duration(wait);
    let state = format!("queued, waiting up to {seconds},");
    let id = &sent.client_message_id;
    context.print.progress(&line(&state, to, &sent.mesh, id, sent.encryption));
    let deadline = context.runtime.monotonic() + wait;
    let mut pause = LOOK_PAUSE_MIN;
    loop {
        let looked = client.message(id).await;
        match &looked {
            Ok(message) if message.status == "done" => match (until, &message.receipt) {
                (Until::Done, _) => return done(context, to, message, &sent),
                (Until::Delivered, None) => return Err(untold(message)),
                (Until::Delivered, Some(receipt)) if receipt.delivered => {
                    return done(context, to, message, &sent);
                }
                (Until::Delivered, Some(receipt)) if is_final(receipt) => {
                    return Err(undelivered(message, receipt));
                }
                (Until::Delivered, Some(_)) => {}
            },
            Ok(message) if message.status == "dead" || message.status == "aborted" => {
                return Err(never(message));
            }
            // It runs again soon, or time ends.
            Ok(_) | Err(Error::NotRunning | Error::NotWritten(_) | Error::Unanswered(_)) => {}
            Err(_) => {}
        }
        let left = deadline.saturating_sub(context.runtime.monotonic());
        if left.is_zero() {
            return Err(late(context, client, id, &looked, &sent.mesh).await);
        }
        context.runtime.sleep(pause.min(left)).await;
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
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
        let state = context.print.paint(Tone::Good, &came_to(message.receipt.as_ref()));
        line(&state, to, &done.mesh, &done.client_message_id, done.encryption)
    })?;
    Ok(exit::OK)
}

/// How far a message that is done has come.
fn came_to(receipt: Option<&ReceiptBody>) -> String {
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

/// Whether no more will be learned.
const fn is_final(receipt: &ReceiptBody) -> bool {
    receipt.stored.saturating_add(receipt.expired) >= receipt.recipients
}

/// The broker has it, and cannot say more.
fn untold(message: &MessageStatus) -> Failure {
    let id = &message.client_message_id;
    let words = format!("the broker has message {id}, and does not tell who has stored it");
    Failure::new(exit::NOT_IN_TIME, "receipt_unavailable", words)
        .hint("this broker has no `delivery_receipts`: wait without --delivered")
        .with("message", json!(message))
        .with("client_message_id", id.as_str())
}

/// The broker has it, and not everybody it is for will.
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

fn never(message: &MessageStatus) -> Failure {
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

/// Time is over: says where the message is and what it waits for.
async fn late(
    context: &Context,
    client: &Client,
    id: &str,
    looked: &Result<MessageStatus, Error>,
    mesh: &str,
) -> Failure {
    let (status, value) = match looked {
        Ok(message) if message.status == "done" => {
            ("with the broker, not yet stored by everybody it is for".to_owned(), json!(message))
        }
        Ok(message) => (message.status.clone(), json!(message)),
        Err(error) => (format!("of unknown state ({error})"), Value::Null),
    };
    let is_done = matches!(looked, Ok(message) if message.status == "done");
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

#[cfg(test)]
mod tests;
