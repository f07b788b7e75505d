//! Accepting a message: phases B0, B2 and B3 of §17.1 in one transaction.
//!
//! Returning an error rolls the whole of it back, so that a refused id stays free. Phase B1 is the
//! caller's; its verdict is handed in, because B0 comes first: a known id is answered whatever else
//! is wrong with the retry.

use super::fan_out::{ResolvedTarget, enqueue_for_all, enqueue_for_member, weight};
use super::members::is_active;
use super::*;
use claudemesh_base::db::Param;
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::PushFrame;
use claudemesh_fsm::dedupe::{DedupeDecision, DedupeEntry, decide};
use claudemesh_fsm::envelope::Destination;
use claudemesh_fsm::id::{BrokerMessageId, Fingerprint, Millis};

impl AcceptLedger for SqliteLedger {
    fn accept(
        &self,
        sender: MessageSender,
        message: IncomingMessage,
        admit: Admit,
        on_decided: OnDecided,
    ) -> BoxFuture<Accepted> {
        let db = self.db.clone();
        let job = move |tx: &Tx<'_>| accept(tx, &sender, message, admit).map(Arc::new);
        Box::pin(async move { db.write(Durability::Synced, job, on_decided).await })
    }

    fn insert_topic_history(
        &self,
        sender: MessageSender,
        message: IncomingMessage,
        topic_id: String,
    ) -> Answer<()> {
        self.synced(move |tx| {
            let sql = "SELECT 1 FROM topic WHERE id = ? AND mesh_id = ?";
            let key = [(&topic_id).into(), (&sender.mesh_id).into()];
            if tx.query_row(sql, &key, |row| row.int(0))?.is_some() {
                insert_message(tx, &sender, &message, Some(&topic_id))?;
            }
            Ok(())
        })
    }
}

fn accept(
    tx: &Tx<'_>,
    sender: &MessageSender,
    message: IncomingMessage,
    admit: Admit,
) -> Result<AcceptOutcome, AcceptError> {
    let fingerprint = message.client.as_ref().map(|(_, fingerprint)| *fingerprint);
    let seen = match &message.client {
        Some((id, _)) => find_dedupe(tx, sender, id)?,
        None => None,
    };
    let known_as = seen.as_ref().map(|seen| seen.broker_message_id.as_str().to_owned());
    match decide(seen, fingerprint) {
        DedupeDecision::Duplicate(seen) => return Ok(AcceptOutcome::Duplicate(seen)),
        DedupeDecision::Mismatch { broker_fingerprint_prefix } => {
            let broker_message_id = known_as.unwrap_or_default();
            return Ok(AcceptOutcome::Mismatch { broker_message_id, broker_fingerprint_prefix });
        }
        DedupeDecision::First | DedupeDecision::Undeduplicated => {}
    }
    let destination = message.destination.clone()?;
    admit(&|| reusable_bytes(tx))?;
    require_membership(tx, sender)?;
    store(tx, sender, message, &destination)
}

fn find_dedupe(
    tx: &Tx<'_>,
    sender: &MessageSender,
    id: &str,
) -> Result<Option<DedupeEntry>, Error> {
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

fn require_membership(tx: &Tx<'_>, sender: &MessageSender) -> Result<(), AcceptError> {
    match is_active(tx, sender.member)? {
        true => Ok(()),
        false => Err(Refusal::NotAMember.into()),
    }
}

fn store(
    tx: &Tx<'_>,
    sender: &MessageSender,
    message: IncomingMessage,
    destination: &Destination,
) -> Result<AcceptOutcome, AcceptError> {
    let target = resolve(tx, sender, destination)?;
    let (topic_id, topic) = match &target {
        ResolvedTarget::Topic { id, name } => (Some(id.as_str()), Some(name.clone())),
        _ => (None, None),
    };
    let seq = insert_message(tx, sender, &message, topic_id)?;
    let bytes = weight(&message.frame);
    let recipients = match &target {
        ResolvedTarget::Member(recipient) => {
            enqueue_for_member(tx, recipient, seq, bytes)?;
            vec![recipient.clone()]
        }
        many => enqueue_for_all(tx, sender, many, seq, bytes)?,
    };
    insert_dedupe(tx, sender, &message, destination, seq, recipients.len())?;
    let push = push(sender, message, topic);
    Ok(AcceptOutcome::First { message: QueuedMessage { seq, push }, recipients })
}

/// Phase B2: who a destination is in the sender's mesh.
fn resolve(
    tx: &Tx<'_>,
    sender: &MessageSender,
    destination: &Destination,
) -> Result<ResolvedTarget, AcceptError> {
    match destination {
        Destination::Member(key) => find_member(tx, sender, key),
        Destination::Topic(topic) => find_topic(tx, sender, topic),
        Destination::Group(name) => Ok(ResolvedTarget::Group(name.clone())),
        Destination::Everyone => Ok(ResolvedTarget::Everyone),
        Destination::Unrecorded => Err(Refusal::UnknownRecipient.into()),
    }
}

/// The message as its recipients get it.
fn push(sender: &MessageSender, message: IncomingMessage, topic: Option<String>) -> PushFrame {
    let (client_id, fingerprint) = message.client.unzip();
    let frame = message.frame;
    PushFrame {
        mesh_id: sender.mesh_id.clone(),
        sender_pubkey: sender.routing_key.clone(),
        sender_member_pubkey: Some(sender.member_pubkey.clone()),
        sender_name: Some(sender.name.clone()),
        priority: frame.priority,
        nonce: frame.nonce,
        ciphertext: frame.ciphertext,
        ext_nonce: frame.ext_nonce,
        ext_ciphertext: frame.ext_ciphertext,
        created_at: iso(message.now),
        target_spec: Some(frame.target_spec),
        topic,
        reply_to_id: frame.reply_to_id,
        // A message of an old client goes by its own id.
        client_message_id: Some(client_id.unwrap_or_else(|| message.id.clone())),
        request_fingerprint: fingerprint.map(|fingerprint| fingerprint.to_hex()),
        message_id: message.id,
        ..PushFrame::default()
    }
}

fn find_member(
    tx: &Tx<'_>,
    sender: &MessageSender,
    key: &str,
) -> Result<ResolvedTarget, AcceptError> {
    let params = [Param::from(&sender.mesh_id), key.into()];
    let sql = "SELECT seq FROM member WHERE mesh_id = ? AND pubkey = ? AND revoked_at IS NULL";
    let member_key = tx.query_row(sql, &params, |row| row.int(0))?;
    if let Some(member) = member_key {
        require_direct_allowed(tx, sender, member)?;
    }
    if member_key == Some(sender.member) {
        // To oneself means to another connection: the one that sends has it already.
        return match sender.other_connection.as_deref() {
            Some(other) => Ok(member_target(sender.member, Some(other))),
            None => Err(Refusal::OnlyYourself.into()),
        };
    }
    if let Some(member) = member_key {
        return Ok(member_target(member, None));
    }
    let sql = "SELECT member FROM session_key WHERE mesh_id = ? AND pubkey = ?";
    match tx.query_row(sql, &params, |row| row.int(0))? {
        None => Err(Refusal::UnknownRecipient.into()),
        Some(_) if key == sender.routing_key => Err(Refusal::OnlyYourself.into()),
        // Sealed to the session's key: no other connection could open it.
        Some(member) => {
            require_direct_allowed(tx, sender, member)?;
            Ok(member_target(member, Some(key)))
        }
    }
}

fn member_target(member: i64, only_key: Option<&str>) -> ResolvedTarget {
    ResolvedTarget::Member(Recipient { member, only_key: only_key.map(str::to_owned) })
}

/// Whether a member may have direct messages at all, and wants this sender's.
fn require_direct_allowed(
    tx: &Tx<'_>,
    sender: &MessageSender,
    member: i64,
) -> Result<(), AcceptError> {
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

fn find_topic(
    tx: &Tx<'_>,
    sender: &MessageSender,
    topic: &str,
) -> Result<ResolvedTarget, AcceptError> {
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
        _ => Ok(ResolvedTarget::Topic { id, name }),
    }
}

fn insert_message(
    tx: &Tx<'_>,
    sender: &MessageSender,
    message: &IncomingMessage,
    topic_id: Option<&str>,
) -> Result<i64, Error> {
    let sql = "INSERT INTO message (id, mesh_id, sender_member, sender_pubkey, \
               sender_member_pubkey, sender_name, target_spec, topic_id, priority, nonce, \
               ciphertext, ext_nonce, ext_ciphertext, reply_to_id, client_message_id, \
               request_fingerprint, created_at) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq";
    let client = message.client.as_ref();
    let params = [
        (&message.id).into(),
        (&sender.mesh_id).into(),
        sender.member.into(),
        (&sender.routing_key).into(),
        (&sender.member_pubkey).into(),
        (&sender.name).into(),
        (&message.frame.target_spec).into(),
        topic_id.into(),
        (&message.frame.priority).into(),
        (&message.frame.nonce).into(),
        (&message.frame.ciphertext).into(),
        message.frame.ext_nonce.as_ref().into(),
        message.frame.ext_ciphertext.as_ref().into(),
        message.frame.reply_to_id.as_ref().into(),
        client.map(|(id, _)| id).into(),
        client.map(|(_, fingerprint)| &fingerprint.as_bytes()[..]).into(),
        message.now.0.into(),
    ];
    let seq = tx.query_row(sql, &params, |row| row.int(0))?;
    seq.ok_or_else(|| Error::corrupt("an inserted message got no number"))
}

fn insert_dedupe(
    tx: &Tx<'_>,
    sender: &MessageSender,
    message: &IncomingMessage,
    destination: &Destination,
    seq: i64,
    recipients: usize,
) -> Result<(), Error> {
    let Some((id, fingerprint)) = &message.client else { return Ok(()) };
    let sql = "INSERT INTO client_message_dedupe (mesh_id, sender_member_pubkey, \
               client_message_id, broker_message_id, request_fingerprint, destination_kind, \
               destination_ref, first_seen_at, expires_at, history_id, recipients) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let params = [
        (&sender.mesh_id).into(),
        (&sender.member_pubkey).into(),
        id.into(),
        (&message.id).into(),
        fingerprint.as_bytes()[..].into(),
        destination.kind().as_str().into(),
        (&message.frame.target_spec).into(),
        message.now.0.into(),
        message.dedupe_expires_at.map(|at| at.0).into(),
        seq.into(),
        i64::try_from(recipients).unwrap_or(i64::MAX).into(),
    ];
    tx.execute(sql, &params).map(drop)
}
