//! `daemon outbox list` and `daemon outbox requeue`.

use super::command::{Command, Flag, MESH, Parsed, one, switch};
use super::print::{columns, inline};
use super::send::read_whole;
use super::{Context, Failure, exit};
use crate::client::OutboxQuery;
use claudemesh_daemon::api::bodies::{OutboxRow, RequeueBody};
use serde_json::json;
use std::fs::File;

/// The most rows that the daemon puts into one answer.
const LIMIT_MAX: usize = 500;

const PENDING: Flag = switch("pending", "only what waits");
const INFLIGHT: Flag = switch("inflight", "only what is being sent");
const DONE: Flag = switch("done", "only what the broker has");
const FAILED: Flag = switch("failed", "only what the broker refused, or what expired");
const ABORTED: Flag = switch("aborted", "only what was requeued or given up");
const LIMIT: Flag = one("limit", "n", "at most this many (50)");

pub(super) const LIST: Command = Command {
    name: "daemon outbox list",
    aliases: &["outbox list"],
    flags: &[PENDING, INFLIGHT, DONE, FAILED, ABORTED, MESH, LIMIT],
    about: "what was sent, newest first",
    examples: &["claudemesh outbox list --failed"],
    ..Command::new(list)
};

fn list(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let statuses = [
        (PENDING, "pending"),
        (INFLIGHT, "inflight"),
        (DONE, "done"),
        (FAILED, "dead"),
        (ABORTED, "aborted"),
    ];
    let query = OutboxQuery {
        status: parsed.choice(&statuses)?.map(str::to_owned),
        mesh: parsed.owned(MESH),
        limit: parsed.count(LIMIT, LIMIT_MAX)?,
        cursor: None,
    };
    let page = context.ask(async |client| client.outbox(&query).await)?;
    context.print.answer(&json!(page), || {
        if page.items.is_empty() {
            return "(empty)".to_owned();
        }
        columns(&page.items.iter().map(row).collect::<Vec<_>>())
    })?;
    if page.next_cursor.is_some() && !context.print.is_json() {
        context.print.note("there are more: raise --limit");
    }
    Ok(exit::OK)
}

fn row(row: &OutboxRow) -> Vec<String> {
    let mut about = vec![format!("attempts={}", row.attempts)];
    let notes = [
        ("→ ", &row.broker_message_id),
        ("requeued as ", &row.superseded_by),
        ("", &row.last_error),
    ];
    for (before, text) in notes {
        about.extend(text.as_deref().map(|text| format!("{before}{}", inline(text))));
    }
    if let Some(receipt) = &row.receipt {
        about.push(format!("stored by {} of {}", receipt.stored, receipt.recipients));
        if receipt.expired > 0 {
            about.push(format!("expired for {}", receipt.expired));
        }
    }
    if row.may_have_been_sent && row.status != "done" {
        about.push("(may have been sent)".to_owned());
    }
    vec![
        inline(&row.status),
        inline(&row.id),
        format!("cid={}", inline(&row.client_message_id)),
        format!("{} in {}", known(&row.to), known(&row.mesh)),
        about.join("  "),
    ]
}

/// A recipient or a mesh, or a word for one that an earlier version did not record.
pub(super) fn known(place: &str) -> String {
    if place.is_empty() { "(unknown)".to_owned() } else { inline(place) }
}

const NEW_CLIENT_ID: Flag = one("new-client-id", "id", "the id of the new message; else minted");
const PATCH_PAYLOAD: Flag =
    one("patch-payload", "file", "send this instead; - reads standard input");
const FORCE: Flag = switch("force", "also when an attempt may have reached the broker");
const ID: Flag = one("id", "id", "older spelling of <id>");
const NEW_ID: Flag = one("new-id", "id", "older spelling of --new-client-id");
const AUTO: Flag = switch("auto", "older spelling of no --new-client-id");

pub(super) const REQUEUE: Command = Command {
    name: "daemon outbox requeue",
    aliases: &["outbox requeue"],
    operands: &["[id]"],
    flags: &[NEW_CLIENT_ID, PATCH_PAYLOAD, FORCE, ID, NEW_ID, AUTO],
    about: "send a failed message again, under a new id",
    details: "<id> is the row's id in `outbox list`. The old row stays, as aborted.",
    examples: &[
        "claudemesh outbox requeue 01JD8Q4M700000000000000042",
        "echo shorter | claudemesh outbox requeue 01JD8Q4M700000000000000042 --patch-payload -",
    ],
    ..Command::new(requeue)
};

fn requeue(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = parsed.operands.first().map(String::as_str).or_else(|| parsed.value(ID));
    let id = id.ok_or_else(|| {
        Failure::usage("<id> is missing").hint("it is the row's id in `claudemesh outbox list`")
    })?;
    let payload = match parsed.value(PATCH_PAYLOAD) {
        None => None,
        Some("-") => Some(read_whole(std::io::stdin().lock(), "standard input")?),
        Some(path) => {
            let file = File::open(path)
                .map_err(|error| Failure::failed(format!("cannot read {path}: {error}")))?;
            Some(read_whole(file, path)?)
        }
    };
    if payload.as_ref().is_some_and(String::is_empty) {
        return Err(Failure::usage("--patch-payload is empty").hint("a message has some text"));
    }
    let request = RequeueBody {
        id: id.to_owned(),
        new_client_message_id: parsed.owned(NEW_CLIENT_ID).or_else(|| parsed.owned(NEW_ID)),
        payload,
        aborted_by: None,
        force: parsed.has(FORCE),
    };
    let done = context.ask(async |client| client.requeue(&request).await);
    let done = done.map_err(|failure| match failure.code.as_str() {
        "attempt_unanswered" => failure.hint("--force accepts a possible second copy"),
        "daemon_unanswered" => {
            failure.hint("look at `claudemesh outbox list` before you repeat it")
        }
        _ => failure,
    })?;
    context.print.answer(&json!(done), || {
        let (old, new, id) =
            (&done.aborted_row_id, &done.new_row_id, inline(&done.new_client_message_id));
        let mut text = format!("requeued: {} is now {} ({id})", inline(old), inline(new));
        if done.may_have_been_sent {
            text += "; the broker may have the first one too";
        }
        text
    })
}
