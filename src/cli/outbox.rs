//! `daemon outbox list` and `daemon outbox requeue`.

use super::args::Parsed;
use super::context::Context;
use super::exit;
use super::failure::Failure;
use super::print::{columns, inline};
use super::send::read_whole;
use crate::client::OutboxQuery;
use claudemesh_daemon::api::bodies::{OutboxRow, RequeueBody};
use serde_json::json;
use std::fs::File;

/// The most that the daemon answers at once.
const LIMIT_MAX: usize = 500;
/// Flags, and the status each stands for.
const STATUSES: [(&str, &str); 5] = [
    ("pending", "pending"),
    ("inflight", "inflight"),
    ("done", "done"),
    ("failed", "dead"),
    ("aborted", "aborted"),
];

/// `daemon outbox list`
pub(super) fn list(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let chosen: Vec<_> = STATUSES.iter().filter(|(flag, _)| parsed.has(flag)).collect();
    let status = match chosen[..] {
        [] => None,
        [(_, status)] => Some((*status).to_owned()),
        _ => {
            let flags: Vec<_> = chosen.iter().map(|(flag, _)| format!("--{flag}")).collect();
            return Err(Failure::usage(format!("{} exclude each other", flags.join(" and "))));
        }
    };
    let query = OutboxQuery {
        status,
        mesh: parsed.value("mesh").map(str::to_owned),
        limit: parsed.count("limit", LIMIT_MAX)?,
        cursor: None,
    };
    let page = context.block_on(async {
        let client = context.daemon().await?;
        client.outbox(&query).await.map_err(|error| context.explain(error))
    })?;
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

/// A place, or a word for one that an earlier daemon did not record.
pub(super) fn known(place: &str) -> String {
    if place.is_empty() { "(unknown)".to_owned() } else { inline(place) }
}

/// `daemon outbox requeue`
pub(super) fn requeue(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = parsed.operands.first().map(String::as_str).or_else(|| parsed.value("id"));
    let id = id.ok_or_else(|| {
        Failure::usage("<id> is missing").hint("it is the row's id in `claudemesh outbox list`")
    })?;
    let payload = match parsed.value("patch-payload") {
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
        new_client_message_id: parsed
            .value("new-client-id")
            .or_else(|| parsed.value("new-id"))
            .map(str::to_owned),
        payload,
        aborted_by: None,
        force: parsed.has("force"),
    };
    let done = context.block_on(async {
        let client = context.daemon().await?;
        client.requeue(&request).await.map_err(|error| {
            let failure = context.explain(error);
            match failure.code.as_str() {
                "attempt_unanswered" => failure.hint("--force accepts a possible second copy"),
                "daemon_unanswered" => {
                    failure.hint("look at `claudemesh outbox list` before you repeat it")
                }
                _ => failure,
            }
        })
    })?;
    context.print.answer(&json!(done), || {
        let (old, new, id) =
            (&done.aborted_row_id, &done.new_row_id, inline(&done.new_client_message_id));
        let mut text = format!("requeued: {} is now {} ({id})", inline(old), inline(new));
        if done.may_have_been_sent {
            text += "; the broker may have the first one too";
        }
        text
    })?;
    Ok(exit::OK)
}
