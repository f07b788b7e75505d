//! The steps of the demo. Each does one thing to the processes, shows their literal answers, and
//! checks every statement it makes about them: one that does not hold ends the demo.

use super::process::{Process, WAIT_MAX};
use super::report::DemoReport;
use super::sandbox::{DemoHost, Sandbox};
use crate::Failure;
use crate::client::{Client, Events, RawResponse, SseEvent};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;

const MESH: &str = "demo";
/// The ids of the message that goes through at once, and of the one that has to wait.
const FIRST_ID: &str = "demo-1";
const SECOND_ID: &str = "demo-2";
/// How long the second one waits before `status` is looked at, so that there is an age to see.
const AGE_SHOWN_S: u64 = 1;

/// Runs all steps.
pub(super) async fn run_all(sandbox: &mut Sandbox, report: &mut DemoReport) -> Result<(), Failure> {
    start(sandbox, report).await?;
    let mut events = events_of(&sandbox.bob).await?;
    let broker_id = send(sandbox, report).await?;
    arrive(sandbox, report, &mut events, &broker_id).await?;
    send_again(sandbox, report, &broker_id).await?;
    reuse_the_id(sandbox, report).await?;
    lose_the_broker(sandbox, report).await?;
    crash_and_recover(sandbox, report, &mut events).await?;
    report.finish()
}

/// A broker, a mesh on it, two members, and a daemon for each.
async fn start(sandbox: &mut Sandbox, report: &mut DemoReport) -> Result<(), Failure> {
    report.begin("start", "A broker and two daemons start, as processes of their own")?;
    let (address, broker_pid) = sandbox.start_broker().await?;
    let data = sandbox.broker_dir().display().to_string();
    let create = ["mesh", "create", MESH, "--name", "alice", "--data", &data];
    sandbox.run(&sandbox.alice, &create).await?;
    let link = sandbox.run(&sandbox.alice, &["mesh", "invite", MESH, "--data", &data]).await?;
    sandbox.run(&sandbox.bob, &["join", &link, "--name", "bob"]).await?;
    sandbox.alice.daemon = Some(sandbox.start_daemon(&sandbox.alice)?);
    sandbox.bob.daemon = Some(sandbox.start_daemon(&sandbox.bob)?);
    let pid_of = |host: &DemoHost| host.daemon.as_ref().map_or(0, Process::pid);
    let (alice_pid, bob_pid) = (pid_of(&sandbox.alice), pid_of(&sandbox.bob));
    report.fact("dir", json!(sandbox.dir.0));
    report.fact("pids", json!({ "broker": broker_pid, "alice": alice_pid, "bob": bob_pid }));
    report.print_line(&format!(
        "   broker  pid {broker_pid}, at ws://{address}/ws, with a mesh `{MESH}`"
    ))?;
    for (host, pid) in [(&sandbox.alice, alice_pid), (&sandbox.bob, bob_pid)] {
        let socket = host.paths.socket();
        report.print_line(&format!(
            "   {:<6}  pid {pid}, socket {}",
            host.name,
            socket.display()
        ))?;
    }
    for host in [&sandbox.alice, &sandbox.bob] {
        sandbox.until_async("the link is open", || is_linked(&host.client)).await?;
    }
    sandbox.until_async("bob is in alice's roster", || sees_bob(&sandbox.alice.client)).await?;
    report.confirm("both links are open, and alice's daemon knows bob")
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
async fn send(sandbox: &Sandbox, report: &mut DemoReport) -> Result<String, Failure> {
    report.begin("send", "alice sends to bob. 202 means: on disk and synced, before the answer")?;
    let sent = post(sandbox, report, &message(FIRST_ID, "hola, mesh ✔")).await?;
    check("the status of the send", &json!(202), &sent["http"])?;
    check("the row", &json!("queued"), &sent["status"])?;
    check("its encryption", &json!("direct"), &sent["encryption"])?;
    let done = until_done(sandbox, report, FIRST_ID).await?;
    let id = done["broker_message_id"].as_str().unwrap_or_default().to_owned();
    check("a broker's id", &json!(true), &json!(!id.is_empty()))?;
    report.fact("broker_message_id", json!(id));
    report
        .confirm(&format!("the broker has it, as {id}; a direct message is sealed end to end"))?;
    Ok(id)
}

/// Bob's event and bob's inbox.
async fn arrive(
    sandbox: &Sandbox,
    report: &mut DemoReport,
    events: &mut Events,
    broker_id: &str,
) -> Result<(), Failure> {
    report.begin("arrive", "It is in bob's event stream (GET /v1/events), and in bob's inbox")?;
    let event = next_message(sandbox, events).await?;
    report.event("bob", &event.event, &event.data)?;
    let told: Value = read(&event.data)?;
    check("the event's text", &json!("hola, mesh ✔"), &told["body"])?;
    check("the event's sender", &json!("alice"), &told["sender_name"])?;
    let answer = get(&sandbox.bob, report, "/v1/inbox?limit=10", true).await?;
    let inbox: Value = read(&answer.body)?;
    check("messages in bob's inbox", &json!(1), &json!(count(&inbox, None)))?;
    check("the broker's id in it", &json!(broker_id), &inbox["items"][0]["broker_message_id"])?;
    report.confirm("one message, with the same broker id")
}

/// The same request again.
async fn send_again(
    sandbox: &Sandbox,
    report: &mut DemoReport,
    broker_id: &str,
) -> Result<(), Failure> {
    report
        .begin("duplicate", "The same id again, as after a lost answer: nothing is sent twice")?;
    let again = post(sandbox, report, &message(FIRST_ID, "hola, mesh ✔")).await?;
    check("the status of the repeated send", &json!(200), &again["http"])?;
    check("`duplicate`", &json!(true), &again["duplicate"])?;
    check("the broker's id", &json!(broker_id), &again["broker_message_id"])?;
    report.confirm("200 and duplicate: true, with what became of the first")
}

/// The same id with another text.
async fn reuse_the_id(sandbox: &Sandbox, report: &mut DemoReport) -> Result<(), Failure> {
    report.begin("conflict", "The same id with another text is a mistake, and told so")?;
    let other = post(sandbox, report, &message(FIRST_ID, "something else")).await?;
    check("the status of the contradicting send", &json!(409), &other["http"])?;
    check("its code", &json!("idempotency_key_reused"), &other["error"])?;
    report.confirm("409; the first message stands")
}

/// A send without a broker, and what `status` says.
async fn lose_the_broker(sandbox: &mut Sandbox, report: &mut DemoReport) -> Result<(), Failure> {
    report.begin("outage", "The broker stops (SIGTERM). alice sends all the same")?;
    sandbox.stop_broker().await?;
    let sent = post(sandbox, report, &message(SECOND_ID, "are you there?")).await?;
    check("the status of a send without a broker", &json!(202), &sent["http"])?;
    sandbox.until_async("the row gets an age", || has_aged(&sandbox.alice.client)).await?;
    let shown = sandbox.run(&sandbox.alice, &["status"]).await?;
    report.command("alice", "claudemesh status", &shown)?;
    for words in ["1 pending", "the oldest pending for"] {
        let is_shown = json!(shown.contains(words));
        check(&format!("whether `status` says {words:?}"), &json!(true), &is_shown)?;
    }
    report.confirm("202 as ever, and `status` shows the pending row and its age")
}

async fn has_aged(client: &Client) -> Result<Option<()>, Failure> {
    let health = client.health().await?;
    let age = health.outbox.oldest_pending_age_seconds;
    Ok(age.filter(|age| *age >= AGE_SHOWN_S).map(drop))
}

/// A daemon killed in the middle of it loses nothing, and sends nothing twice.
async fn crash_and_recover(
    sandbox: &mut Sandbox,
    report: &mut DemoReport,
    events: &mut Events,
) -> Result<(), Failure> {
    report.begin(
        "crash",
        "alice's daemon is killed (kill -9) and started again; the broker returns",
    )?;
    if let Some(daemon) = sandbox.alice.daemon.take() {
        let ended = daemon.end(Signal::KILL, &sandbox.runtime).await?;
        check("the signal that ended it", &json!(9), &json!(ended.signal()))?;
    }
    let daemon = sandbox.start_daemon(&sandbox.alice)?;
    let pid = daemon.pid();
    sandbox.alice.daemon = Some(daemon);
    sandbox.until_async("alice's daemon answers", || answers(&sandbox.alice.client)).await?;
    let path = format!("/v1/messages/{SECOND_ID}");
    let survived = get(&sandbox.alice, report, &path, true).await?;
    check("the row after the crash", &json!("pending"), &read(&survived.body)?["status"])?;
    let (address, broker_pid) = sandbox.start_broker().await?;
    report.fact("pids", json!({ "broker": broker_pid, "alice": pid }));
    report.print_line(&format!(
        "   alice   pid {pid} now; broker pid {broker_pid}, again at {address}"
    ))?;
    until_done(sandbox, report, SECOND_ID).await?;
    let told: Value = read(&next_message(sandbox, events).await?.data)?;
    check("the event's message", &json!(SECOND_ID), &told["client_message_id"])?;
    let again = post(sandbox, report, &message(SECOND_ID, "are you there?")).await?;
    check("the status of the repeated send", &json!(200), &again["http"])?;
    let inbox: Value = read(&get(&sandbox.bob, report, "/v1/inbox?limit=10", false).await?.body)?;
    let copies = count(&inbox, Some(SECOND_ID));
    check("copies in bob's inbox", &json!(1), &json!(copies))?;
    check("messages in bob's inbox", &json!(2), &json!(count(&inbox, None)))?;
    report.fact("copies", json!(copies));
    report.confirm("the row outlived the crash, and exactly one copy arrived")
}

async fn answers(client: &Client) -> Result<Option<()>, Failure> {
    Ok(client.health().await.ok().map(drop))
}

async fn events_of(host: &DemoHost) -> Result<Events, Failure> {
    Ok(host.client.events(&["message".to_owned()], None).await?)
}

async fn next_message(sandbox: &Sandbox, events: &mut Events) -> Result<SseEvent, Failure> {
    match sandbox.runtime.timeout(WAIT_MAX, events.next()).await {
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
async fn post(
    sandbox: &Sandbox,
    report: &mut DemoReport,
    message: &Value,
) -> Result<Value, Failure> {
    let path = "/v1/send";
    let answer = sandbox.alice.client.raw_request(path, Some(message)).await?;
    report.exchange("alice", path, Some(message), answer.status, &answer.body)?;
    let mut body = read(&answer.body)?;
    body["http"] = answer.status.into();
    Ok(body)
}

async fn get(
    host: &DemoHost,
    report: &mut DemoReport,
    path: &str,
    is_shown: bool,
) -> Result<RawResponse, Failure> {
    let answer = host.client.raw_request(path, None).await?;
    if is_shown {
        report.exchange(host.name, path, None, answer.status, &answer.body)?;
    }
    Ok(answer)
}

/// Asks where alice's message is until it is done; shows the last answer.
async fn until_done(
    sandbox: &Sandbox,
    report: &mut DemoReport,
    id: &str,
) -> Result<Value, Failure> {
    let path = format!("/v1/messages/{id}");
    let look = || async {
        let answer = sandbox.alice.client.raw_request(&path, None).await?;
        let body = read(&answer.body)?;
        Ok((body["status"] == "done").then_some((answer, body)))
    };
    let (answer, body) = sandbox.until_async(&format!("{id} is done"), look).await?;
    report.exchange("alice", &path, None, answer.status, &answer.body)?;
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

/// Fails unless what was found is what was expected. Every statement of the demo goes through here.
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
