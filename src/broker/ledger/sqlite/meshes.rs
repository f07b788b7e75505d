//! Meshes and the invites to them (§17.3).

use super::audit::record;
use super::*;
use claudemesh_base::db::Columns;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::negotiate::ConnectionPolicy;

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

impl MeshLedger for SqliteLedger {
    fn insert_mesh(&self, mesh: Mesh) -> Answer<bool> {
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
                let entry = AuditEntry::by_operator(&mesh.id, "mesh_created", &mesh.id, mesh.created_at);
                record(tx, &entry)?;
            }
            Ok(inserted.is_some())
        })
    }

    fn meshes(&self) -> Answer<Vec<Mesh>> {
        const SQL: &str = "SELECT id, slug, owner_pubkey, root_key, connection_policy, created_at \
                           FROM mesh ORDER BY slug";
        self.read(|tx| tx.query(SQL, &[], read_mesh))
    }

    fn mesh(&self, id: &str) -> Answer<Option<Mesh>> {
        let id = id.to_owned();
        self.read(move |tx| mesh_by_id(tx, &id))
    }

    fn mesh_by_slug(&self, slug: &str) -> Answer<Option<Mesh>> {
        let slug = slug.to_owned();
        let meshes = self.meshes();
        Box::pin(async move { Ok(meshes.await?.into_iter().find(|mesh| mesh.slug == slug)) })
    }

    fn set_connection_policy(
        &self,
        mesh: &str,
        policy: ConnectionPolicy,
        now: Millis,
    ) -> Answer<()> {
        let mesh = mesh.to_owned();
        self.synced(move |tx| {
            let sql = "UPDATE mesh SET connection_policy = ? WHERE id = ?";
            tx.execute(sql, &[policy.as_str().into(), (&mesh).into()])?;
            let entry = AuditEntry::by_operator(&mesh, "policy_set", &mesh, now);
            record(tx, &entry.with(policy.as_str()))
        })
    }

    fn invite_problem(
        &self,
        token: &str,
        mesh_id: &str,
        now: Millis,
    ) -> Answer<Option<InviteProblem>> {
        let (token, mesh_id) = (token.to_owned(), mesh_id.to_owned());
        self.read(move |tx| Ok(open_invite(tx, &token, &mesh_id, now)?.err()))
    }

    fn insert_invite(&self, invite: Invite) -> Answer<bool> {
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
                record(tx, &AuditEntry::by_operator(mesh, "invite_created", mesh, at).with(&what))?;
            }
            Ok(inserted > 0)
        })
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
