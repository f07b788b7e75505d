//! Administration (§17.3): the same verbs through a running broker's `admin.sock`, or on the ledger
//! itself under the lock when no broker runs. One process writes a ledger, always.

mod socket;

pub(crate) use socket::AdminHandler;

use super::ledger::{Check, Ledger};
use super::membership::{self, AuditInfo, MemberAct, MemberDone, MemberInfo};
use super::provision::{self, InviteInfo, InviteWish, MeshInfo};
use super::{BrokerError, Lock, authority_of, stored_port};
use claudemesh_base::http::client;
use claudemesh_base::runtime::Runtime;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The administration socket in the broker's data directory.
pub(crate) const SOCKET_NAME: &str = "admin.sock";
/// The acts that are shown at once.
pub(super) const AUDIT_MAX: u32 = 200;
/// Where invites point when the broker has never run: the default of `--listen`.
const PORT_DEFAULT: u16 = 7900;
const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Somebody who may administer the broker of one data directory.
pub struct Admin {
    dir: PathBuf,
    runtime: Runtime,
    way: Way,
}

enum Way {
    /// A broker runs: it does the work.
    Running(PathBuf),
    /// None does: the ledger is ours as long as the lock is.
    Alone(Ledger, #[allow(dead_code, reason = "held, not read")] Lock),
}

impl Admin {
    /// Reaches the broker of `dir`, or takes its place for a moment.
    ///
    /// # Errors
    /// When `dir` holds no ledger, when a broker holds the lock and its socket does not answer, or
    /// when the ledger does not open.
    pub async fn open(dir: &Path, runtime: &Runtime) -> Result<Self, BrokerError> {
        // An empty ledger made here would be called whole, and the wrong path never noticed.
        if !Ledger::is_in(dir) {
            return Err(BrokerError::NoLedger(dir.to_owned()));
        }
        Self::open_or_create(dir, runtime).await
    }

    /// The same, and makes the directory and the ledger where they are missing.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for a ledger that is not there.
    pub async fn open_or_create(dir: &Path, runtime: &Runtime) -> Result<Self, BrokerError> {
        let socket = dir.join(SOCKET_NAME);
        let way = match client::connect_unix(&socket, runtime, CONNECT_MAX).await {
            Ok(_) => Way::Running(socket),
            Err(_) => {
                let lock = Lock::take(dir)?;
                Way::Alone(Ledger::open(dir)?, lock)
            }
        };
        Ok(Self { dir: dir.to_owned(), runtime: runtime.clone(), way })
    }

    /// Makes a mesh.
    ///
    /// # Errors
    /// When the slug is taken or malformed.
    pub async fn create_mesh(&self, slug: &str) -> Result<MeshInfo, BrokerError> {
        match &self.way {
            Way::Running(socket) => self.post(socket, "/mesh", json!({"slug": slug})).await,
            Way::Alone(ledger, _) => {
                provision::create_mesh(ledger, &self.dir, &self.runtime, slug).await
            }
        }
    }

    /// Sets what two installs of one member key of a mesh do to each other (§15.6):
    /// `prefer_newest`, `prefer_oldest` or `allow_concurrent`. Holds from the next hello on.
    ///
    /// # Errors
    /// When the mesh or the policy is unknown.
    pub async fn set_connection_policy(&self, mesh: &str, policy: &str) -> Result<(), BrokerError> {
        match &self.way {
            Way::Running(socket) => {
                let body = json!({"mesh": mesh, "policy": policy});
                self.post::<Value>(socket, "/mesh/policy", body).await.map(drop)
            }
            Way::Alone(ledger, _) => {
                provision::set_policy(ledger, &self.runtime, mesh, policy).await
            }
        }
    }

    /// Every mesh.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn meshes(&self) -> Result<Vec<MeshInfo>, BrokerError> {
        match &self.way {
            Way::Running(socket) => self.get(socket, "/mesh").await,
            Way::Alone(ledger, _) => provision::meshes(ledger).await,
        }
    }

    /// Makes an invite.
    ///
    /// # Errors
    /// When the mesh is unknown or the wish is out of range.
    pub async fn create_invite(&self, wish: &InviteWish) -> Result<InviteInfo, BrokerError> {
        match &self.way {
            Way::Running(socket) => self.post(socket, "/invite", invite_body(wish)).await,
            Way::Alone(ledger, _) => {
                let port = stored_port(&self.dir).unwrap_or(PORT_DEFAULT);
                let authority = authority_of(([127, 0, 0, 1], port).into());
                let (dir, runtime) = (&self.dir, &self.runtime);
                provision::create_invite(ledger, dir, runtime, &authority, wish).await
            }
        }
    }

    /// The members of a mesh, by slug.
    ///
    /// # Errors
    /// When the mesh is unknown.
    pub async fn members(&self, mesh: &str) -> Result<Vec<MemberInfo>, BrokerError> {
        match &self.way {
            Way::Running(socket) => self.get(socket, &format!("/member/{mesh}")).await,
            Way::Alone(ledger, _) => membership::members(ledger, None, mesh).await,
        }
    }

    /// Adds a member without an invite; idempotent by key. Yields its id.
    ///
    /// # Errors
    /// When the mesh is unknown or the key is none.
    pub async fn add_member(
        &self,
        mesh: &str,
        pubkey: &str,
        name: &str,
    ) -> Result<String, BrokerError> {
        match &self.way {
            Way::Running(socket) => {
                let body = json!({"mesh": mesh, "pubkey": pubkey, "name": name});
                self.post(socket, "/member", body).await
            }
            Way::Alone(ledger, _) => {
                provision::add_member(ledger, &self.runtime, mesh, pubkey, name).await
            }
        }
    }

    /// Does something to a member, named by name, id, key or the beginning of a key.
    ///
    /// # Errors
    /// When the mesh or member is unknown or ambiguous, the act has no meaning for it, or it needs
    /// a running broker and there is none.
    pub async fn act_on_member(
        &self,
        mesh: &str,
        member: &str,
        act: MemberAct,
    ) -> Result<MemberDone, BrokerError> {
        match &self.way {
            Way::Running(socket) => {
                let body = json!({"mesh": mesh, "member": member, "act": act.as_str()});
                self.post(socket, "/member/act", body).await
            }
            Way::Alone(ledger, _) => {
                membership::act(ledger, &self.runtime, None, mesh, member, act).await
            }
        }
    }

    /// Keeps the direct messages of `sender` from `member`, or lets them through again.
    ///
    /// # Errors
    /// When the mesh or one of the members is unknown or ambiguous, or both are one.
    pub async fn set_block(
        &self,
        mesh: &str,
        member: &str,
        sender: &str,
        is_blocked: bool,
    ) -> Result<MemberDone, BrokerError> {
        match &self.way {
            Way::Running(socket) => {
                let body = json!({
                    "mesh": mesh, "member": member, "sender": sender, "blocked": is_blocked,
                });
                self.post(socket, "/member/block", body).await
            }
            Way::Alone(ledger, _) => {
                membership::block(ledger, &self.runtime, mesh, member, sender, is_blocked).await
            }
        }
    }

    /// The latest acts on a mesh, newest first: the last 200.
    ///
    /// # Errors
    /// When the mesh is unknown.
    pub async fn audit(&self, mesh: &str) -> Result<Vec<AuditInfo>, BrokerError> {
        match &self.way {
            Way::Running(socket) => self.get(socket, &format!("/audit/{mesh}")).await,
            Way::Alone(ledger, _) => membership::audit(ledger, mesh, AUDIT_MAX).await,
        }
    }

    /// Proves that the ledger's tables agree.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn check(&self) -> Result<Check, BrokerError> {
        match &self.way {
            Way::Running(socket) => self.get(socket, "/check").await,
            Way::Alone(ledger, _) => Ok(ledger.check().await?),
        }
    }

    async fn get<T: DeserializeOwned>(&self, socket: &Path, path: &str) -> Result<T, BrokerError> {
        self.ask(socket, client::Request::get(path)).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        socket: &Path,
        path: &str,
        body: Value,
    ) -> Result<T, BrokerError> {
        self.ask(socket, client::Request::post_json(path, body.to_string())).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        socket: &Path,
        request: client::Request,
    ) -> Result<T, BrokerError> {
        let unreachable = |error: client::ClientError| {
            BrokerError::Unreachable(format!("the broker's {SOCKET_NAME}: {error}"))
        };
        let socket = client::connect_unix(socket, &self.runtime, CONNECT_MAX).await;
        let socket = socket.map_err(unreachable)?;
        let answer = client::request(socket, &self.runtime, request, ANSWER_MAX).await;
        let answer = answer.map_err(unreachable)?;
        let unreadable = || BrokerError::Unreachable("the broker's answer is not one".to_owned());
        let body: Value = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        let words = || body["error"].as_str().unwrap_or("no reason given").to_owned();
        match answer.status {
            200 => serde_json::from_value(body).map_err(|_| unreadable()),
            404 => Err(BrokerError::NotFound(words())),
            409 => Err(BrokerError::Conflict(words())),
            400..500 => Err(BrokerError::Invalid(words())),
            _ => Err(BrokerError::Unreachable(words())),
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // The lock goes only after the file is closed.
        if let Way::Alone(ledger, _) = &self.way {
            ledger.close();
        }
    }
}

fn invite_body(wish: &InviteWish) -> Value {
    json!({
        "mesh": wish.mesh,
        "expires_s": wish.expires_s,
        "uses": wish.uses,
        "role": wish.role,
    })
}
