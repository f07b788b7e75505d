//! Members, their groups and how they show themselves.

use super::audit::record;
use super::meshes::use_invite;
use super::*;
use claudemesh_base::db::{Columns, Param};
use claudemesh_base::wire::hello::Group;
use claudemesh_fsm::id::Millis;
use std::collections::{BTreeSet, HashMap};

fn read_member(row: &Columns<'_, '_>) -> Result<Member, Error> {
    Ok(Member {
        seq: row.int(0)?,
        id: row.text(1)?,
        mesh_id: row.text(2)?,
        pubkey: row.text(3)?,
        display_name: row.text(4)?,
        role: row.text(5)?,
        joined_at: Millis(row.int(6)?),
        revoked: row.int(7)? != 0,
        last_seen_at: row.int_or_null(8)?.map(Millis),
        status: row.text(9)?,
        summary: row.text_or_null(10)?,
        visible: row.int(11)? != 0,
        profile: row.text_or_null(12)?,
        banned: row.int(13)? != 0,
        groups: Vec::new(),
    })
}

/// A statement about members: the columns `read_member` expects, and a condition.
macro_rules! select_member {
    ($condition:literal) => {
        concat!(
            "SELECT seq, id, mesh_id, pubkey, display_name, role, joined_at, \
             revoked_at IS NOT NULL, last_seen_at, status, summary, visible, profile, \
             banned_at IS NOT NULL FROM member WHERE ",
            $condition
        )
    };
}

impl MemberLedger for SqliteLedger {
    fn member(&self, mesh: &str, pubkey: &str) -> Answer<Option<Member>> {
        let (mesh, pubkey) = (mesh.to_owned(), pubkey.to_owned());
        self.read(move |tx| {
            let sql = select_member!("mesh_id = ? AND pubkey = ?");
            tx.query_row(sql, &[(&mesh).into(), (&pubkey).into()], read_member)
        })
    }

    fn members(&self, mesh: &str) -> Answer<Vec<Member>> {
        let mesh = mesh.to_owned();
        self.read(move |tx| {
            let sql = select_member!("mesh_id = ? ORDER BY seq");
            let mut members = tx.query(sql, &[(&mesh).into()], read_member)?;
            let mut groups: HashMap<i64, Vec<Group>> = HashMap::new();
            let sql = "SELECT member, name, role FROM group_member WHERE mesh_id = ? \
                           ORDER BY name";
            tx.query(sql, &[(&mesh).into()], |row| {
                let group = Group { name: row.text(1)?, role: row.text_or_null(2)? };
                groups.entry(row.int(0)?).or_default().push(group);
                Ok(())
            })?;
            for member in &mut members {
                member.groups = groups.remove(&member.seq).unwrap_or_default();
            }
            Ok(members)
        })
    }

    fn add_member(
        &self,
        mesh: &str,
        id: &str,
        pubkey: &str,
        name: &str,
        role: &'static str,
        now: Millis,
    ) -> Answer<JoinOutcome> {
        let new = NewMember::of(mesh, id, pubkey, name, now);
        self.synced(move |tx| {
            if let Some(known) = known_key(tx, &new)? {
                return Ok(known);
            }
            insert_member(tx, &new, role)?;
            record(
                tx,
                &AuditEntry::by_operator(&new.mesh_id, "member_added", &new.id, new.joined_at),
            )?;
            Ok(JoinOutcome::New(new.id))
        })
    }

    fn join(
        &self,
        token: &str,
        mesh: &str,
        id: &str,
        pubkey: &str,
        name: &str,
        now: Millis,
    ) -> Answer<JoinOutcome> {
        let new = NewMember::of(mesh, id, pubkey, name, now);
        let token = token.to_owned();
        self.synced(move |tx| {
            if let Some(known) = known_key(tx, &new)? {
                return Ok(known);
            }
            let role = match use_invite(tx, &token, &new.mesh_id, new.joined_at)? {
                Ok(role) => role,
                Err(problem) => return Ok(JoinOutcome::Refused(problem)),
            };
            insert_member(tx, &new, &role)?;
            Ok(JoinOutcome::New(new.id))
        })
    }

    fn touch_member(&self, member: i64, now: Millis) -> Answer<()> {
        self.relaxed(move |tx| {
            let sql = "UPDATE member SET last_seen_at = ? WHERE seq = ?";
            tx.execute(sql, &[now.0.into(), member.into()]).map(drop)
        })
    }

    fn set_state(&self, member: i64, state: MemberState) -> Answer<()> {
        self.relaxed(move |tx| {
            let sql = "UPDATE member SET status = coalesce(?, status), \
                       summary = coalesce(?, summary), visible = coalesce(?, visible), \
                       profile = coalesce(?, profile) WHERE seq = ?";
            let params = [
                state.status.as_ref().into(),
                state.summary.as_ref().into(),
                state.visible.into(),
                state.profile.as_ref().into(),
                member.into(),
            ];
            tx.execute(sql, &params).map(drop)
        })
    }

    fn join_groups(
        &self,
        mesh: &str,
        member: i64,
        groups: Vec<Group>,
        replace: bool,
    ) -> Answer<(), GroupError> {
        let mesh = mesh.to_owned();
        self.synced_or_refuse(move |tx| {
            if !is_active(tx, member)? {
                return Err(GroupError::NotAMember);
            }
            let mut names: BTreeSet<String> = groups.iter().map(|g| g.name.clone()).collect();
            if !replace {
                names.extend(groups_of(tx, member)?.into_iter().map(|group| group.name));
            }
            if names.len() > GROUPS_MAX {
                return Err(GroupError::TooMany);
            }
            if replace {
                tx.execute("DELETE FROM group_member WHERE member = ?", &[member.into()])?;
            }
            for group in &groups {
                let sql = "INSERT INTO group_member (mesh_id, name, member, role) \
                           VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET role = ?4";
                let role = group.role.as_ref().into();
                tx.execute(sql, &[(&mesh).into(), (&group.name).into(), member.into(), role])?;
            }
            Ok(())
        })
    }

    fn groups(&self, member: i64) -> Answer<Vec<Group>> {
        self.read(move |tx| groups_of(tx, member))
    }

    fn leave_group(&self, mesh: &str, member: i64, name: &str) -> Answer<()> {
        let (mesh, name) = (mesh.to_owned(), name.to_owned());
        self.synced(move |tx| {
            let sql = "DELETE FROM group_member WHERE mesh_id = ? AND name = ? AND member = ?";
            tx.execute(sql, &[(&mesh).into(), (&name).into(), member.into()]).map(drop)
        })
    }
}

/// Whether a membership holds in this transaction: whoever ends one writes first and closes
/// connections then, so that their last requests may still come.
pub(super) fn is_active(tx: &Tx<'_>, member: i64) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM active_member WHERE seq = ?";
    Ok(tx.query_row(sql, &[member.into()], |row| row.int(0))?.is_some())
}

fn groups_of(tx: &Tx<'_>, member: i64) -> Result<Vec<Group>, Error> {
    let sql = "SELECT name, role FROM group_member WHERE member = ? ORDER BY name";
    tx.query(sql, &[member.into()], |row| {
        Ok(Group { name: row.text(0)?, role: row.text_or_null(1)? })
    })
}

struct NewMember {
    id: String,
    mesh_id: String,
    pubkey: String,
    display_name: String,
    joined_at: Millis,
}

impl NewMember {
    fn of(mesh: &str, id: &str, pubkey: &str, name: &str, now: Millis) -> Self {
        Self {
            id: id.to_owned(),
            mesh_id: mesh.to_owned(),
            pubkey: pubkey.to_owned(),
            display_name: name.to_owned(),
            joined_at: now,
        }
    }
}

/// What becomes of a key that the mesh knows already. One of a session cannot be a member's too:
/// what is sent to it would reach the wrong one of the two.
fn known_key(tx: &Tx<'_>, new: &NewMember) -> Result<Option<JoinOutcome>, Error> {
    let key = [Param::from(&new.mesh_id), Param::from(&new.pubkey)];
    let sql = "SELECT id FROM member WHERE mesh_id = ? AND pubkey = ?";
    if let Some(known) = tx.query_row(sql, &key, |row| row.text(0))? {
        return readmit(tx, known).map(Some);
    }
    let sql = "SELECT 1 FROM session_key WHERE mesh_id = ? AND pubkey = ?";
    let of_a_session = tx.query_row(sql, &key, |row| row.int(0))?;
    Ok(of_a_session.map(|_| JoinOutcome::Refused(InviteProblem::SessionKey)))
}

/// A key that is known is a member again only if it still is one.
fn readmit(tx: &Tx<'_>, known: String) -> Result<JoinOutcome, Error> {
    let barred = barred(tx, &known)?;
    Ok(barred.map_or(JoinOutcome::Already(known), JoinOutcome::Refused))
}

/// Why a known key may not come in again, if it may not.
fn barred(tx: &Tx<'_>, id: &str) -> Result<Option<InviteProblem>, Error> {
    let sql = "SELECT revoked_at IS NOT NULL, banned_at IS NOT NULL FROM member WHERE id = ?";
    let standing = tx.query_row(sql, &[id.into()], |row| Ok((row.int(0)?, row.int(1)?)))?;
    Ok(match standing {
        Some((0, 0)) | None => None,
        Some((0, _)) => Some(InviteProblem::MemberBanned),
        Some(_) => Some(InviteProblem::MemberRevoked),
    })
}

fn insert_member(tx: &Tx<'_>, new: &NewMember, role: &str) -> Result<(), Error> {
    let sql = "INSERT INTO member (id, mesh_id, pubkey, display_name, role, joined_at) \
               VALUES (?, ?, ?, ?, ?, ?)";
    let params = [
        (&new.id).into(),
        (&new.mesh_id).into(),
        (&new.pubkey).into(),
        (&new.display_name).into(),
        role.into(),
        new.joined_at.0.into(),
    ];
    tx.execute(sql, &params).map(drop)
}
