//! The keys of members' sessions: which member each is of, and that it is in use.

use super::*;
use claudemesh_base::db::Param;
use claudemesh_fsm::id::Millis;

impl SessionKeyLedger for SqliteLedger {
    fn bind_session_key(&self, mesh: &str, pubkey: &str, member: i64, now: Millis) -> Answer<bool> {
        let (mesh, pubkey) = (mesh.to_owned(), pubkey.to_owned());
        self.relaxed(move |tx| {
            let key = [Param::from(&mesh), Param::from(&pubkey)];
            let sql = "SELECT seq FROM member WHERE mesh_id = ? AND pubkey = ?";
            if tx.query_row(sql, &key, |row| row.int(0))?.is_some() {
                return Ok(false);
            }
            let sql = "INSERT INTO session_key (mesh_id, pubkey, member, last_seen_at) \
                       VALUES (?1, ?2, ?3, ?4) ON CONFLICT (mesh_id, pubkey) \
                       DO UPDATE SET last_seen_at = ?4 WHERE member = ?3 RETURNING member";
            let bound =
                tx.query_row(sql, &[key[0], key[1], member.into(), now.0.into()], |r| r.int(0))?;
            Ok(bound.is_some())
        })
    }

    fn is_session_key_of(&self, mesh: &str, pubkey: &str, member: i64) -> Answer<bool> {
        let (mesh, pubkey) = (mesh.to_owned(), pubkey.to_owned());
        self.read(move |tx| {
            let sql = "SELECT 1 FROM session_key WHERE mesh_id = ? AND pubkey = ? AND member = ?";
            let key = [(&mesh).into(), (&pubkey).into(), member.into()];
            Ok(tx.query_row(sql, &key, |row| row.int(0))?.is_some())
        })
    }

    fn touch_session_keys(&self, keys: Vec<(String, String)>, now: Millis) -> Answer<()> {
        self.relaxed(move |tx| {
            for (mesh, pubkey) in &keys {
                let sql =
                    "UPDATE session_key SET last_seen_at = ? WHERE mesh_id = ? AND pubkey = ?";
                tx.execute(sql, &[now.0.into(), mesh.into(), pubkey.into()])?;
            }
            Ok(())
        })
    }
}
