//! `inbox`: prints the messages that arrived, and with `--follow` those that arrive from now on.

use super::command::{Command, Flag, MESH, Parsed, one, switch};
use super::print::{Tone, block, inline};
use super::{Context, Failure, events, exit, peers};
use crate::client::{Client, InboxQuery};
use claudemesh_base::runtime::{iso, parse_iso};
use claudemesh_daemon::api::bodies::{Encryption, InboxMessage, MessageEvent};
use claudemesh_fsm::id::Millis;
use serde_json::{Value, json};
use std::collections::HashSet;

/// What `--limit` is when it is not given.
const LIMIT_DEFAULT: usize = 100;
/// The most messages that one command shows.
const LIMIT_MAX: usize = 1_000_000;
/// The most messages that the daemon puts into one answer.
const PAGE_MAX: usize = 1000;

const FOLLOW: Flag = switch("follow", "go on with what arrives, until Ctrl-C");
const UNREAD: Flag = switch("unread", "only what was not marked as seen");
const TOPIC: Flag = one("topic", "topic", "only this topic");
const FROM: Flag = one("from", "who", "only this sender: a public key, or a name in the roster");
const SINCE: Flag = one("since", "time", "only from then on: 2h, or 2025-06-15T15:06:40Z");
const LIMIT: Flag = one("limit", "n", "at most this many (100)");
const MARK_SEEN: Flag = switch("mark-seen", "mark what is shown as seen");

pub(super) const INBOX: Command = Command {
    name: "inbox",
    flags: &[FOLLOW, UNREAD, MESH, TOPIC, FROM, SINCE, LIMIT, MARK_SEEN],
    about: "what arrived",
    examples: &["claudemesh inbox --unread --mark-seen", "claudemesh inbox --follow --json"],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let limit = parsed.count(LIMIT, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let mut query = InboxQuery {
        mesh: parsed.owned(MESH),
        topic: parsed.owned(TOPIC),
        from: parsed.owned(FROM),
        since: instant(parsed, SINCE, context.runtime.now())?,
        unread_only: parsed.has(UNREAD),
        mark_seen: parsed.has(MARK_SEEN),
        ..InboxQuery::default()
    };
    context.block_on(async {
        let client = context.daemon().await?;
        if let Some(who) = &query.from {
            let mesh = query.mesh.as_deref();
            query.from = Some(peers::key_of(context, &client, mesh, who).await?);
        }
        if parsed.has(FOLLOW) {
            follow(context, &client, &query, limit).await?;
            return Ok(exit::OK);
        }
        let (messages, next_cursor) = pages(context, &client, &query, limit).await?;
        print(context, messages, next_cursor)
    })
}

/// A flag's value as an instant: it is a time, or an age.
pub(super) fn instant(parsed: &Parsed, flag: Flag, now: Millis) -> Result<Option<String>, Failure> {
    parsed.parsed(flag, "an age like 2h, or a time like 2025-06-15T15:06:40Z", |text| {
        if let Some(at) = parse_iso(text) {
            return Some(iso(at));
        }
        let age = humantime::parse_duration(text).ok()?;
        Some(iso(Millis(now.0 - i64::try_from(age.as_millis()).ok()?)))
    })
}

/// The newest `limit` messages, newest first, and the cursor to those before them.
async fn pages(
    context: &Context,
    client: &Client,
    query: &InboxQuery,
    limit: usize,
) -> Result<(Vec<InboxMessage>, Option<String>), Failure> {
    let mut query = query.clone();
    let mut messages = Vec::new();
    loop {
        query.limit = Some((limit - messages.len()).min(PAGE_MAX));
        let page = client.inbox(&query).await.map_err(|error| context.explain(error))?;
        messages.extend(page.items);
        match page.next_cursor {
            Some(cursor) if messages.len() < limit => query.cursor = Some(cursor),
            cursor => return Ok((messages, cursor)),
        }
    }
}

fn print(
    context: &Context,
    messages: Vec<InboxMessage>,
    next_cursor: Option<String>,
) -> Result<u8, Failure> {
    let value = json!({ "items": messages, "next_cursor": next_cursor });
    context.print.answer(&value, || {
        if messages.is_empty() {
            return "nothing".to_owned();
        }
        // The newest stands last, where the reader looks.
        messages.iter().rev().map(|message| line(context, message)).collect::<Vec<_>>().join("\n")
    })
}

/// One message as a line for a person. No text in it is trusted.
pub(super) fn line(context: &Context, message: &InboxMessage) -> String {
    let at = context.print.paint(Tone::Quiet, &inline(&message.received_at));
    let topic = message.topic.as_deref().unwrap_or_default();
    let place = match topic {
        "" => inline(&message.mesh),
        topic => format!("{}#{}", inline(&message.mesh), inline(topic.trim_start_matches('#'))),
    };
    let key: String = inline(&message.sender_pubkey).chars().take(8).collect();
    let sender = message.sender_name.as_deref().map_or_else(|| key.clone(), inline);
    let unread = if message.seen_at.is_none() { "*" } else { " " };
    let open = if message.encryption == Encryption::None { " [not encrypted]" } else { "" };
    let body = match &message.body {
        Some(body) => block(body),
        None => context.print.paint(Tone::Bad, "[cannot be decrypted]"),
    };
    let id = message.client_message_id.as_deref().unwrap_or(&message.broker_message_id);
    let id = context.print.paint(Tone::Quiet, &format!("({})", inline(id)));
    format!("{unread} {at}  {place}  {sender}:{open} {body}  {id}")
}

/// Prints the messages in the inbox, oldest first, and then those that arrive. The stream is opened
/// before the list is read, so that no message falls between them; one that stands in both is
/// printed once.
async fn follow(
    context: &Context,
    client: &Client,
    query: &InboxQuery,
    limit: usize,
) -> Result<(), Failure> {
    let types = ["message".to_owned()];
    let stream = client.events(&types, None).await.map_err(|error| context.explain(error))?;
    let (messages, _) = pages(context, client, query, limit).await?;
    let mut shown = HashSet::new();
    for message in messages.iter().rev() {
        context.print.answer(&json!(message), || line(context, message))?;
        shown.insert(message.id.clone());
    }
    events::follow(context, client, stream, &types, async |event| {
        let Ok(MessageEvent { message, .. }) = serde_json::from_str(&event.data) else {
            return Ok(());
        };
        // Only what the list had can come again, around the moment when the stream began.
        if shown.remove(&message.id) || !is_wanted(query, &message) {
            return Ok(());
        }
        context.print.answer(&as_listed(&event.data), || line(context, &message))?;
        if query.mark_seen {
            let ids = [message.id.clone()];
            client.mark_seen(&ids).await.map_err(|error| context.explain(error))?;
        }
        Ok(())
    })
    .await
}

/// An event's message as the list has it: without the members that only the event has.
fn as_listed(data: &str) -> Value {
    let mut value: Value = serde_json::from_str(data).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.remove("ts");
    }
    value
}

fn is_wanted(query: &InboxQuery, message: &InboxMessage) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    let topic = |text: &str| text.trim_start_matches('#').to_owned();
    let from = &query.from;
    is(&query.mesh, Some(&message.mesh))
        && is(&query.topic.as_deref().map(topic), message.topic.as_deref().map(topic).as_deref())
        && (is(from, Some(&message.sender_pubkey))
            || is(from, message.sender_member_pubkey.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};
    use crate::table::COMMANDS;

    #[test]
    fn since_is_an_age_or_a_time() {
        let read = |text: &str| {
            let args = ["inbox", "--since", text].map(Into::into).into();
            let Ok(Invocation::Run { parsed, .. }) = parse(COMMANDS, args) else {
                panic!("{text}")
            };
            instant(&parsed, SINCE, Millis(1_750_000_000_123)).map_err(|failure| failure.message)
        };
        assert_eq!(read("2h"), Ok(Some("2025-06-15T13:06:40.123Z".into())));
        assert_eq!(read("2025-06-15T15:06:40Z"), Ok(Some("2025-06-15T15:06:40.000Z".into())));
        assert!(read("yesterday").expect_err("no time").contains("--since"));
    }
}
