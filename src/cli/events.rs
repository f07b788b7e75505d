//! `events`, and the loop that follows an event stream across a restart of the daemon.

use super::command::{Command, Flag, Parsed, one};
use super::print::{Tone, inline};
use super::{Context, Failure, exit, inbox};
use crate::client::{Client, Error, Events, SseEvent};
use claudemesh_daemon::api::bodies::MessageEvent;
use serde_json::{Value, json};
use std::time::Duration;

/// What `--types` takes.
const EVENT_TYPES: &[&str] =
    &["message", "outbox", "broker_status", "peer_join", "peer_leave", "system"];
/// The pause between two attempts to reach a daemon that went away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const TYPES: Flag = one(
    "types",
    "a,b",
    "only these: message, outbox, broker_status, peer_join, peer_leave, system",
);

pub(super) const EVENTS: Command = Command {
    name: "events",
    flags: &[TYPES],
    about: "what happens, as it happens",
    examples: &["claudemesh events --types outbox,broker_status", "claudemesh events --json"],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let types = types(parsed)?;
    context.block_on(async {
        let client = context.daemon().await?;
        let events = client.events(&types, None).await.map_err(|error| context.explain(error))?;
        follow(context, &client, events, &types, async |event: &SseEvent| print(context, event))
            .await
    })?;
    Ok(exit::OK)
}

fn types(parsed: &Parsed) -> Result<Vec<String>, Failure> {
    let expected = EVENT_TYPES.join(", ");
    let list = parsed.parsed(TYPES, &format!("some of {expected}, with commas"), |text| {
        let names: Vec<_> = text.split(',').map(str::trim).map(str::to_owned).collect();
        names.iter().all(|name| EVENT_TYPES.contains(&name.as_str())).then_some(names)
    })?;
    Ok(list.unwrap_or_default())
}

/// Hands every event to `take`, without end. When the daemon stops, this waits for it and then asks
/// for the events it missed.
pub(super) async fn follow(
    context: &Context,
    client: &Client,
    mut events: Events,
    types: &[String],
    mut take: impl AsyncFnMut(&SseEvent) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut last_id = None;
    loop {
        let why = loop {
            match events.next().await {
                Ok(Some(event)) => {
                    take(&event).await?;
                    last_id = event.id.or(last_id);
                }
                Ok(None) => break "the daemon ended the stream".to_owned(),
                Err(Error::Unanswered(why)) => break why,
                Err(error) => return Err(context.explain(error)),
            }
        };
        context.print.note(&format!("{why}; waiting for the daemon…"));
        events = loop {
            context.runtime.sleep(RETRY_PAUSE).await;
            match client.events(types, last_id.as_deref()).await {
                Ok(events) => break events,
                Err(error) if error.is_certainly_not_taken() => {}
                Err(Error::Unanswered(_)) => {}
                Err(error) => return Err(context.explain(error)),
            }
        };
    }
}

fn print(context: &Context, event: &SseEvent) -> Result<(), Failure> {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_else(|_| json!(event.data));
    let value = json!({ "event": event.event, "id": event.id, "data": data });
    context.print.answer(&value, || in_words(context, &event.event, &data)).map(drop)
}

fn in_words(context: &Context, kind: &str, data: &Value) -> String {
    if kind == "message"
        && let Ok(event) = serde_json::from_value::<MessageEvent>(data.clone())
    {
        return format!("message        {}", inbox::line(context, &event.message));
    }
    let text = |name: &str| inline(data[name].as_str().unwrap_or_default());
    let rest = match kind {
        "outbox" => format!("{} {}", text("client_message_id"), text("status")),
        "broker_status" => {
            let why = [text("reason"), text("remedy")];
            let why: Vec<_> = why.into_iter().filter(|text| !text.is_empty()).collect();
            format!("{} {}", text("status"), why.join(": "))
        }
        "peer_join" | "peer_leave" => format!("{} {}", text("name"), text("pubkey")),
        // Whatever it is, JSON has no control characters in it.
        _ => inline(&data.to_string()),
    };
    let ts = context.print.paint(Tone::Quiet, &text("ts"));
    let (kind, mesh) = (inline(kind), text("mesh"));
    format!("{kind:<13}  {ts}  {mesh}  {rest}").trim_end().to_owned()
}
