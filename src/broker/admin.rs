//! Administration (§17.3): one enum of requests and one function that carries them out, inside a
//! running broker, asked through its `admin.sock`, or on the ledger itself under the lock when no
//! broker runs. One process writes a ledger, always.

mod handler;
mod members;
mod meshes;
mod request;

pub(crate) use handler::AdminHandler;
pub use members::KEY_PREFIX_MIN;
pub use meshes::{INVITE_EXPIRES_S, INVITE_EXPIRES_S_MAX, INVITE_USES_MAX};
pub(crate) use meshes::{link, web_socket_url};
pub(crate) use request::{AdminAnswer, AdminRequest};
pub use request::{InviteInfo, InviteWish, MemberAct, MemberDone, MemberInfo, MeshInfo};

use crate::counters::Counters;
use crate::data_dir::{Lock, stored_port};
use crate::hub::Hub;
use crate::ledger::{AuditInfo, Check, LedgerHandle, SqliteLedger};
use crate::{BrokerError, authority_of, housekeeping};
use claudemesh_base::http::client;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::to_text;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The administration socket in the broker's data directory.
pub(crate) const SOCKET_NAME: &str = "admin.sock";
/// The one path of the socket.
const PATH: &str = "/admin";
/// The acts that are shown at once.
const AUDIT_MAX: u32 = 200;
/// Where invites point when the broker has never run: the default of `--listen`.
const PORT_DEFAULT: u16 = 7900;
const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What a request is carried out on.
pub(crate) struct AdminContext {
    pub(crate) ledger: LedgerHandle,
    /// The hub of the running broker; `None` when no broker runs.
    pub(crate) hub: Option<Arc<Hub>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) runtime: Runtime,
    /// The data directory, where the owners' keys are.
    pub(crate) dir: PathBuf,
    /// `host:port` for links.
    pub(crate) authority: String,
}

/// Carries out one request.
pub(crate) async fn carry_out(
    context: &AdminContext,
    request: AdminRequest,
) -> Result<AdminAnswer, BrokerError> {
    use AdminAnswer as Answer;
    let AdminContext { ledger, counters, .. } = context;
    Ok(match request {
        AdminRequest::Meshes => Answer::Meshes(meshes::meshes(&**ledger).await?),
        AdminRequest::CreateMesh { slug } => {
            Answer::Mesh(meshes::create_mesh(context, &slug).await?)
        }
        AdminRequest::SetConnectionPolicy { mesh, policy } => {
            Answer::PolicySet(meshes::set_policy(context, &mesh, &policy).await?)
        }
        AdminRequest::CreateInvite(wish) => {
            Answer::Invite(meshes::create_invite(context, &wish).await?)
        }
        AdminRequest::Members { mesh } => Answer::Members(members::members(context, &mesh).await?),
        AdminRequest::AddMember { mesh, pubkey, name } => {
            Answer::MemberId(meshes::add_member(context, &mesh, &pubkey, &name).await?)
        }
        AdminRequest::ActOnMember { mesh, member, act } => {
            Answer::Member(members::apply(context, &mesh, &member, act).await?)
        }
        AdminRequest::SetBlock { mesh, member, sender, blocked } => {
            Answer::Member(members::block(context, &mesh, &member, &sender, blocked).await?)
        }
        AdminRequest::Audit { mesh } => {
            Answer::Audit(members::audit(&**ledger, &mesh, AUDIT_MAX).await?)
        }
        AdminRequest::Check => Answer::Check(housekeeping::check(ledger, counters).await?),
    })
}

/// Somebody who may administer the broker of one data directory.
pub struct Admin(AdminTarget);

enum AdminTarget {
    /// A broker runs: it does the work.
    RunningBroker(PathBuf, Runtime),
    /// None does: the ledger is ours as long as the lock is.
    OwnLedger(AdminContext, #[allow(dead_code, reason = "held, not read")] Lock),
}

/// Asks for something and takes the one kind of answer there is to it.
macro_rules! ask {
    ($admin:expr, $request:expr, $answer:ident) => {
        match $admin.ask($request).await? {
            AdminAnswer::$answer(value) => Ok(value),
            _ => Err(unreadable()),
        }
    };
}

impl Admin {
    /// Reaches the broker of `dir`, or takes its place for a moment.
    pub async fn open(dir: &Path, runtime: &Runtime) -> Result<Self, BrokerError> {
        // An empty ledger made here would be called whole, and the wrong path never noticed.
        if !SqliteLedger::exists_in(dir) {
            return Err(BrokerError::NoLedger(dir.to_owned()));
        }
        Self::open_or_create(dir, runtime).await
    }

    /// The same, and makes the directory and the ledger where they are missing.
    pub async fn open_or_create(dir: &Path, runtime: &Runtime) -> Result<Self, BrokerError> {
        let socket = dir.join(SOCKET_NAME);
        if client::connect_unix(&socket, runtime, CONNECT_MAX).await.is_ok() {
            return Ok(Self(AdminTarget::RunningBroker(socket, runtime.clone())));
        }
        let lock = Lock::take(dir)?;
        let port = stored_port(dir).unwrap_or(PORT_DEFAULT);
        let context = AdminContext {
            ledger: LedgerHandle::new(Arc::new(SqliteLedger::open(dir)?)),
            hub: None,
            counters: Arc::default(),
            runtime: runtime.clone(),
            dir: dir.to_owned(),
            authority: authority_of(([127, 0, 0, 1], port).into()),
        };
        Ok(Self(AdminTarget::OwnLedger(context, lock)))
    }

    /// Makes a mesh.
    pub async fn create_mesh(&self, slug: &str) -> Result<MeshInfo, BrokerError> {
        ask!(self, AdminRequest::CreateMesh { slug: slug.to_owned() }, Mesh)
    }

    /// Sets what two installs of one member key of a mesh do to each other (§15.6):
    /// `prefer_newest`, `prefer_oldest` or `allow_concurrent`. Holds from the next hello on.
    pub async fn set_connection_policy(&self, mesh: &str, policy: &str) -> Result<(), BrokerError> {
        let (mesh, policy) = (mesh.to_owned(), policy.to_owned());
        ask!(self, AdminRequest::SetConnectionPolicy { mesh, policy }, PolicySet)
    }

    /// Every mesh.
    pub async fn meshes(&self) -> Result<Vec<MeshInfo>, BrokerError> {
        ask!(self, AdminRequest::Meshes, Meshes)
    }

    /// Makes an invite.
    pub async fn create_invite(&self, wish: &InviteWish) -> Result<InviteInfo, BrokerError> {
        ask!(self, AdminRequest::CreateInvite(wish.clone()), Invite)
    }

    /// The members of a mesh, by slug.
    pub async fn members(&self, mesh: &str) -> Result<Vec<MemberInfo>, BrokerError> {
        ask!(self, AdminRequest::Members { mesh: mesh.to_owned() }, Members)
    }

    /// Adds a member without an invite; idempotent by key. Yields its id.
    pub async fn add_member(
        &self,
        mesh: &str,
        pubkey: &str,
        name: &str,
    ) -> Result<String, BrokerError> {
        let (mesh, pubkey, name) = (mesh.to_owned(), pubkey.to_owned(), name.to_owned());
        ask!(self, AdminRequest::AddMember { mesh, pubkey, name }, MemberId)
    }

    /// Does something to a member, named by name, id, key or the beginning of a key.
    pub async fn act_on_member(
        &self,
        mesh: &str,
        member: &str,
        act: MemberAct,
    ) -> Result<MemberDone, BrokerError> {
        let (mesh, member) = (mesh.to_owned(), member.to_owned());
        ask!(self, AdminRequest::ActOnMember { mesh, member, act }, Member)
    }

    /// Keeps the direct messages of `sender` from `member`, or lets them through again.
    pub async fn set_block(
        &self,
        mesh: &str,
        member: &str,
        sender: &str,
        blocked: bool,
    ) -> Result<MemberDone, BrokerError> {
        let (mesh, member, sender) = (mesh.to_owned(), member.to_owned(), sender.to_owned());
        ask!(self, AdminRequest::SetBlock { mesh, member, sender, blocked }, Member)
    }

    /// The latest acts on a mesh, newest first: the last 200.
    pub async fn audit(&self, mesh: &str) -> Result<Vec<AuditInfo>, BrokerError> {
        ask!(self, AdminRequest::Audit { mesh: mesh.to_owned() }, Audit)
    }

    /// Proves that the ledger's tables agree.
    pub async fn check(&self) -> Result<Check, BrokerError> {
        ask!(self, AdminRequest::Check, Check)
    }

    async fn ask(&self, request: AdminRequest) -> Result<AdminAnswer, BrokerError> {
        match &self.0 {
            AdminTarget::RunningBroker(socket, runtime) => forward(socket, runtime, &request).await,
            AdminTarget::OwnLedger(context, _) => carry_out(context, request).await,
        }
    }
}

/// Asks the running broker.
async fn forward(
    socket: &Path,
    runtime: &Runtime,
    request: &AdminRequest,
) -> Result<AdminAnswer, BrokerError> {
    let unreachable = |error: client::ClientError| {
        BrokerError::Unreachable(format!("the broker's {SOCKET_NAME}: {error}"))
    };
    let socket = client::connect_unix(socket, runtime, CONNECT_MAX).await.map_err(unreachable)?;
    let request = client::Request::post_json(PATH, to_text(request));
    let answer = client::request(socket, runtime, request, ANSWER_MAX).await;
    let answer = answer.map_err(unreachable)?;
    if answer.status == 200 {
        return serde_json::from_slice(&answer.body).map_err(|_| unreadable());
    }
    let handler::Refused { error } =
        serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    Err(match answer.status {
        404 => BrokerError::NotFound(error),
        409 => BrokerError::Conflict(error),
        400..500 => BrokerError::Invalid(error),
        _ => BrokerError::Unreachable(error),
    })
}

fn unreadable() -> BrokerError {
    BrokerError::Unreachable("the broker's answer is not one".to_owned())
}

impl Drop for Admin {
    fn drop(&mut self) {
        // The lock goes only after the file is closed.
        if let AdminTarget::OwnLedger(context, _) = &self.0 {
            context.ledger.close();
        }
    }
}
