//! The audit: who did what to a mesh, and when (§17.3). Rows are written in the transaction of the
//! act itself, so that neither can be there without the other. It keeps no secret and no message.

use super::Ledger;
use claudemesh_base::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// Whoever may write the broker's directory.
pub(crate) const BY_OPERATOR: &str = "operator";
/// The broker itself, by a rule of the mesh (§15.6).
pub(crate) const BY_BROKER: &str = "broker";
/// Acts of whatever kind after which a verdict of the broker itself goes: what a member can cause
/// must have an end.
const VERDICTS_MAX: i64 = 10_000;

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Millis,
    pub(crate) mesh_id: String,
    pub(crate) actor: &'static str,
    pub(crate) act: &'static str,
    /// The id of the member or mesh it was done to.
    pub(crate) subject: String,
    pub(crate) detail: Option<String>,
}

/// One act, as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) at: Millis,
    pub(crate) actor: String,
    pub(crate) act: String,
    pub(crate) subject: String,
    pub(crate) detail: Option<String>,
}

impl Entry {
    /// An act of whoever runs the broker.
    pub(crate) fn by_operator(mesh: &str, act: &'static str, subject: &str, at: Millis) -> Self {
        let (mesh_id, subject) = (mesh.to_owned(), subject.to_owned());
        Self { at, mesh_id, actor: BY_OPERATOR, act, subject, detail: None }
    }

    /// The same with a word on how.
    pub(crate) fn with(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }
}

/// Writes one act down.
pub(super) fn record(tx: &Tx<'_>, entry: &Entry) -> Result<(), Error> {
    let sql = "INSERT INTO audit (at, mesh_id, actor, act, subject, detail) \
               VALUES (?, ?, ?, ?, ?, ?)";
    let params = [
        entry.at.0.into(),
        (&entry.mesh_id).into(),
        entry.actor.into(),
        entry.act.into(),
        (&entry.subject).into(),
        entry.detail.as_ref().into(),
    ];
    tx.execute(sql, &params)?;
    if entry.actor == BY_BROKER {
        let sql = "DELETE FROM audit WHERE actor = ?1 AND seq <= (SELECT max(seq) FROM audit) - ?2";
        tx.execute(sql, &[BY_BROKER.into(), VERDICTS_MAX.into()])?;
    }
    Ok(())
}

impl Ledger {
    /// Writes down an act that changes nothing else in the ledger.
    pub(crate) async fn record(&self, entry: Entry) -> Result<(), Error> {
        self.relaxed(move |tx| record(tx, &entry)).await
    }

    /// The latest acts of a mesh, newest first, at most `limit`.
    pub(crate) async fn audit(&self, mesh: &str, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let mesh = mesh.to_owned();
        self.db
            .read(move |tx| {
                let sql = "SELECT at, actor, act, subject, detail FROM audit \
                           WHERE mesh_id = ? ORDER BY seq DESC LIMIT ?";
                tx.query(sql, &[(&mesh).into(), i64::from(limit).into()], |row| {
                    Ok(AuditRow {
                        at: Millis(row.int(0)?),
                        actor: row.text(1)?,
                        act: row.text(2)?,
                        subject: row.text(3)?,
                        detail: row.text_or_null(4)?,
                    })
                })
            })
            .await
    }
}
