//! What must hold, always (§4.12), judged from the outside: what callers were told, and the three
//! kinds of file as they are on disk. Knows no scenario and no flow.

use super::daemon::Request;
use claudemesh_base::message::{canonical_meta, fingerprint};
use claudemesh_daemon::flow::accept::{AcceptAnswer, Rejection};
use claudemesh_fsm::accept::AcceptDecision;
use claudemesh_fsm::envelope::{Destination, Priority};
use sqlite::{Connection, OpenFlags, State};
use std::collections::BTreeMap;
use std::path::Path;

/// What a caller was told about an id: yes (2xx), or another request has it (409).
#[derive(Debug, Clone)]
pub struct Told {
    pub daemon: usize,
    pub request: Request,
    pub fingerprint: Vec<u8>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Done(String),
    Conflict(&'static str),
    Nothing,
}

impl Told {
    pub fn from_answer(
        daemon: usize,
        request: Request,
        answer: Result<AcceptAnswer, Rejection>,
    ) -> Self {
        let verdict = match answer {
            Ok(answer) => match answer.accepted.decision {
                AcceptDecision::Insert | AcceptDecision::Queued | AcceptDecision::Inflight => {
                    Verdict::Accepted
                }
                AcceptDecision::Done { broker_message_id, .. } => Verdict::Done(broker_message_id),
                AcceptDecision::Conflict(conflict) => Verdict::Conflict(conflict.as_str()),
            },
            Err(_) => Verdict::Nothing,
        };
        let meta = request.meta.as_deref().and_then(|meta| canonical_meta(meta).ok().flatten());
        let to = Destination::parse(&request.to).expect("scenarios name real destinations");
        let body = request.body.as_bytes();
        let hash = fingerprint(&to, None, Priority::Next, meta.as_deref(), body);
        Self { daemon, request, fingerprint: hash.as_bytes().to_vec(), verdict }
    }
}

/// How long a checker waits for a lock, in milliseconds.
const BUSY_MS: usize = 5000;

/// A requeue that was told: daemon, old row, new row, new id, patched payload.
pub type Requeued = (usize, String, String, String, Option<String>);

/// What was seen from outside, in the order it happened.
#[derive(Default)]
pub struct Book {
    pub told: Vec<Told>,
    pub requeued: Vec<Requeued>,
    /// `client_ack`s that left a daemon.
    pub acked: Vec<(usize, String)>,
    /// Messages a daemon's listeners heard of.
    pub heard: Vec<(usize, String)>,
}

/// A row as a map from column to text, blobs in hex.
pub type Fields = BTreeMap<String, String>;

/// Every row of a table, read from the file beside whoever has it open.
pub fn table(path: &Path, sql: &str) -> Vec<Fields> {
    let mut connection = Connection::open_with_flags(path, OpenFlags::new().with_read_only())
        .expect("the file opens");
    // A connection that ends beside this one locks the file for a moment.
    connection.set_busy_timeout(BUSY_MS).expect("a timeout can be set");
    let mut statement = connection.prepare(sql).expect("a good query");
    let names = statement.column_names().to_vec();
    let mut rows = Vec::new();
    while statement.next().expect("reads") == State::Row {
        let text = |at: usize| match statement.read::<sqlite::Value, _>(at).expect("a value") {
            sqlite::Value::Null => String::new(),
            sqlite::Value::Integer(number) => number.to_string(),
            sqlite::Value::Float(number) => number.to_string(),
            sqlite::Value::String(text) => text,
            sqlite::Value::Binary(bytes) => {
                bytes.iter().map(|byte| format!("{byte:02x}")).collect()
            }
        };
        rows.push(names.iter().cloned().enumerate().map(|(at, name)| (name, text(at))).collect());
    }
    rows
}

/// The outbox rows of a daemon's directory.
pub fn outbox(dir: &Path) -> Vec<Fields> {
    let sql = "SELECT *, seq <= (SELECT doubted_to FROM host) AS doubted FROM outbox ORDER BY seq";
    table(&dir.join("outbox.db"), sql)
}

/// What a daemon says of its messages' receivers.
pub fn receipts(dir: &Path) -> Vec<Fields> {
    let sql = "SELECT o.status, o.client_message_id, r.recipients, r.stored, r.expired \
               FROM outbox o LEFT JOIN receipt r ON r.seq = o.seq ORDER BY o.seq";
    table(&dir.join("outbox.db"), sql)
}

/// Columns that never change, whatever becomes of the row.
const FROZEN: [&str; 11] = [
    "id",
    "client_message_id",
    "request_fingerprint",
    "payload",
    "mesh",
    "destination_kind",
    "destination_ref",
    "recipient",
    "priority",
    "meta",
    "reply_to_id",
];
/// Columns that never change once a row is done or aborted.
const FINAL: [&str; 6] =
    ["status", "broker_message_id", "history_id", "aborted_at", "aborted_by", "superseded_by"];

/// Invariants 1 and 4 between two looks at one outbox.
pub fn history(before: &[Fields], after: &[Fields], power_cut: bool) -> Result<(), String> {
    let now: BTreeMap<&str, &Fields> = after.iter().map(|row| (row["id"].as_str(), row)).collect();
    for old in before {
        let id = old["id"].as_str();
        let Some(new) = now.get(id) else {
            return Err(format!("invariant 1: row {id} was seen and is gone: {old:?}"));
        };
        if let Some(column) = FROZEN.iter().find(|column| old[**column] != new[**column]) {
            return Err(format!("invariant 1: {column} of row {id} changed: {old:?} → {new:?}"));
        }
        let was = old["status"].as_str();
        // What a power cut may take back ends with the same broker id: `end` looks.
        let is_final = was == "aborted" || (was == "done" && !power_cut);
        if is_final && let Some(column) = FINAL.iter().find(|column| old[**column] != new[**column])
        {
            return Err(format!("invariant 4: {column} of a {was} row changed: {old:?} → {new:?}"));
        }
        if was == "dead" && !["dead", "aborted"].contains(&new["status"].as_str()) {
            return Err(format!("invariant 4: a dead row became {}: {old:?}", new["status"]));
        }
    }
    Ok(())
}

/// Invariant 6, right after a start: nobody sends yet.
pub fn started(rows: &[Fields]) -> Result<(), String> {
    match rows.iter().find(|row| row["status"] == "inflight") {
        Some(row) => Err(format!("invariant 6: inflight after a start: {row:?}")),
        None => Ok(()),
    }
}

/// §4.5.3 at any time: the broker has no message of a row that was, as it says, never tried. A row
/// that was tried says so itself: in its error, or by the doubt.
pub fn denied(daemon: usize, rows: &[Fields], messages: &[Fields]) -> Result<(), String> {
    let sender = daemon.to_string();
    let denies = |row: &&Fields| {
        let was_tried = ["may_have_been_sent", "attempts"].iter().any(|name| row[*name] != "0");
        row["status"] == "pending"
            && !was_tried
            && row["last_error"].is_empty()
            && row["doubted"] == "0"
    };
    for row in rows.iter().filter(denies) {
        let is_it = |message: &&Fields| {
            message["sender"] == sender && message["cmid"] == row["client_message_id"]
        };
        if let Some(message) = messages.iter().find(is_it) {
            return Err(format!("invariant §4.5.3: {row:?} denies {message:?}"));
        }
    }
    Ok(())
}

/// Everything, once faults have stopped and time has passed.
pub struct End<'a> {
    pub book: &'a Book,
    /// Each daemon's outbox, and every broker id a row of it was ever seen done with.
    pub outboxes: [Vec<Fields>; 2],
    pub done_with: &'a BTreeMap<(usize, String), String>,
    /// Whose power was ever cut.
    pub power_cuts: [bool; 2],
    pub inboxes: [Vec<Fields>; 2],
    pub messages: Vec<Fields>,
    pub deliveries: Vec<Fields>,
    pub receipts: [Vec<Fields>; 2],
}

impl End<'_> {
    /// All of §4.12 that can be told at the end.
    pub fn check(&self) -> Result<(), String> {
        self.told_and_kept()?;
        self.one_broker_message()?;
        self.done_is_at_the_broker()?;
        self.requeued_have_successors()?;
        self.received_once()?;
        self.receipts_are_true()?;
        self.nothing_waits()
    }

    fn row(&self, daemon: usize, column: &str, value: &str) -> Option<&Fields> {
        self.outboxes[daemon].iter().find(|row| row[column] == value)
    }

    /// A power cut may take a done back (§4.7), and an operator may retire what is left.
    fn is_retired(&self, daemon: usize, row: &Fields) -> bool {
        row["status"] == "aborted" && self.power_cuts[daemon]
    }

    fn told_and_kept(&self) -> Result<(), String> {
        for told in &self.book.told {
            let Told { daemon, request, fingerprint, verdict } = told;
            let id = &request.id;
            let row = self.row(*daemon, "client_message_id", id);
            if *verdict == Verdict::Nothing {
                continue;
            }
            let Some(row) = row else {
                return Err(format!("invariant 1: {verdict:?} was told about {id}, which is gone"));
            };
            let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
            let same = row["request_fingerprint"] == hex;
            let must_match = match verdict {
                Verdict::Accepted | Verdict::Done(_) => true,
                Verdict::Conflict(name) => name.ends_with("_match"),
                Verdict::Nothing => continue,
            };
            if same != must_match {
                return Err(format!("invariant 1: {id} was told {verdict:?}, the row: {row:?}"));
            }
            if let Verdict::Done(broker_id) = verdict
                && row["broker_message_id"] != *broker_id
                && !self.is_retired(*daemon, row)
            {
                return Err(format!("invariant 4: {id} was told {broker_id}, the row: {row:?}"));
            }
        }
        Ok(())
    }

    fn one_broker_message(&self) -> Result<(), String> {
        let mut seen = BTreeMap::new();
        for message in &self.messages {
            let key = (&message["sender"], &message["cmid"]);
            if let Some(first) = seen.insert(key, &message["id"]) {
                return Err(format!("invariant 2: {key:?} is {first} and {}", message["id"]));
            }
        }
        Ok(())
    }

    fn done_is_at_the_broker(&self) -> Result<(), String> {
        for (daemon, rows) in self.outboxes.iter().enumerate() {
            for row in rows {
                let known = self.done_with.get(&(daemon, row["id"].clone()));
                let differs = known.is_some_and(|known| *known != row["broker_message_id"]);
                if differs && !self.is_retired(daemon, row) {
                    return Err(format!("invariant 4: was done with {known:?}, now: {row:?}"));
                }
                let is_it = |message: &&Fields| {
                    message["id"] == row["broker_message_id"]
                        && message["cmid"] == row["client_message_id"]
                        && message["fingerprint"] == row["request_fingerprint"]
                        && message["sender"] == daemon.to_string()
                };
                if row["status"] == "done" && !self.messages.iter().any(|m| is_it(&m)) {
                    return Err(format!("invariant 3: done, and the broker has nothing: {row:?}"));
                }
            }
        }
        Ok(())
    }

    fn requeued_have_successors(&self) -> Result<(), String> {
        for (daemon, old, new, new_id, patched) in &self.book.requeued {
            let rows = (self.row(*daemon, "id", old), self.row(*daemon, "id", new));
            let (Some(old), Some(new)) = rows else {
                return Err(format!("invariant 5: a requeue was told and {rows:?} is left"));
            };
            let envelope = &FROZEN[4..];
            let kept = envelope.iter().all(|column| old[*column] == new[*column]);
            let payload = patched.as_ref().map_or_else(
                || old["payload"].clone(),
                |text| text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            );
            let refers = old["status"] == "aborted" && old["superseded_by"] == new["id"];
            let renamed = new["client_message_id"] == *new_id
                && new["client_message_id"] != old["client_message_id"];
            if !(kept && refers && renamed && new["payload"] == payload) {
                return Err(format!("invariant 5: {old:?} → {new:?}"));
            }
        }
        for rows in &self.outboxes {
            for row in rows.iter().filter(|row| !row["superseded_by"].is_empty()) {
                if !rows.iter().any(|other| other["id"] == row["superseded_by"]) {
                    return Err(format!("invariant 5: no successor: {row:?}"));
                }
            }
        }
        Ok(())
    }

    fn received_once(&self) -> Result<(), String> {
        let stored = |daemon: usize, id: &str| {
            self.inboxes[daemon].iter().filter(|row| row["broker_message_id"] == id).count()
        };
        for (daemon, inbox) in self.inboxes.iter().enumerate() {
            for row in inbox {
                let id = &row["broker_message_id"];
                let sent = self.messages.iter().find(|message| message["id"] == *id);
                let Some(sent) = sent else {
                    return Err(format!("invariant 7: {row:?} was never sent"));
                };
                let from: usize = sent["sender"].parse().map_err(|_| "a sender".to_owned())?;
                // The sender's own row says what was said, whatever was done to it on the way.
                let origin = self.row(from, "client_message_id", &sent["cmid"]);
                let differs = origin.is_some_and(|origin| origin["payload"] != row["body"]);
                if stored(daemon, id) != 1 || differs || row["meta"] != origin_meta(origin) {
                    return Err(format!("invariant 7: stored twice or changed: {row:?}"));
                }
            }
        }
        for (daemon, id) in &self.book.acked {
            if stored(*daemon, id) != 1 {
                return Err(format!("invariant 7: {id} was acknowledged and is not stored"));
            }
        }
        for message in &self.messages {
            let daemon = 1 - message["sender"].parse::<usize>().map_err(|_| "a sender")?;
            let waits = self.deliveries.iter().any(|left| left["message"] == message["id"]);
            if !waits && stored(daemon, &message["id"]) != 1 {
                return Err(format!("invariant 7: acknowledged, and not stored: {message:?}"));
            }
        }
        let mut heard = BTreeMap::<_, usize>::new();
        for event in &self.book.heard {
            *heard.entry(event).or_default() += 1;
        }
        match heard.iter().find(|(_, times)| **times > 1) {
            Some((event, times)) => {
                Err(format!("invariant 7: {event:?} was announced {times} times"))
            }
            None => Ok(()),
        }
    }

    /// §4.13: "stored" is said of what the receiver has, and in the end of all that it has.
    fn receipts_are_true(&self) -> Result<(), String> {
        for (daemon, receipts) in self.receipts.iter().enumerate() {
            for receipt in receipts {
                let is_it = |message: &&Fields| {
                    message["cmid"] == receipt["client_message_id"]
                        && message["sender"] == daemon.to_string()
                };
                let inbox = &self.inboxes[1 - daemon];
                let has_it = self.messages.iter().find(is_it).is_some_and(|message| {
                    inbox.iter().any(|row| row["broker_message_id"] == message["id"])
                });
                let says_so = receipt["stored"] == "1";
                if (says_so && !has_it) || (receipt["status"] == "done" && has_it && !says_so) {
                    return Err(format!("receipts: stored is {has_it}, and said is {receipt:?}"));
                }
            }
        }
        Ok(())
    }

    fn nothing_waits(&self) -> Result<(), String> {
        let waits = |row: &&Fields| ["pending", "inflight"].contains(&row["status"].as_str());
        if let Some(row) = self.outboxes.iter().flatten().find(waits) {
            let number = if row["status"] == "inflight" { 6 } else { 8 };
            return Err(format!("invariant {number}: still waits: {row:?}"));
        }
        match self.deliveries.first() {
            Some(left) => Err(format!("invariant 8: never acknowledged: {left:?}")),
            None => Ok(()),
        }
    }
}

fn origin_meta(origin: Option<&Fields>) -> String {
    origin.map(|row| row["meta"].clone()).unwrap_or_default()
}
