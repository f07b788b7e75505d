//! One row with everything that took its place (§3.2).

use super::{Outbox, RowView, query};
use claudemesh_base::db::{Error, Tx};
use claudemesh_fsm::id::RowId;
use claudemesh_fsm::outbox::Status;
use std::collections::HashSet;

/// How many successors are followed. Who wants more asks for the last one.
pub const CHAIN_ROWS_MAX: usize = 100;

/// A row and its successors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChain {
    /// The row that was asked for.
    pub row: RowView,
    /// What was requeued from it, each from the one before.
    pub chain: Vec<Successor>,
    /// There are more than [`CHAIN_ROWS_MAX`].
    pub is_cut: bool,
}

/// A row that took another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the column of the same name")]
pub struct Successor {
    pub id: String,
    pub client_message_id: String,
    pub status: Status,
}

impl Outbox {
    /// One row, by its row id, with the whole chain of its successors.
    pub async fn inspect(&self, id: RowId) -> Result<Option<RowChain>, Error> {
        self.db.read(move |tx| inspect_in(tx, &id)).await
    }
}

fn inspect_in(tx: &Tx<'_>, id: &RowId) -> Result<Option<RowChain>, Error> {
    let Some(row) = query::view_by_row_id(tx, id)? else { return Ok(None) };
    let mut next = row.superseded_by.clone();
    let (mut chain, mut is_cut) = (Vec::new(), false);
    // We never write a circle; a damaged file must not make us walk in one.
    let mut followed = HashSet::from([row.id.clone()]);
    while let Some(id) = next.take().filter(|id| !followed.contains(id)) {
        if chain.len() == CHAIN_ROWS_MAX {
            is_cut = true;
            break;
        }
        let Some((successor, superseded_by)) = successor(tx, &id)? else { break };
        followed.insert(id);
        chain.push(successor);
        next = superseded_by;
    }
    Ok(Some(RowChain { row, chain, is_cut }))
}

fn successor(tx: &Tx<'_>, id: &str) -> Result<Option<(Successor, Option<String>)>, Error> {
    let sql = "SELECT id, client_message_id, status, superseded_by FROM outbox WHERE id = ?";
    tx.query_row(sql, &[id.into()], |row| {
        let status = row.text(2)?;
        let successor = Successor {
            id: row.text(0)?,
            client_message_id: row.text(1)?,
            status: Status::parse(&status)
                .ok_or_else(|| Error::corrupt(format_args!("status `{status}`")))?,
        };
        Ok((successor, row.text_or_null(3)?))
    })
}
