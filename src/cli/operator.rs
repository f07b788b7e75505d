//! `daemon outbox inspect`, `daemon outbox abort` and `daemon outbox prune`.

use super::command::{Command, Flag, Parsed, one, switch};
use super::inbox::instant;
use super::outbox::known;
use super::print::{columns, inline};
use super::{Context, Failure};
use claudemesh_daemon::api::bodies::{ChainLink, Inspected, PruneBody, Pruned};
use serde_json::json;

pub(super) const INSPECT: Command = Command {
    name: "daemon outbox inspect",
    aliases: &["outbox inspect"],
    operands: &["<id>"],
    about: "one row, and what took its place",
    details: "<id> is the row's id in `outbox list`.",
    examples: &["claudemesh outbox inspect 01JD8Q4M700000000000000042"],
    ..Command::new(inspect)
};

fn inspect(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.operands[0];
    let inspected = context.ask(async |client| client.outbox_row(id).await)?;
    context.print.answer(&json!(inspected), || page(&inspected))
}

fn page(inspected: &Inspected) -> String {
    let row = &inspected.row;
    let mut lines = Vec::new();
    let mut line = |name: &str, text: &str| lines.push(vec![name.to_owned(), inline(text)]);
    line("row", &row.id);
    line("id", &row.client_message_id);
    line("to", &format!("{} in {}", known(&row.to), known(&row.mesh)));
    line("status", &row.status);
    line("attempts", &row.attempts.to_string());
    line("accepted", &row.enqueued_at);
    let optional = [
        ("next attempt", &row.next_attempt_at),
        ("delivered", &row.delivered_at),
        ("broker id", &row.broker_message_id),
        ("last error", &row.last_error),
        ("aborted", &row.aborted_at),
        ("aborted by", &row.aborted_by),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            line(name, text);
        }
    }
    if row.may_have_been_sent && row.status != "done" {
        line("unanswered", "an attempt was never answered: the broker may have the message");
    }
    match row.payload_bytes {
        // A message is never empty.
        0 => line("body", "emptied"),
        bytes => line("body", &format!("{bytes} bytes")),
    }
    for ChainLink { id, client_message_id, status } in &inspected.chain {
        line("requeued as", &format!("{id}  cid={client_message_id}  {status}"));
    }
    if inspected.chain_is_cut == Some(true) {
        line("and so on", "inspect the last one");
    }
    columns(&lines)
}

pub(super) const ABORT: Command = Command {
    name: "daemon outbox abort",
    aliases: &["outbox abort"],
    operands: &["<id>"],
    about: "give up a message that waits or has failed",
    details: "<id> is the row's id in `outbox list`. Nothing is sent in its place; the row \
                  stays, as aborted, and its id stays taken.",
    examples: &["claudemesh outbox abort 01JD8Q4M700000000000000042"],
    ..Command::new(abort)
};

fn abort(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.operands[0];
    let aborted = context.ask(async |client| client.abort(id).await);
    let aborted = aborted.map_err(|failure| match failure.code.as_str() {
        "daemon_unanswered" => {
            failure.hint(format!("look at `claudemesh outbox inspect {id}` before you repeat it"))
        }
        _ => failure,
    })?;
    context.print.answer(&json!(aborted), || {
        let id = inline(&aborted.aborted_row_id);
        if aborted.may_have_been_sent {
            format!(
                "aborted: {id} will not be sent again; an attempt was never answered, so the broker may have the message"
            )
        } else {
            format!("aborted: {id} will not be sent")
        }
    })
}

const BEFORE: Flag = one("before", "age", "rows finished before then: 7d, or 2025-06-15T15:06:40Z");
const CONFIRM: Flag = switch("confirm", "do it; without it, only say how many rows it would be");

pub(super) const PRUNE: Command = Command {
    name: "daemon outbox prune",
    aliases: &["outbox prune"],
    flags: &[BEFORE, CONFIRM],
    about: "make finished rows small now, not when they are 30 days old",
    details: "Done and aborted rows keep what a retry is answered from, and lose their body \
                  and the rest for good. What waits, is being sent, or has failed is not touched.",
    examples: &[
        "claudemesh outbox prune --before 7d",
        "claudemesh outbox prune --before 7d --confirm",
    ],
    ..Command::new(prune)
};

fn prune(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let before = instant(parsed, BEFORE, context.runtime.now())?.ok_or_else(|| {
        Failure::usage("--before is missing")
            .hint("how old a finished row must be: `--before 7d`, or a time")
    })?;
    let confirm = parsed.has(CONFIRM);
    let rows = context.ask(async |client| {
        let mut rows = 0;
        let mut body = PruneBody { before: before.clone(), confirm, cursor: None };
        loop {
            let answer = client.prune(&body).await?;
            let Pruned { rows: more, next_cursor, .. } = answer;
            rows += more;
            match next_cursor {
                None => return Ok(rows),
                some => body.cursor = some,
            }
            context.print.progress(&format!("{rows} rows so far…"));
        }
    })?;
    let value = json!({ "rows": rows, "confirmed": confirm, "before": before });
    context.print.answer(&value, || {
        if rows == 0 {
            return "nothing to do: every row that was finished before then is small".to_owned();
        }
        let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        if confirm {
            format!("{rows} made small")
        } else {
            format!("{rows} would be made small; nothing was changed: repeat with --confirm")
        }
    })
}
