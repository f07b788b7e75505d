//! Topics, who is in them, and their past (`specs/wire.md`).

use super::members::is_active;
use super::*;
use claudemesh_base::db::{Columns, Param};
use claudemesh_fsm::id::Millis;

/// The longest page of a topic's history.
const PAGE_MAX: u32 = 200;
/// The page when nothing is asked for.
const PAGE_DEFAULT: u32 = 50;
/// The most members of a topic that are listed.
const LISTED_MAX: i64 = 2000;

/// A statement about topics of mesh `?1`, as member `?2` sees them: the columns `read_topic`
/// expects, and a condition.
macro_rules! select_topic {
    ($condition:literal) => {
        concat!(
            "SELECT t.id, t.name, t.description, t.visibility, t.created_at, \
             (SELECT count(*) FROM topic_member c JOIN active_member a ON a.seq = c.member \
              WHERE c.topic_id = t.id), \
             EXISTS (SELECT 1 FROM topic_member i WHERE i.topic_id = t.id AND i.member = ?2) \
             AS is_in FROM topic t WHERE t.mesh_id = ?1 AND ",
            $condition
        )
    };
}

impl TopicLedger for SqliteLedger {
    fn create_topic(
        &self,
        mesh: &str,
        member: i64,
        new: TopicRow,
    ) -> Answer<(TopicRow, bool), TopicError> {
        let mesh = mesh.to_owned();
        self.synced_or_refuse(move |tx| {
            require_membership(tx, member)?;
            let key = TopicKey { mesh_id: mesh, member, topic: new.name.clone() };
            if find(tx, &key)?.is_some() {
                return Ok((visible(tx, &key)?, false));
            }
            let sql = "SELECT count(*) FROM topic WHERE mesh_id = ?";
            let count = tx.query_row(sql, &[(&key.mesh_id).into()], |row| row.int(0))?;
            if count.unwrap_or_default() >= TOPICS_MAX {
                return Err(TopicError::TooMany);
            }
            let sql = "INSERT INTO topic (id, mesh_id, name, description, visibility, created_at) \
                       VALUES (?, ?, ?, ?, ?, ?)";
            let params = [
                (&new.id).into(),
                (&key.mesh_id).into(),
                (&new.name).into(),
                new.description.as_ref().into(),
                (&new.visibility).into(),
                new.created_at.0.into(),
            ];
            tx.execute(sql, &params)?;
            insert_member(tx, &new.id, member, "lead", new.created_at)?;
            Ok((TopicRow { member_count: 1, ..new }, true))
        })
    }

    fn topics(&self, mesh: &str, member: i64) -> Answer<Vec<TopicRow>> {
        let mesh = mesh.to_owned();
        self.read(move |tx| {
            let sql = select_topic!("(t.visibility = 'public' OR is_in) ORDER BY t.name");
            let found = tx.query(sql, &[(&mesh).into(), member.into()], read_topic)?;
            Ok(found.into_iter().map(|(topic, _)| topic).collect())
        })
    }

    fn topics_joined(&self, member: i64) -> Answer<Vec<String>> {
        let sql = "SELECT topic_id FROM topic_member WHERE member = ?";
        self.read(move |tx| tx.query(sql, &[member.into()], |row| row.text(0)))
    }

    fn join_topic(&self, key: TopicKey, now: Millis) -> Answer<(), TopicError> {
        self.synced_or_refuse(move |tx| {
            require_membership(tx, key.member)?;
            let topic = visible(tx, &key)?;
            Ok(insert_member(tx, &topic.id, key.member, "member", now)?)
        })
    }

    fn leave_topic(&self, key: TopicKey) -> Answer<(), TopicError> {
        self.synced_or_refuse(move |tx| {
            let topic = visible(tx, &key)?;
            let sql = "DELETE FROM topic_member WHERE topic_id = ? AND member = ?";
            tx.execute(sql, &[(&topic.id).into(), key.member.into()])?;
            Ok(())
        })
    }

    fn topic_members(&self, key: TopicKey) -> Answer<(TopicRow, Vec<TopicMember>), TopicError> {
        self.read_or_refuse(move |tx| {
            let topic = visible(tx, &key)?;
            let sql = "SELECT m.id, m.pubkey, m.display_name, t.role, t.joined_at \
                           FROM topic_member t JOIN active_member m ON m.seq = t.member \
                           WHERE t.topic_id = ? ORDER BY t.joined_at, m.seq LIMIT ?";
            let members = tx.query(sql, &[(&topic.id).into(), LISTED_MAX.into()], |row| {
                Ok(TopicMember {
                    member_id: row.text(0)?,
                    pubkey: row.text(1)?,
                    display_name: row.text(2)?,
                    role: row.text(3)?,
                    joined_at: Millis(row.int(4)?),
                })
            })?;
            Ok((topic, members))
        })
    }

    fn topic_history(
        &self,
        key: TopicKey,
        limit: Option<u32>,
        before_id: Option<String>,
    ) -> Answer<(TopicRow, Vec<TopicPage>), TopicError> {
        let limit = i64::from(limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX));
        self.read_or_refuse(move |tx| {
            let topic = visible(tx, &key)?;
            let sql = "SELECT m.id, m.sender_pubkey, s.id, m.sender_name, m.nonce, \
                           m.ciphertext, m.reply_to_id, m.created_at \
                           FROM message m LEFT JOIN member s ON s.seq = m.sender_member \
                           WHERE m.topic_id = ?1 AND (?2 IS NULL OR \
                           m.seq < (SELECT seq FROM message WHERE id = ?2)) \
                           ORDER BY m.seq DESC LIMIT ?3";
            let params = [(&topic.id).into(), before_id.as_ref().into(), limit.into()];
            let page = tx.query(sql, &params, |row| {
                Ok(TopicPage {
                    id: row.text(0)?,
                    sender_pubkey: row.text(1)?,
                    sender_member_id: row.text_or_null(2)?,
                    sender_name: row.text(3)?,
                    nonce: row.text(4)?,
                    ciphertext: row.text(5)?,
                    reply_to_id: row.text_or_null(6)?,
                    created_at: Millis(row.int(7)?),
                })
            })?;
            Ok((topic, page))
        })
    }
}

fn insert_member(
    tx: &Tx<'_>,
    topic_id: &str,
    member: i64,
    role: &str,
    now: Millis,
) -> Result<(), Error> {
    let sql = "INSERT INTO topic_member (topic_id, member, role, joined_at) VALUES (?, ?, ?, ?) \
               ON CONFLICT DO NOTHING";
    tx.execute(sql, &[topic_id.into(), member.into(), role.into(), now.0.into()]).map(drop)
}

/// The topic, and whether the asking member is in it.
fn find(tx: &Tx<'_>, key: &TopicKey) -> Result<Option<(TopicRow, bool)>, Error> {
    let sql = select_topic!("(t.id = ?3 OR t.name = ?3) ORDER BY t.id = ?3 DESC");
    let params = [Param::from(&key.mesh_id), key.member.into(), (&key.topic).into()];
    tx.query_row(sql, &params, read_topic)
}

fn read_topic(row: &Columns<'_, '_>) -> Result<(TopicRow, bool), Error> {
    let topic = TopicRow {
        id: row.text(0)?,
        name: row.text(1)?,
        description: row.text_or_null(2)?,
        visibility: row.text(3)?,
        created_at: Millis(row.int(4)?),
        member_count: row.int(5)?,
    };
    Ok((topic, row.int(6)? != 0))
}

fn require_membership(tx: &Tx<'_>, member: i64) -> Result<(), TopicError> {
    if is_active(tx, member)? { Ok(()) } else { Err(TopicError::NotAMember) }
}

/// The topic, if the asking member may know it.
fn visible(tx: &Tx<'_>, key: &TopicKey) -> Result<TopicRow, TopicError> {
    match find(tx, key)? {
        None => Err(TopicError::NotFound),
        Some((topic, is_in)) if is_in || topic.visibility == "public" => Ok(topic),
        Some(_) => Err(TopicError::Forbidden),
    }
}
