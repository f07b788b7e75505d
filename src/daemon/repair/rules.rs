//! What a damaged store leaves behind (§4.11): every row that can be read goes into a new database,
//! and a row that makes no sense any more never takes its id with it.
//!
//! An id that was accepted stays bound to its fingerprint. A message whose contents were damaged is
//! not sent: its row is dead and says why.

use super::salvage::{Judgement, Rules, Saved, SavedRow, salvage};
use crate::store::schema;
use claudemesh_base::db::check::check_thoroughly;
use claudemesh_base::db::{Check, Error, Kind};
use claudemesh_base::message::{fingerprint_of, legacy};
use claudemesh_fsm::envelope::{Destination, DestinationKind, Envelope};
use claudemesh_fsm::id::ClientMessageId;
use claudemesh_fsm::outbox::{AnyRow, RowRecord, Status};
use std::path::Path;

/// Columns of the outbox that hold text, or nothing.
const OPTIONAL_TEXT: [&str; 10] = [
    "recipient",
    "recipient_member",
    "meta",
    "reply_to_id",
    "mentions",
    "last_error",
    "broker_message_id",
    "history_id",
    "aborted_by",
    "superseded_by",
];
/// Columns of an inbox row without which it is no message.
const INBOX_TEXT: [&str; 6] =
    ["id", "broker_message_id", "mesh", "sender_pubkey", "priority", "encryption"];
const FINGERPRINT_BYTES: usize = 32;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// `outbox.db`
    Outbox,
    /// `inbox.db`
    Inbox,
}

impl Store {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Outbox, Self::Inbox];

    /// Copies what can be read of `from` into the new file `to`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn salvage(self, from: &Path, to: &Path) -> Result<Vec<Saved>, Error> {
        match self {
            Self::Outbox => salvage(from, to, &schema::OUTBOX, &OUTBOX_RULES),
            Self::Inbox => salvage(from, to, &schema::INBOX, &INBOX_RULES),
        }
    }
}

/// Checks a whole file and its indices without changing it.
///
/// # Errors
/// When it cannot be read at all, for another reason than damage.
pub fn check(path: &Path) -> Result<Check, Error> {
    match check_thoroughly(path) {
        Err(error) if error.kind() == Kind::Corrupt => Ok(Check::Damaged(error.to_string())),
        checked => checked,
    }
}

/// Where the counters stood, how far retention got and which boot it was says nothing of another file:
/// it is counted anew, walked anew, and every row that waits is doubted (§4.7). A receipt whose row
/// is lost would become the receipt of the next row in that place.
static OUTBOX_RULES: Rules = Rules {
    derived: &["depth", "host", "witnessed", "mark", "shrink_walk", "left_behind"],
    judge: judge_outbox,
    finish: "DELETE FROM receipt WHERE seq NOT IN (SELECT seq FROM outbox)",
};
/// What was received is known by its sender and id, also where the damage took that away (§4.10),
/// and no place is given twice: a listener that was there already would not be told.
static INBOX_RULES: Rules = Rules {
    derived: &["witnessed", "mark"],
    judge: judge_inbox,
    finish: "INSERT OR IGNORE INTO seen \
             (mesh, broker_message_id, sender, client_message_id, first_seen_at, inbox_seq) \
             SELECT mesh, broker_message_id, coalesce(sender_member_pubkey, sender_pubkey), \
             client_message_id, received_at, seq FROM inbox; \
             INSERT INTO sqlite_sequence (name, seq) SELECT 'inbox', 0 \
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'inbox'); \
             UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(inbox_seq), 0) FROM seen \
             WHERE typeof(inbox_seq) = 'integer' AND inbox_seq < 9007199254740992)) \
             WHERE name = 'inbox'",
};

fn judge_outbox(table: &str, row: &mut SavedRow) -> Judgement {
    if table != "outbox" {
        return Judgement::Sound;
    }
    let why = match record(row).and_then(intact) {
        Ok(()) => return Judgement::Sound,
        Err(why) => why,
    };
    let is_bound = row.text("client_message_id").is_some_and(is_sound_id)
        && row.text("id").is_some_and(is_sound_id)
        && row.blob("request_fingerprint").is_some_and(|bytes| bytes.len() == FINGERPRINT_BYTES);
    if !is_bound {
        return Judgement::Refused(format!("its ids cannot be read: {why}"));
    }
    repair(row, &why);
    match record(row) {
        Ok(_) => Judgement::Repaired(why),
        Err(still) => Judgement::Refused(still),
    }
}

fn is_sound_id(id: &str) -> bool {
    ClientMessageId::parse(id).is_ok_and(|parsed| parsed.as_str() == id)
}

/// The row as a record, if it is one that the daemon could live with.
fn record(row: &SavedRow) -> Result<RowRecord, String> {
    let text = |column: &'static str| {
        row.text(column).map(str::to_owned).ok_or_else(|| format!("{column} is no text"))
    };
    let text_or_null = |column: &'static str| {
        if row.is_null(column) { Ok(None) } else { text(column).map(Some) }
    };
    let int =
        |column: &'static str| row.int(column).ok_or_else(|| format!("{column} is no number"));
    let int_or_null = |column: &'static str| {
        if row.is_null(column) { Ok(None) } else { int(column).map(Some) }
    };
    let blob = |column: &'static str| {
        row.blob(column).map(<[u8]>::to_vec).ok_or_else(|| format!("{column} is no bytes"))
    };
    let record = RowRecord {
        id: text("id")?,
        client_message_id: text("client_message_id")?,
        request_fingerprint: blob("request_fingerprint")?,
        payload: blob("payload")?,
        mesh: text("mesh")?,
        destination_kind: text("destination_kind")?,
        destination_ref: text("destination_ref")?,
        recipient: text_or_null("recipient")?,
        recipient_member: text_or_null("recipient_member")?,
        priority: text("priority")?,
        meta: text_or_null("meta")?,
        reply_to_id: text_or_null("reply_to_id")?,
        mentions: text_or_null("mentions")?,
        enqueued_at: int("enqueued_at")?,
        attempts: int("attempts")?,
        next_attempt_at: int("next_attempt_at")?,
        status: text("status")?,
        last_error: text_or_null("last_error")?,
        may_have_been_sent: int("may_have_been_sent")? != 0,
        delivered_at: int_or_null("delivered_at")?,
        broker_message_id: text_or_null("broker_message_id")?,
        history_id: text_or_null("history_id")?,
        aborted_at: int_or_null("aborted_at")?,
        aborted_by: text_or_null("aborted_by")?,
        superseded_by: text_or_null("superseded_by")?,
    };
    match AnyRow::restore(record.clone()) {
        Ok(_) => Ok(record),
        Err(corrupt) => Err(corrupt.to_string()),
    }
}

/// What is still to be sent is what was accepted: the fingerprint says so (§4.4). What may be
/// requeued goes where it was meant to go.
fn intact(record: RowRecord) -> Result<(), String> {
    let row = AnyRow::restore(record).map_err(|corrupt| corrupt.to_string())?;
    let envelope = &row.identity().envelope;
    if row.status() == Status::Dead && has_lost_recipient(envelope) {
        return Err("it is direct, and its recipient is lost".to_owned());
    }
    let is_waiting = matches!(row.status(), Status::Pending | Status::Inflight);
    // One that was taken over from the daemon before us may have that one's form (§4.4).
    let theirs = || legacy::fingerprint(envelope, None) == Some(envelope.fingerprint);
    if is_waiting && fingerprint_of(envelope) != envelope.fingerprint && !theirs() {
        return Err("its contents cannot be shown to be what was accepted".to_owned());
    }
    Ok(())
}

fn has_lost_recipient(envelope: &Envelope) -> bool {
    matches!(envelope.destination, Destination::Member(_)) && envelope.recipient.is_none()
}

/// Puts something where nothing can be read any more, so that the id stays bound. What was to be
/// sent is dead then. One that has lost its mesh, its destination or whom it is sealed to is
/// unaddressed: it cannot be requeued either.
fn repair(row: &mut SavedRow, why: &str) {
    for column in OPTIONAL_TEXT {
        if !row.is_null(column) && row.text(column).is_none() {
            row.set(column, ());
        }
    }
    for column in ["enqueued_at", "next_attempt_at", "may_have_been_sent"] {
        if row.int(column).is_none_or(|number| number < 0) {
            row.set(column, 0_i64);
        }
    }
    if row.int("attempts").is_none_or(|attempts| u32::try_from(attempts).is_err()) {
        row.set("attempts", 0_i64);
    }
    if row.blob("payload").is_none() {
        row.set("payload", &[][..]);
    }
    if row.text("mesh").is_none() {
        row.set("mesh", "");
    }
    let destination = row.text("destination_kind").zip(row.text("destination_ref"));
    if destination.is_none_or(|(kind, name)| Destination::restore(kind, name).is_none()) {
        row.set("destination_kind", DestinationKind::Dm.as_str());
        row.set("destination_ref", "");
    }
    if row.text("priority").is_none_or(|word| !["now", "next", "low"].contains(&word)) {
        row.set("priority", "next");
    }
    for column in ["delivered_at", "aborted_at"] {
        if row.int(column).is_none() {
            row.set(column, ());
        }
    }
    let status = row.text("status").and_then(Status::parse);
    let stays = match status {
        Some(Status::Done) => !row.is_null("broker_message_id") && !row.is_null("delivered_at"),
        Some(Status::Aborted) => !row.is_null("aborted_at") && !row.is_null("aborted_by"),
        Some(Status::Dead) => !row.is_null("last_error"),
        Some(Status::Pending | Status::Inflight) | None => false,
    };
    if !stays {
        // Also one that says it waits: what doubted it is not in the row (§4.7).
        row.set("may_have_been_sent", 1_i64);
        row.set("status", "dead");
        row.set("last_error", format!("damaged on disk and not sent again: {why}").as_str());
    }
    let is_dead = row.text("status").and_then(Status::parse) == Some(Status::Dead);
    let is_direct = row.text("destination_kind") == Some(DestinationKind::Dm.as_str());
    if is_dead && is_direct && row.is_null("recipient") {
        row.set("destination_ref", "");
    }
}

fn judge_inbox(table: &str, row: &mut SavedRow) -> Judgement {
    match table {
        "inbox" => judge_message(row),
        // Part of every event id: another one is a new inbox to its listeners, which is right.
        "epoch" => match row.text("value") {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Judgement::Sound,
            _ => Judgement::Refused("the epoch cannot be read; a new one begins".to_owned()),
        },
        _ => Judgement::Sound,
    }
}

fn judge_message(row: &mut SavedRow) -> Judgement {
    let bad = INBOX_TEXT.into_iter().find(|column| row.text(column).is_none());
    if let Some(column) = bad {
        return Judgement::Refused(format!("{column} is no text"));
    }
    if row.int("received_at").is_none() {
        return Judgement::Refused("received_at is no number".to_owned());
    }
    let body = row.blob("body").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if let Some(body) = body.filter(|body| Some(body.as_bytes()) != row.blob("body")) {
        row.set("body", body.as_bytes());
        return Judgement::Repaired("its body is no text any more in places".to_owned());
    }
    Judgement::Sound
}
