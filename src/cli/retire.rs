//! `daemon outbox inspect`, `daemon outbox abort` and `daemon outbox prune`.

use super::args::Parsed;
use super::context::Context;
use super::exit;
use super::failure::Failure;
use super::inbox::instant;
use super::outbox::known;
use super::print::{columns, inline};
use claudemesh_daemon::api::bodies::{ChainLink, Inspected, PruneBody, Pruned};
use serde_json::json;

/// `daemon outbox inspect`
pub(super) fn inspect(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.operands[0];
    let inspected = context.block_on(async {
        let client = context.daemon().await?;
        client.outbox_row(id).await.map_err(|error| context.explain(error))
    })?;
    context.print.answer(&json!(inspected), || page(&inspected))?;
    Ok(exit::OK)
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

/// `daemon outbox abort`
pub(super) fn abort(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.operands[0];
    let aborted = context.block_on(async {
        let client = context.daemon().await?;
        client.abort(id).await.map_err(|error| {
            let failure = context.explain(error);
            match failure.code.as_str() {
                "daemon_unanswered" => failure
                    .hint(format!("look at `claudemesh outbox inspect {id}` before you repeat it")),
                _ => failure,
            }
        })
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
    })?;
    Ok(exit::OK)
}

/// `daemon outbox prune`
pub(super) fn prune(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let before = instant(parsed, "before", context.runtime.now())?.ok_or_else(|| {
        Failure::usage("--before is missing")
            .hint("how old a finished row must be: `--before 7d`, or a time")
    })?;
    let confirm = parsed.has("confirm");
    let rows = context.block_on(async {
        let client = context.daemon().await?;
        let mut rows = 0;
        let mut body = PruneBody { before: before.clone(), confirm, cursor: None };
        loop {
            let answer = client.prune(&body).await;
            let Pruned { rows: more, next_cursor, .. } =
                answer.map_err(|error| context.explain(error))?;
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
    })?;
    Ok(exit::OK)
}
