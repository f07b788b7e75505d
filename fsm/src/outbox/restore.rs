//! The only door from storage into types: columns in, a typed row or the reason there is none.

use super::{Aborted, Dead, Done, Identity, Inflight, Pending, Row, Status};
use crate::envelope::{Destination, DestinationKind, Draft, Envelope, Priority, Recipient};
use crate::id::{BrokerMessageId, ClientMessageId, Fingerprint, Millis, RowId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why stored columns are not a row. Names the column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt(pub String);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stored row is damaged: {}", self.0)
    }
}

impl core::error::Error for Corrupt {}

/// The columns of one row, as the database has them (§4.5.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the column of the same name")]
pub struct RowRecord {
    pub id: String,
    pub client_message_id: String,
    pub request_fingerprint: Vec<u8>,
    pub payload: Vec<u8>,
    pub mesh: String,
    pub destination_kind: String,
    pub destination_ref: String,
    pub recipient: Option<String>,
    pub recipient_member: Option<String>,
    pub priority: String,
    pub meta: Option<String>,
    pub reply_to_id: Option<String>,
    /// One name a line.
    pub mentions: Option<String>,
    pub enqueued_at: i64,
    pub attempts: i64,
    pub next_attempt_at: i64,
    pub status: String,
    pub last_error: Option<String>,
    pub may_have_been_sent: bool,
    pub delivered_at: Option<i64>,
    pub broker_message_id: Option<String>,
    pub history_id: Option<String>,
    pub aborted_at: Option<i64>,
    pub aborted_by: Option<String>,
    pub superseded_by: Option<String>,
}

/// A row read back from disk, in whichever state it was.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a row that is dropped is a message nobody sends"]
#[allow(missing_docs, reason = "each variant is the state of the same name")]
pub enum AnyRow {
    Pending(Row<Pending>),
    Inflight(Row<Inflight>),
    Done(Row<Done>),
    Dead(Row<Dead>),
    Aborted(Row<Aborted>),
}

impl AnyRow {
    /// Reads one row's columns.
    ///
    /// # Errors
    /// Says which column no row of ours can have.
    pub fn restore(mut record: RowRecord) -> Result<Self, Corrupt> {
        let status = parse_status(&record.status)?;
        if matches!(status, Status::Pending | Status::Inflight) {
            require_address(&record)?;
        }
        Ok(match status {
            Status::Pending => {
                let state = Pending {
                    next_attempt_at: Millis(record.next_attempt_at),
                    last_error: record.last_error.take(),
                    may_have_been_sent: record.may_have_been_sent,
                };
                Self::Pending(Row { identity: identity(record)?, state })
            }
            Status::Inflight => {
                let state = Inflight { earlier_unanswered: record.may_have_been_sent };
                Self::Inflight(Row { identity: identity(record)?, state })
            }
            Status::Done => {
                let broker_message_id =
                    required(record.broker_message_id.take(), "broker_message_id")?;
                let state = Done {
                    broker_message_id: BrokerMessageId::trusted(broker_message_id),
                    history_id: record.history_id.take(),
                    delivered_at: Millis(required(record.delivered_at, "delivered_at")?),
                };
                Self::Done(Row { identity: identity(record)?, state })
            }
            Status::Dead => {
                let state = Dead {
                    last_error: required(record.last_error.take(), "last_error")?,
                    may_have_been_sent: record.may_have_been_sent,
                };
                Self::Dead(Row { identity: identity(record)?, state })
            }
            Status::Aborted => {
                let state = Aborted {
                    aborted_at: Millis(required(record.aborted_at, "aborted_at")?),
                    aborted_by: required(record.aborted_by.take(), "aborted_by")?,
                    superseded_by: record.superseded_by.take().map(RowId::trusted),
                };
                Self::Aborted(Row { identity: identity(record)?, state })
            }
        })
    }

    /// The row's state as data.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Pending(_) => Status::Pending,
            Self::Inflight(_) => Status::Inflight,
            Self::Done(_) => Status::Done,
            Self::Dead(_) => Status::Dead,
            Self::Aborted(_) => Status::Aborted,
        }
    }

    /// What the row is, whatever its state.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        match self {
            Self::Pending(row) => row.identity(),
            Self::Inflight(row) => row.identity(),
            Self::Done(row) => row.identity(),
            Self::Dead(row) => row.identity(),
            Self::Aborted(row) => row.identity(),
        }
    }
}

/// What §4.5.1 must know of an existing row, and all that a shrunk row still has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the state of the same name")]
pub enum RowSummary {
    Pending,
    Inflight,
    Done { broker_message_id: String, history_id: Option<String> },
    Dead { last_error: String },
    Aborted { superseded_by: Option<String> },
}

/// The columns [`row_summary`] reads: no payload, so that answering a retry stays cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the column of the same name")]
pub struct RowSummaryRecord {
    pub request_fingerprint: Vec<u8>,
    pub status: String,
    pub last_error: Option<String>,
    pub broker_message_id: Option<String>,
    pub history_id: Option<String>,
    pub superseded_by: Option<String>,
}

/// Reads what a retry is answered from.
///
/// # Errors
/// Says which column no row of ours can have.
pub fn row_summary(record: RowSummaryRecord) -> Result<(Fingerprint, RowSummary), Corrupt> {
    let fingerprint = parse_fingerprint(&record.request_fingerprint)?;
    let row_summary = match parse_status(&record.status)? {
        Status::Pending => RowSummary::Pending,
        Status::Inflight => RowSummary::Inflight,
        Status::Done => RowSummary::Done {
            broker_message_id: required(record.broker_message_id, "broker_message_id")?,
            history_id: record.history_id,
        },
        Status::Dead => RowSummary::Dead { last_error: required(record.last_error, "last_error")? },
        Status::Aborted => RowSummary::Aborted { superseded_by: record.superseded_by },
    };
    Ok((fingerprint, row_summary))
}

fn identity(record: RowRecord) -> Result<Identity, Corrupt> {
    let fingerprint = parse_fingerprint(&record.request_fingerprint)?;
    let mut destination = Destination::restore(&record.destination_kind, &record.destination_ref)
        .ok_or_else(|| {
        let (kind, reference) = (&record.destination_kind, &record.destination_ref);
        Corrupt(format!("destination_kind `{kind}` with destination_ref `{reference}`"))
    })?;
    if record.mesh.is_empty() {
        // A name means nothing without its mesh.
        destination = Destination::Unrecorded;
    }
    let priority = Priority::parse(&record.priority)
        .ok_or_else(|| Corrupt(format!("priority `{}`", record.priority)))?;
    let attempts = u32::try_from(record.attempts)
        .map_err(|_| Corrupt(format!("attempts {}", record.attempts)))?;
    let recipient = record.recipient.map(|routing_key| Recipient {
        member_key: record.recipient_member.unwrap_or_else(|| routing_key.clone()),
        routing_key,
    });
    Ok(Identity {
        id: RowId::trusted(record.id),
        client_message_id: ClientMessageId::trusted(record.client_message_id),
        enqueued_at: Millis(record.enqueued_at),
        attempts,
        envelope: Envelope {
            mesh: record.mesh,
            recipient,
            draft: Draft {
                destination,
                priority,
                meta: record.meta,
                reply_to_id: record.reply_to_id,
                mentions: record
                    .mentions
                    .iter()
                    .flat_map(|names| names.lines())
                    .map(String::from)
                    .collect(),
                payload: record.payload,
                fingerprint,
            },
        },
    })
}

/// What is to be sent has somewhere to go: only a row that rests may have lost that.
fn require_address(record: &RowRecord) -> Result<(), Corrupt> {
    if record.mesh.is_empty() || record.destination_ref.is_empty() {
        let (status, mesh, to) = (&record.status, &record.mesh, &record.destination_ref);
        return Err(Corrupt(format!("{status} with mesh `{mesh}` and destination_ref `{to}`")));
    }
    // It would go out unsealed.
    if record.destination_kind == DestinationKind::Dm.as_str() && record.recipient.is_none() {
        return Err(Corrupt(format!("{} and direct, with no recipient", record.status)));
    }
    Ok(())
}

fn parse_status(text: &str) -> Result<Status, Corrupt> {
    Status::parse(text).ok_or_else(|| Corrupt(format!("status `{text}`")))
}

fn parse_fingerprint(bytes: &[u8]) -> Result<Fingerprint, Corrupt> {
    Fingerprint::from_slice(bytes)
        .ok_or_else(|| Corrupt(format!("request_fingerprint of {} bytes", bytes.len())))
}

fn required<T>(column: Option<T>, name: &str) -> Result<T, Corrupt> {
    column.ok_or_else(|| Corrupt(format!("{name} is NULL")))
}
