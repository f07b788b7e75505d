//! `send`: hands a message to the daemon and reports what became of it.
//!
//! This command makes the message's id when nobody gave one. So a request whose answer was lost can
//! be repeated as the same message, and never becomes a second one.

mod wait;

use super::command::{Command, Flag, Parsed, many, maybe, one, switch};
use super::print::{Tone, inline};
use super::{Context, Failure, exit};
use crate::client::{Client, Error};
use claudemesh_daemon::api::bodies::{Encryption, SendBody, Sent};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, json};
use std::io::Read;
use std::time::Duration;
use wait::{WaitFor, wait_for};

/// The longest message that is read, in bytes: the daemon takes no longer request (§1.2).
pub(super) const MESSAGE_BYTES_MAX: u64 = 256 * 1024;
/// How many times one message is offered to the daemon.
const ATTEMPTS_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// How long `--wait` waits without a time of its own.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The error codes of a daemon that is worth asking again in a moment.
const BUSY: [&str; 2] = ["daemon_busy", "too_many_connections"];
const PRIORITIES: [&str; 3] = ["now", "next", "low"];

const MESH: Flag = one("mesh", "slug", "in this mesh, where more than one could take it");
const PRIORITY: Flag = one("priority", "priority", "now, next (default) or low");
const REPLY_TO: Flag = one("reply-to", "id", "the client_message_id this answers");
const META: Flag = many("meta", "k=v", "a member of the message's meta; may be repeated");
const ID: Flag = one("id", "id", "the message's id; the same id is never sent twice");
const WAIT: Flag = maybe("wait", "30s", "wait until the broker has it");
const DELIVERED: Flag = switch("delivered", "wait until everybody it is for has stored it");

pub(super) const SEND: Command = Command {
    name: "send",
    operands: &["<to>", "<message>..."],
    flags: &[MESH, PRIORITY, REPLY_TO, META, ID, WAIT, DELIVERED],
    about: "send a message",
    details: "<to> is a public key, a name, @group, #topic or * for everybody. <message> - \
                  reads standard input. Only messages to one recipient are sealed end to end.\n\
                  With --wait: exit 0 when the broker has it, 1 when it never will, 6 when time \
                  is over.",
    examples: &[
        "claudemesh send bob 'hello'",
        "claudemesh send '#deploys' 'going out' --wait=5s",
        "git diff | claudemesh send bob - --meta kind=diff",
    ],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let message = message(parsed, || context.runtime.mint_id())?;
    let wait_target = if parsed.has(DELIVERED) { WaitFor::Delivered } else { WaitFor::Done };
    let wait = match (parsed.has(WAIT), parsed.duration(WAIT)?) {
        (false, _) if wait_target == WaitFor::Done => None,
        (_, wait) => Some(wait.unwrap_or(WAIT_DEFAULT)),
    };
    context.block_on(async {
        let client = context.daemon().await?;
        let sent = send(context, &client, &message).await?;
        match wait {
            None => report(context, &message.to, &sent),
            Some(wait) => wait_for(context, &client, &message.to, sent, wait_target, wait).await,
        }
    })
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
        .parsed(PRIORITY, expected, |text| PRIORITIES.contains(&text).then(|| text.to_owned()))?;
    Ok(SendBody {
        to: to.clone(),
        message: text,
        mesh: parsed.owned(MESH),
        priority,
        meta: meta(&parsed.values(META))?,
        reply_to_id: parsed.owned(REPLY_TO),
        // Always ours: without it a retry could not be told from a new message.
        client_message_id: Some(parsed.owned(ID).unwrap_or_else(mint_id)),
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

/// Offers the message until the daemon answers. Only here is a request repeated that was written and
/// not answered, and always with the same id (§8).
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
            Error::InvalidResponse(_) => false,
        };
        if !is_worth_another || attempt == ATTEMPTS_MAX {
            return Err(if may_be_taken && !says_whether_accepted(&error) {
                unknown(message, &error)
            } else {
                context.explain(error)
            });
        }
        attempt += 1;
        context.runtime.sleep(RETRY_PAUSE).await;
    }
}

/// Whether an answer is about the message's id, and so about the earlier attempts too. A daemon that
/// is busy, or cannot read its outbox, answers one request only: it may have taken the message at an
/// earlier attempt. A daemon without room (507) has looked the id up.
fn says_whether_accepted(error: &Error) -> bool {
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

/// Prints what the daemon answered.
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
    })
}

fn line(state: &str, to: &str, mesh: &str, id: &str, encryption: Encryption) -> String {
    let (to, mesh, id) = (inline(to), inline(mesh), inline(id));
    let sealed = match encryption {
        Encryption::Direct => "",
        Encryption::None => ", not encrypted",
    };
    format!("{state} for {to} in {mesh} ({id}, via daemon{sealed})")
}

#[cfg(test)]
mod tests;
