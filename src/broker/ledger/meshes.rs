//! Meshes and the invites to them (§17.3).

use super::Ledger;
use super::audit::{Entry, record};
use claudemesh_base::db::{Columns, Error, Tx};
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::negotiate::ConnectionPolicy;

/// One mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mesh {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) owner_pubkey: String,
    /// 32 random bytes, base64url; travels in invites.
    pub(crate) root_key: String,
    /// §15.6.
    pub(crate) connection_policy: String,
    pub(crate) created_at: Millis,
}

/// One invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invite {
    pub(crate) token: String,
    pub(crate) mesh_id: String,
    pub(crate) role: String,
    pub(crate) expires_at: Millis,
    pub(crate) uses_max: i64,
    pub(crate) created_at: Millis,
}

/// Why an invite does not open the door; the text is the code of `specs/wire.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InviteProblem {
    NotFound,
    MeshMismatch,
    Revoked,
    Expired,
    Exhausted,
    /// The invite is good, but this key's membership has ended.
    MemberRevoked,
    /// The invite is good, but this key's membership is suspended.
    MemberBanned,
    /// The invite is good, but this key is a session's of another member.
    SessionKey,
}

impl InviteProblem {
    /// The `error` of the answer.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::NotFound => "invite_not_found",
            Self::MeshMismatch => "invite_mesh_mismatch",
            Self::Revoked => "invite_revoked",
            Self::Expired => "invite_expired",
            Self::Exhausted => "invite_exhausted",
            Self::MemberRevoked => "member_revoked",
            Self::MemberBanned => "member_banned",
            Self::SessionKey => {
                "peer_pubkey is the session key of a member of this mesh: join with a new key"
            }
        }
    }
}

fn read_mesh(row: &Columns<'_, '_>) -> Result<Mesh, Error> {
    Ok(Mesh {
        id: row.text(0)?,
        slug: row.text(1)?,
        owner_pubkey: row.text(2)?,
        root_key: row.text(3)?,
        connection_policy: row.text(4)?,
        created_at: Millis(row.int(5)?),
    })
}

impl Ledger {
    /// Stores a mesh; `false` when its slug is taken.
    pub(crate) async fn insert_mesh(&self, mesh: Mesh) -> Result<bool, Error> {
        self.synced(move |tx| {
            let sql = "INSERT INTO mesh (id, slug, owner_pubkey, root_key, connection_policy, created_at) \
                       VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (slug) DO NOTHING RETURNING id";
            let inserted = tx.query_row(
                sql,
                &[
                    (&mesh.id).into(),
                    (&mesh.slug).into(),
                    (&mesh.owner_pubkey).into(),
                    (&mesh.root_key).into(),
                    (&mesh.connection_policy).into(),
                    mesh.created_at.0.into(),
                ],
                |row| row.text(0),
            )?;
            if inserted.is_some() {
                let entry = Entry::by_operator(&mesh.id, "mesh_created", &mesh.id, mesh.created_at);
                record(tx, &entry)?;
            }
            Ok(inserted.is_some())
        })
        .await
    }

    /// Every mesh, by slug.
    pub(crate) async fn meshes(&self) -> Result<Vec<Mesh>, Error> {
        const SQL: &str = "SELECT id, slug, owner_pubkey, root_key, connection_policy, created_at \
                           FROM mesh ORDER BY slug";
        self.db.read(|tx| tx.query(SQL, &[], read_mesh)).await
    }

    /// The mesh with this id.
    pub(crate) async fn mesh(&self, id: &str) -> Result<Option<Mesh>, Error> {
        let id = id.to_owned();
        self.db.read(move |tx| mesh_by_id(tx, &id)).await
    }

    /// The mesh with this slug.
    pub(crate) async fn mesh_by_slug(&self, slug: &str) -> Result<Option<Mesh>, Error> {
        let slug = slug.to_owned();
        Ok(self.meshes().await?.into_iter().find(|mesh| mesh.slug == slug))
    }

    /// Changes what two installs of one member key do to each other (§15.6).
    pub(crate) async fn set_connection_policy(
        &self,
        mesh: &str,
        policy: ConnectionPolicy,
        now: Millis,
    ) -> Result<(), Error> {
        let mesh = mesh.to_owned();
        self.synced(move |tx| {
            let sql = "UPDATE mesh SET connection_policy = ? WHERE id = ?";
            tx.execute(sql, &[policy.as_str().into(), (&mesh).into()])?;
            let entry = Entry::by_operator(&mesh, "policy_set", &mesh, now);
            record(tx, &entry.with(policy.as_str()))
        })
        .await
    }

    /// Why nobody can join with an invite now; `None` if somebody can.
    pub(crate) async fn invite_problem(
        &self,
        token: &str,
        mesh_id: &str,
        now: Millis,
    ) -> Result<Option<InviteProblem>, Error> {
        let (token, mesh_id) = (token.to_owned(), mesh_id.to_owned());
        self.db.read(move |tx| Ok(open_invite(tx, &token, &mesh_id, now)?.err())).await
    }

    /// Stores an invite; `false` if there is one with the same token already.
    pub(crate) async fn insert_invite(&self, invite: Invite) -> Result<bool, Error> {
        self.synced(move |tx| {
            let sql = "INSERT INTO invite (token, mesh_id, role, expires_at, uses_max, created_at) \
                       VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token) DO NOTHING";
            let inserted = tx.execute(
                sql,
                &[
                    (&invite.token).into(),
                    (&invite.mesh_id).into(),
                    (&invite.role).into(),
                    invite.expires_at.0.into(),
                    invite.uses_max.into(),
                    invite.created_at.0.into(),
                ],
            )?;
            if inserted > 0 {
                // Not the token: whoever reads the audit may not join with it.
                let what = format!("{} of role {}", invite.uses_max, invite.role);
                let (mesh, at) = (&invite.mesh_id, invite.created_at);
                record(tx, &Entry::by_operator(mesh, "invite_created", mesh, at).with(&what))?;
            }
            Ok(inserted > 0)
        })
        .await
    }
}

fn mesh_by_id(tx: &Tx<'_>, id: &str) -> Result<Option<Mesh>, Error> {
    const SQL: &str = "SELECT id, slug, owner_pubkey, root_key, connection_policy, created_at \
                       FROM mesh WHERE id = ?";
    tx.query_row(SQL, &[id.into()], read_mesh)
}

/// Takes one use of an invite, or says why there is none. Yields the role it grants.
pub(super) fn use_invite(
    tx: &Tx<'_>,
    token: &str,
    mesh_id: &str,
    now: Millis,
) -> Result<Result<String, InviteProblem>, Error> {
    let opened = open_invite(tx, token, mesh_id, now)?;
    if opened.is_ok() {
        tx.execute("UPDATE invite SET used = used + 1 WHERE token = ?", &[token.into()])?;
    }
    Ok(opened)
}

/// The role an invite grants, or why it opens nothing.
fn open_invite(
    tx: &Tx<'_>,
    token: &str,
    mesh_id: &str,
    now: Millis,
) -> Result<Result<String, InviteProblem>, Error> {
    let sql = "SELECT role, mesh_id <> ?2, revoked_at IS NOT NULL, expires_at <= ?3, \
               used >= uses_max FROM invite WHERE token = ?1";
    let found = tx.query_row(sql, &[token.into(), mesh_id.into(), now.0.into()], |row| {
        let problems = [
            (row.int(1)?, InviteProblem::MeshMismatch),
            (row.int(2)?, InviteProblem::Revoked),
            (row.int(3)?, InviteProblem::Expired),
            (row.int(4)?, InviteProblem::Exhausted),
        ];
        let first = problems.into_iter().find(|(holds, _)| *holds != 0);
        Ok((row.text(0)?, first.map(|(_, problem)| problem)))
    })?;
    Ok(match found {
        None => Err(InviteProblem::NotFound),
        Some((_, Some(problem))) => Err(problem),
        Some((role, None)) => Ok(role),
    })
}
