//! Accepting a message: phases B0, B2 and B3 of §17.1 in one transaction.
//!
//! Returning an error rolls the whole of it back, so that a refused id stays free. Phase B1 is the
//! caller's; its verdict is handed in, because B0 comes first: a known id is answered whatever else
//! is wrong with the retry.

use super::Ledger;
use super::fanout::{Route, deliver_to_many, deliver_to_one, weight};
use super::members::is_active;
use claudemesh_base::db::{Durability, Error, Param, Tx};
use claudemesh_fsm::dedupe::{DedupeDecision, DedupeEntry, decide};
use claudemesh_fsm::id::{BrokerMessageId, Fingerprint, Millis};

/// Who sends, as its connection was authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) mesh_id: String,
    pub(crate) member: i64,
    pub(crate) member_pubkey: String,
    /// The session key, or the member key: what the message was sealed with.
    pub(crate) routing_key: String,
    pub(crate) name: String,
    /// The routing key of another connection of the same member, if there is one.
    pub(crate) other_connection: Option<String>,
}

/// What a message is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A member's key or a session's.
    Key(String),
    /// Without the `@`.
    Group(String),
    /// Id or name, without the `#`.
    Topic(String),
    Everyone,
}

/// One message to accept.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The id it gets if it is new.
    pub(crate) id: String,
    /// What it deduplicates on; old clients send neither.
    pub(crate) client: Option<(String, Fingerprint)>,
    /// Phase B1's verdict.
    pub(crate) checked: Result<Target, Refusal>,
    pub(crate) target_spec: String,
    pub(crate) priority: String,
    pub(crate) nonce: String,
    pub(crate) ciphertext: String,
    pub(crate) ext_nonce: Option<String>,
    pub(crate) ext_ciphertext: Option<String>,
    pub(crate) reply_to_id: Option<String>,
    pub(crate) now: Millis,
    /// When the dedupe row may be forgotten; `None`: never.
    pub(crate) dedupe_expires_at: Option<Millis>,
}

/// What became of a message that was not refused.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// It is stored.
    First {
        seq: i64,
        /// The topic's name, of a topic message.
        topic: Option<String>,
        /// Each recipient member, and the one key of it that may have the message.
        recipients: Vec<(i64, Option<String>)>,
        /// The letter back, for the push.
        letter: Box<Letter>,
    },
    /// It was stored before.
    Duplicate(DedupeEntry),
    /// The id belongs to another request.
    Mismatch { broker_message_id: String, broker_fingerprint_prefix: String },
}

/// Why a message is not accepted; its id stays free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A field is wrong; the text says which and what was expected.
    Invalid(String),
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    RateLimited,
    /// The disk is below its reserve.
    DiskFull,
    /// The sender's membership has ended.
    NotAMember,
    /// No member and no session of this mesh ever had the key.
    UnknownRecipient,
    /// The member is known, and its membership is suspended.
    BannedRecipient,
    /// The recipient does not take direct messages of this sender.
    Blocked,
    UnknownTopic(String),
    MayNotWrite(String),
    /// The sender's own key, and no other connection of the sender.
    OnlyYourself,
    QueueFull,
}

/// A refusal, or a failure of the database.
#[derive(Debug)]
pub(crate) enum NotAccepted {
    Refused(Refusal),
    Failed(Error),
}

impl From<Error> for NotAccepted {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for NotAccepted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Ledger {
    /// Accepts one message. `admit` is asked between B0 and B2, once, for a message that is new and
    /// well-formed: the disk's reserve and the rate limit. `after` runs on the writer thread once the
    /// commit is decided: acks and pushes hang there.
    ///
    /// Waits for room in the writer's queue, then for the commit; once queued, the message is
    /// accepted whether or not anybody still waits.
    pub(crate) async fn accept(
        &self,
        sender: Sender,
        letter: Letter,
        admit: impl FnOnce(&Tx<'_>) -> Result<(), Refusal> + Send + 'static,
        after: impl FnOnce(&Result<Accepted, NotAccepted>) + Send + 'static,
    ) -> Result<Accepted, NotAccepted> {
        let job = move |tx: &Tx<'_>| accept(tx, &sender, letter, admit);
        self.db.write(Durability::Synced, job, after).await
    }
}

impl Ledger {
    /// Puts a message into a topic's past and into nobody's queue. An unknown topic swallows it,
    /// as on today's network.
    pub(crate) async fn keep_in_topic(
        &self,
        sender: Sender,
        letter: Letter,
        topic_id: String,
    ) -> Result<(), Error> {
        self.synced(move |tx| {
            let sql = "SELECT 1 FROM topic WHERE id = ? AND mesh_id = ?";
            let key = [(&topic_id).into(), (&sender.mesh_id).into()];
            if tx.query_row(sql, &key, |row| row.int(0))?.is_some() {
                insert_message(tx, &sender, &letter, Some(&topic_id))?;
            }
            Ok(())
        })
        .await
    }
}

fn accept(
    tx: &Tx<'_>,
    sender: &Sender,
    letter: Letter,
    admit: impl FnOnce(&Tx<'_>) -> Result<(), Refusal>,
) -> Result<Accepted, NotAccepted> {
    let fingerprint = letter.client.as_ref().map(|(_, fingerprint)| *fingerprint);
    let seen = match &letter.client {
        Some((id, _)) => seen(tx, sender, id)?,
        None => None,
    };
    let known_as = seen.as_ref().map(|seen| seen.broker_message_id.as_str().to_owned());
    match decide(seen, fingerprint) {
        DedupeDecision::Duplicate(seen) => return Ok(Accepted::Duplicate(seen)),
        DedupeDecision::Mismatch { broker_fingerprint_prefix } => {
            let broker_message_id = known_as.unwrap_or_default();
            return Ok(Accepted::Mismatch { broker_message_id, broker_fingerprint_prefix });
        }
        DedupeDecision::First | DedupeDecision::Undeduplicated => {}
    }
    let target = letter.checked.clone()?;
    admit(tx)?;
    require_membership(tx, sender)?;
    store(tx, sender, letter, &target)
}

fn seen(tx: &Tx<'_>, sender: &Sender, id: &str) -> Result<Option<DedupeEntry>, Error> {
    let sql = "SELECT request_fingerprint, broker_message_id, history_id, history_available, \
               first_seen_at, expires_at, recipients FROM client_message_dedupe \
               WHERE mesh_id = ? AND sender_member_pubkey = ? AND client_message_id = ?";
    let key = [(&sender.mesh_id).into(), (&sender.member_pubkey).into(), id.into()];
    tx.query_row(sql, &key, |row| {
        let fingerprint = Fingerprint::from_slice(&row.blob(0)?)
            .ok_or_else(|| Error::corrupt("a dedupe row's fingerprint is not 32 bytes"))?;
        Ok(DedupeEntry {
            fingerprint,
            broker_message_id: BrokerMessageId::trusted(row.text(1)?),
            history_id: Some(row.int(2)?.to_string()),
            history_available: row.int(3)? != 0,
            first_seen_at: Millis(row.int(4)?),
            expires_at: row.int_or_null(5)?.map(Millis),
            recipients: row.int_or_null(6)?.and_then(|count| u32::try_from(count).ok()),
        })
    })
}

fn require_membership(tx: &Tx<'_>, sender: &Sender) -> Result<(), NotAccepted> {
    match is_active(tx, sender.member)? {
        true => Ok(()),
        false => Err(Refusal::NotAMember.into()),
    }
}

fn store(
    tx: &Tx<'_>,
    sender: &Sender,
    letter: Letter,
    target: &Target,
) -> Result<Accepted, NotAccepted> {
    let route = match target {
        Target::Key(key) => find_member(tx, sender, key)?,
        Target::Group(name) => Route::Group(name.clone()),
        Target::Topic(topic) => find_topic(tx, sender, topic)?,
        Target::Everyone => Route::Everyone,
    };
    let (topic_id, topic) = match &route {
        Route::Topic { id, name } => (Some(id.as_str()), Some(name.clone())),
        _ => (None, None),
    };
    let seq = insert_message(tx, sender, &letter, topic_id)?;
    let bytes = weight(&letter);
    let recipients = match &route {
        Route::Member(member, only_key) => {
            deliver_to_one(tx, *member, only_key.as_deref(), seq, bytes)?;
            vec![(*member, only_key.clone())]
        }
        many => deliver_to_many(tx, sender, many, seq, bytes)?,
    };
    insert_dedupe(tx, sender, &letter, target, seq, recipients.len())?;
    Ok(Accepted::First { seq, topic, recipients, letter: Box::new(letter) })
}

fn find_member(tx: &Tx<'_>, sender: &Sender, key: &str) -> Result<Route, NotAccepted> {
    let params = [Param::from(&sender.mesh_id), key.into()];
    let sql = "SELECT seq FROM member WHERE mesh_id = ? AND pubkey = ? AND revoked_at IS NULL";
    let member_key = tx.query_row(sql, &params, |row| row.int(0))?;
    if let Some(member) = member_key {
        require_welcome(tx, sender, member)?;
    }
    if member_key == Some(sender.member) {
        // To oneself means to another connection: the one that sends has it already.
        return match &sender.other_connection {
            Some(other) => Ok(Route::Member(sender.member, Some(other.clone()))),
            None => Err(Refusal::OnlyYourself.into()),
        };
    }
    if let Some(member) = member_key {
        return Ok(Route::Member(member, None));
    }
    let sql = "SELECT member FROM session_key WHERE mesh_id = ? AND pubkey = ?";
    match tx.query_row(sql, &params, |row| row.int(0))? {
        None => Err(Refusal::UnknownRecipient.into()),
        Some(_) if key == sender.routing_key => Err(Refusal::OnlyYourself.into()),
        // Sealed to the session's key: no other connection could open it.
        Some(member) => {
            require_welcome(tx, sender, member)?;
            Ok(Route::Member(member, Some(key.to_owned())))
        }
    }
}

/// Whether a member may have direct messages at all, and wants this sender's.
fn require_welcome(tx: &Tx<'_>, sender: &Sender, member: i64) -> Result<(), NotAccepted> {
    let sql = "SELECT banned_at IS NOT NULL, \
               EXISTS (SELECT 1 FROM block b WHERE b.member = m.seq AND b.sender = ?2) \
               FROM member m WHERE m.seq = ?1 AND m.revoked_at IS NULL";
    let params = [member.into(), sender.member.into()];
    match tx.query_row(sql, &params, |row| Ok((row.int(0)?, row.int(1)?)))? {
        None => Err(Refusal::UnknownRecipient.into()),
        Some((0, 0)) => Ok(()),
        Some((0, _)) => Err(Refusal::Blocked.into()),
        Some(_) => Err(Refusal::BannedRecipient.into()),
    }
}

fn find_topic(tx: &Tx<'_>, sender: &Sender, topic: &str) -> Result<Route, NotAccepted> {
    let sql = "SELECT t.id, t.name, t.visibility, m.role FROM topic t \
               LEFT JOIN topic_member m ON m.topic_id = t.id AND m.member = ?3 \
               WHERE t.mesh_id = ?1 AND (t.id = ?2 OR t.name = ?2) ORDER BY t.id = ?2 DESC";
    let params = [(&sender.mesh_id).into(), topic.into(), sender.member.into()];
    let found = tx.query_row(sql, &params, |row| {
        Ok((row.text(0)?, row.text(1)?, row.text(2)?, row.text_or_null(3)?))
    })?;
    let Some((id, name, visibility, role)) = found else {
        return Err(Refusal::UnknownTopic(topic.to_owned()).into());
    };
    match role.as_deref() {
        Some("observer") => Err(Refusal::MayNotWrite(format!("you only observe #{name}")).into()),
        None if visibility != "public" => {
            Err(Refusal::MayNotWrite(format!("#{name} is {visibility}: join it first")).into())
        }
        _ => Ok(Route::Topic { id, name }),
    }
}

fn insert_message(
    tx: &Tx<'_>,
    sender: &Sender,
    letter: &Letter,
    topic_id: Option<&str>,
) -> Result<i64, Error> {
    let sql = "INSERT INTO message (id, mesh_id, sender_member, sender_pubkey, \
               sender_member_pubkey, sender_name, target_spec, topic_id, priority, nonce, \
               ciphertext, ext_nonce, ext_ciphertext, reply_to_id, client_message_id, \
               request_fingerprint, created_at) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq";
    let client = letter.client.as_ref();
    let params = [
        (&letter.id).into(),
        (&sender.mesh_id).into(),
        sender.member.into(),
        (&sender.routing_key).into(),
        (&sender.member_pubkey).into(),
        (&sender.name).into(),
        (&letter.target_spec).into(),
        topic_id.into(),
        (&letter.priority).into(),
        (&letter.nonce).into(),
        (&letter.ciphertext).into(),
        letter.ext_nonce.as_ref().into(),
        letter.ext_ciphertext.as_ref().into(),
        letter.reply_to_id.as_ref().into(),
        client.map(|(id, _)| id).into(),
        client.map(|(_, fingerprint)| &fingerprint.as_bytes()[..]).into(),
        letter.now.0.into(),
    ];
    let seq = tx.query_row(sql, &params, |row| row.int(0))?;
    seq.ok_or_else(|| Error::corrupt("an inserted message got no number"))
}

fn insert_dedupe(
    tx: &Tx<'_>,
    sender: &Sender,
    letter: &Letter,
    target: &Target,
    seq: i64,
    recipients: usize,
) -> Result<(), Error> {
    let Some((id, fingerprint)) = &letter.client else { return Ok(()) };
    let kind = if matches!(target, Target::Key(_)) { "dm" } else { "topic" };
    let sql = "INSERT INTO client_message_dedupe (mesh_id, sender_member_pubkey, \
               client_message_id, broker_message_id, request_fingerprint, destination_kind, \
               destination_ref, first_seen_at, expires_at, history_id, recipients) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let params = [
        (&sender.mesh_id).into(),
        (&sender.member_pubkey).into(),
        id.into(),
        (&letter.id).into(),
        fingerprint.as_bytes()[..].into(),
        kind.into(),
        (&letter.target_spec).into(),
        letter.now.0.into(),
        letter.dedupe_expires_at.map(|at| at.0).into(),
        seq.into(),
        i64::try_from(recipients).unwrap_or(i64::MAX).into(),
    ];
    tx.execute(sql, &params).map(drop)
}
