//! The audit: who did what to a mesh, and when (§17.3). Rows are written in the transaction of the
//! act itself, so that neither can be there without the other. It keeps no secret and no message.

use super::*;

/// Acts of whatever kind after which a verdict of the broker itself goes: what a member can cause
/// must have an end.
const VERDICTS_MAX: i64 = 10_000;

/// Writes one act down.
pub(super) fn record(tx: &Tx<'_>, entry: &AuditEntry) -> Result<(), Error> {
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
    if entry.actor == ACTOR_BROKER {
        let sql = "DELETE FROM audit WHERE actor = ?1 AND seq <= (SELECT max(seq) FROM audit) - ?2";
        tx.execute(sql, &[ACTOR_BROKER.into(), VERDICTS_MAX.into()])?;
    }
    Ok(())
}

impl AuditLedger for SqliteLedger {
    fn record(&self, entry: AuditEntry) -> Answer<()> {
        self.relaxed(move |tx| record(tx, &entry))
    }

    fn audit(&self, mesh: &str, limit: u32) -> Answer<Vec<AuditInfo>> {
        let mesh = mesh.to_owned();
        self.read(move |tx| {
            let sql = "SELECT at, actor, act, subject, detail FROM audit \
                           WHERE mesh_id = ? ORDER BY seq DESC LIMIT ?";
            tx.query(sql, &[(&mesh).into(), i64::from(limit).into()], |row| {
                Ok(AuditInfo {
                    at_ms: row.int(0)?,
                    actor: row.text(1)?,
                    act: row.text(2)?,
                    subject: row.text(3)?,
                    detail: row.text_or_null(4)?,
                })
            })
        })
    }
}
