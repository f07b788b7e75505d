//! The steps of the demo. Each does one thing to real processes, shows what they really answered,
//! and checks every word it says about it: a claim that does not hold ends the demo.

use super::super::failure::Failure;
use super::processes::{Host, Process, Stage, WAIT_MAX};
use super::story::Story;
use crate::client::{Answer, Client, Event, Events};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;

const MESH: &str = "demo";
/// The message that goes through at once, and the one that has to wait.
const FIRST_ID: &str = "demo-1";
const SECOND_ID: &str = "demo-2";
/// How long the second one waits before `status` is looked at, so that there is an age to see.
const AGE_SHOWN_S: u64 = 1;

/// Runs them all.
pub(super) async fn act(stage: &mut Stage, story: &mut Story) -> Result<(), Failure> {
    start(stage, story).await?;
    let mut events = events_of(&stage.bob).await?;
    let broker_id = send(stage, story).await?;
    arrive(stage, story, &mut events, &broker_id).await?;
    send_again(stage, story, &broker_id).await?;
    reuse_the_id(stage, story).await?;
    lose_the_broker(stage, story).await?;
    crash_and_recover(stage, story, &mut events).await?;
    story.finish()
}

/// A broker, a mesh on it, two members, and a daemon for each.
async fn start(stage: &mut Stage, story: &mut Story) -> Result<(), Failure> {
    story.begin("start", "A broker and two daemons start, as processes of their own")?;
    let (address, broker_pid) = stage.start_broker().await?;
    let data = stage.broker_dir().display().to_string();
    let create = ["mesh", "create", MESH, "--name", "alice", "--data", &data];
    stage.run(&stage.alice, &create).await?;
    let link = stage.run(&stage.alice, &["mesh", "invite", MESH, "--data", &data]).await?;
    stage.run(&stage.bob, &["join", &link, "--name", "bob"]).await?;
    stage.alice.daemon = Some(stage.start_daemon(&stage.alice)?);
    stage.bob.daemon = Some(stage.start_daemon(&stage.bob)?);
    let pid_of = |host: &Host| host.daemon.as_ref().map_or(0, Process::pid);
    let (alice_pid, bob_pid) = (pid_of(&stage.alice), pid_of(&stage.bob));
    story.fact("dir", json!(stage.dir.0));
    story.fact("pids", json!({ "broker": broker_pid, "alice": alice_pid, "bob": bob_pid }));
    story
        .say(&format!("   broker  pid {broker_pid}, at ws://{address}/ws, with a mesh `{MESH}`"))?;
    for (host, pid) in [(&stage.alice, alice_pid), (&stage.bob, bob_pid)] {
        let socket = host.paths.socket();
        story.say(&format!("   {:<6}  pid {pid}, socket {}", host.name, socket.display()))?;
    }
    for host in [&stage.alice, &stage.bob] {
        stage.until_async("the link is open", || is_linked(&host.client)).await?;
    }
    stage.until_async("bob is in alice's roster", || sees_bob(&stage.alice.client)).await?;
    story.found("both links are open, and alice's daemon knows bob")
}

async fn is_linked(client: &Client) -> Result<Option<()>, Failure> {
    // Until the daemon listens there is nobody to ask; the caller's deadline ends that.
    let Ok(health) = client.health().await else { return Ok(None) };
    Ok((health.brokers.get(MESH).is_some_and(|link| link == "open")).then_some(()))
}

async fn sees_bob(client: &Client) -> Result<Option<()>, Failure> {
    let peers = client.peers(None).await?;
    let is_bob = |name: &Value| name == "bob";
    Ok(peers.peers.iter().any(|peer| peer.get("displayName").is_some_and(is_bob)).then_some(()))
}

/// 202, then done with the broker's id; the broker's id.
async fn send(stage: &Stage, story: &mut Story) -> Result<String, Failure> {
    story.begin("send", "alice sends to bob. 202 means: on disk and synced, before the answer")?;
    let sent = post(stage, story, &message(FIRST_ID, "hola, mesh ✔")).await?;
    check("the status of the send", &json!(202), &sent["http"])?;
    check("the row", &json!("queued"), &sent["status"])?;
    check("its encryption", &json!("direct"), &sent["encryption"])?;
    let done = until_done(stage, story, FIRST_ID).await?;
    let id = done["broker_message_id"].as_str().unwrap_or_default().to_owned();
    check("a broker's id", &json!(true), &json!(!id.is_empty()))?;
    story.fact("broker_message_id", json!(id));
    story.found(&format!("the broker has it, as {id}; a direct message is sealed end to end"))?;
    Ok(id)
}

/// Bob's event and bob's inbox.
async fn arrive(
    stage: &Stage,
    story: &mut Story,
    events: &mut Events,
    broker_id: &str,
) -> Result<(), Failure> {
    story.begin("arrive", "It is in bob's event stream (GET /v1/events), and in bob's inbox")?;
    let event = next_message(stage, events).await?;
    story.event("bob", &event.event, &event.data)?;
    let told: Value = read(&event.data)?;
    check("the event's text", &json!("hola, mesh ✔"), &told["body"])?;
    check("the event's sender", &json!("alice"), &told["sender_name"])?;
    let answer = get(&stage.bob, story, "/v1/inbox?limit=10", true).await?;
    let inbox: Value = read(&answer.body)?;
    check("messages in bob's inbox", &json!(1), &json!(count(&inbox, None)))?;
    check("the broker's id in it", &json!(broker_id), &inbox["items"][0]["broker_message_id"])?;
    story.found("one message, with the same broker id")
}

/// The same request again.
async fn send_again(stage: &Stage, story: &mut Story, broker_id: &str) -> Result<(), Failure> {
    story.begin("duplicate", "The same id again, as after a lost answer: nothing is sent twice")?;
    let again = post(stage, story, &message(FIRST_ID, "hola, mesh ✔")).await?;
    check("the status of the repeated send", &json!(200), &again["http"])?;
    check("`duplicate`", &json!(true), &again["duplicate"])?;
    check("the broker's id", &json!(broker_id), &again["broker_message_id"])?;
    story.found("200 and duplicate: true, with what became of the first")
}

/// The same id with another text.
async fn reuse_the_id(stage: &Stage, story: &mut Story) -> Result<(), Failure> {
    story.begin("conflict", "The same id with another text is a mistake, and told so")?;
    let other = post(stage, story, &message(FIRST_ID, "something else")).await?;
    check("the status of the contradicting send", &json!(409), &other["http"])?;
    check("its code", &json!("idempotency_key_reused"), &other["error"])?;
    story.found("409; the first message stands")
}

/// A send without a broker, and what `status` says.
async fn lose_the_broker(stage: &mut Stage, story: &mut Story) -> Result<(), Failure> {
    story.begin("outage", "The broker stops (SIGTERM). alice sends all the same")?;
    stage.stop_broker().await?;
    let sent = post(stage, story, &message(SECOND_ID, "are you there?")).await?;
    check("the status of a send without a broker", &json!(202), &sent["http"])?;
    stage.until_async("the row gets an age", || has_aged(&stage.alice.client)).await?;
    let shown = stage.run(&stage.alice, &["status"]).await?;
    story.command("alice", "claudemesh status", &shown)?;
    for words in ["1 pending", "the oldest pending for"] {
        let is_shown = json!(shown.contains(words));
        check(&format!("whether `status` says {words:?}"), &json!(true), &is_shown)?;
    }
    story.found("202 as ever, and `status` shows the pending row and its age")
}

async fn has_aged(client: &Client) -> Result<Option<()>, Failure> {
    let health = client.health().await?;
    let age = health.outbox.oldest_pending_age_seconds;
    Ok(age.filter(|age| *age >= AGE_SHOWN_S).map(drop))
}

/// A daemon killed in the middle of it loses nothing, and sends nothing twice.
async fn crash_and_recover(
    stage: &mut Stage,
    story: &mut Story,
    events: &mut Events,
) -> Result<(), Failure> {
    story.begin(
        "crash",
        "alice's daemon is killed (kill -9) and started again; the broker returns",
    )?;
    if let Some(daemon) = stage.alice.daemon.take() {
        let ended = daemon.end(Signal::KILL, &stage.runtime).await?;
        check("the signal that ended it", &json!(9), &json!(ended.signal()))?;
    }
    let daemon = stage.start_daemon(&stage.alice)?;
    let pid = daemon.pid();
    stage.alice.daemon = Some(daemon);
    stage.until_async("alice's daemon answers", || answers(&stage.alice.client)).await?;
    let path = format!("/v1/messages/{SECOND_ID}");
    let survived = get(&stage.alice, story, &path, true).await?;
    check("the row after the crash", &json!("pending"), &read(&survived.body)?["status"])?;
    let (address, broker_pid) = stage.start_broker().await?;
    story.fact("pids", json!({ "broker": broker_pid, "alice": pid }));
    story.say(&format!("   alice   pid {pid} now; broker pid {broker_pid}, again at {address}"))?;
    until_done(stage, story, SECOND_ID).await?;
    let told: Value = read(&next_message(stage, events).await?.data)?;
    check("the event's message", &json!(SECOND_ID), &told["client_message_id"])?;
    let again = post(stage, story, &message(SECOND_ID, "are you there?")).await?;
    check("the status of the repeated send", &json!(200), &again["http"])?;
    let inbox: Value = read(&get(&stage.bob, story, "/v1/inbox?limit=10", false).await?.body)?;
    let copies = count(&inbox, Some(SECOND_ID));
    check("copies in bob's inbox", &json!(1), &json!(copies))?;
    check("messages in bob's inbox", &json!(2), &json!(count(&inbox, None)))?;
    story.fact("copies", json!(copies));
    story.found("the row outlived the crash, and exactly one copy arrived")
}

async fn answers(client: &Client) -> Result<Option<()>, Failure> {
    Ok(client.health().await.ok().map(drop))
}

async fn events_of(host: &Host) -> Result<Events, Failure> {
    Ok(host.client.events(&["message".to_owned()], None).await?)
}

async fn next_message(stage: &Stage, events: &mut Events) -> Result<Event, Failure> {
    match stage.runtime.timeout(WAIT_MAX, events.next()).await {
        Some(event) => event?.ok_or_else(|| Failure::failed("bob's daemon ended its event stream")),
        None => {
            let seconds = WAIT_MAX.as_secs();
            Err(Failure::failed(format!("no event reached bob within {seconds} s")))
        }
    }
}

fn message(id: &str, text: &str) -> Value {
    json!({ "to": "bob", "message": text, "client_message_id": id })
}

/// alice's `POST /v1/send`; the answer's body, with the status as `http`.
async fn post(stage: &Stage, story: &mut Story, message: &Value) -> Result<Value, Failure> {
    let path = "/v1/send";
    let answer = stage.alice.client.exchange(path, Some(message)).await?;
    story.exchange("alice", path, Some(message), answer.status, &answer.body)?;
    let mut body = read(&answer.body)?;
    body["http"] = answer.status.into();
    Ok(body)
}

async fn get(
    host: &Host,
    story: &mut Story,
    path: &str,
    is_shown: bool,
) -> Result<Answer, Failure> {
    let answer = host.client.exchange(path, None).await?;
    if is_shown {
        story.exchange(host.name, path, None, answer.status, &answer.body)?;
    }
    Ok(answer)
}

/// Asks where alice's message is until it is done; shows the last answer.
async fn until_done(stage: &Stage, story: &mut Story, id: &str) -> Result<Value, Failure> {
    let path = format!("/v1/messages/{id}");
    let look = || async {
        let answer = stage.alice.client.exchange(&path, None).await?;
        let body = read(&answer.body)?;
        Ok((body["status"] == "done").then_some((answer, body)))
    };
    let (answer, body) = stage.until_async(&format!("{id} is done"), look).await?;
    story.exchange("alice", &path, None, answer.status, &answer.body)?;
    Ok(body)
}

/// How many messages, or how many with this id, a page of the inbox holds.
fn count(inbox: &Value, id: Option<&str>) -> usize {
    let items = inbox["items"].as_array().into_iter().flatten();
    items.filter(|item| id.is_none_or(|id| item["client_message_id"] == id)).count()
}

fn read(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json)
        .map_err(|error| Failure::failed(format!("{error} in the answer {json:?}")))
}

/// The heart of it: nothing is told that was not found.
fn check(what: &str, expected: &Value, found: &Value) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::failed(format!("{what}: expected {expected}, found {found}"))
        .with("expected", expected.clone())
        .with("found", found.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_says_what_differs() {
        assert_eq!(check("the status", &json!(202), &json!(202)), Ok(()));
        let failure = check("the status", &json!(202), &json!(500)).expect_err("they differ");
        assert_eq!(failure.message, "the status: expected 202, found 500");
        assert_eq!((failure.exit, &failure.extra["found"]), (1, &json!(500)));
    }
}
