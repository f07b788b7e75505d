//! Attaching meshes: for each, a link, a drain and a receive flow of its own (§1).

use super::revocation_logger::RevocationLogger;
use super::save_rosters;
use crate::config::Settings;
use crate::error::DaemonError;
use crate::events::EventBus;
use crate::flow::drain::{DrainFlow, DrainLimits};
use crate::flow::receipts::ReceiptFlow;
use crate::flow::receive::ReceiveFlow;
use crate::identity::{IdentityConfig, JoinedMesh, SessionKeys};
use crate::link::{self, LinkConfig, LinkHandle, TlsRoots};
use crate::mesh::roster::Roster;
use crate::mesh::{Mesh, Meshes};
use crate::startup::stores::Stores;
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::{Runtime, Shutdown};
use claudemesh_fsm::link::{LinkState, Timers};
use claudemesh_fsm::negotiate::FeaturePolicy;
use futures_lite::FutureExt;
use smol::Task;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many pushes may wait for the receive flow; beyond it the link stops reading.
const INBOUND_MAX: usize = 256;
/// The least time between two writes of the rosters. The first change is written at once: without
/// it a daemon that is killed early does not know the names it sent to.
const ROSTER_SAVE_PAUSE: Duration = Duration::from_secs(2);

/// Every attached mesh and what runs for it.
pub(super) struct AttachedMeshes {
    pub(super) session_keys: SessionKeys,
    pub(super) rosters: BTreeMap<String, Roster>,
    pub(super) paths: Paths,
    pub(super) settings: Settings,
    pub(super) only_meshes: Vec<String>,
    pub(super) stores: Stores,
    pub(super) meshes: Meshes,
    pub(super) bus: EventBus,
    pub(super) runtime: Runtime,
    pub(super) stopped: Shutdown,
    pub(super) tasks: Vec<Task<()>>,
    /// How each mesh's link is told what to do, by slug.
    pub(super) links: BTreeMap<String, LinkHandle>,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReloadReport {
    /// Meshes attached.
    pub(super) added: usize,
    /// Links that were down and dial again.
    pub(super) redialled: usize,
}

impl AttachedMeshes {
    /// Reads both configurations again (§14): meshes that were joined are attached, links go by
    /// what changed from their next dial on, and those that are down dial at once, refused ones
    /// too. A `config.toml` that cannot be read leaves the settings as they were, and is no reason
    /// not to attach a mesh.
    pub(super) fn reload(&mut self) -> Result<ReloadReport, DaemonError> {
        let config = IdentityConfig::load(&self.paths)?;
        self.reload_settings();
        let mut redialled = 0;
        for joined in config.meshes {
            let slug = joined.slug.clone();
            let Some(mesh) = self.meshes.get(&slug) else { continue };
            let Some(link) = self.links.get(&slug).cloned() else { continue };
            if mesh.member_key() != joined.pubkey().to_hex() {
                tracing::warn!(mesh = slug, "has another member key: only a restart applies it");
                continue;
            }
            link.configure(self.link_config(joined, config.display_name.clone())?);
            if matches!(mesh.link().state, LinkState::Waiting | LinkState::Refused) {
                link.redial();
                redialled += 1;
            }
        }
        Ok(ReloadReport { added: self.attach_joined()?, redialled })
    }

    fn reload_settings(&mut self) {
        match self.settings.reloaded(&self.paths.config_toml()) {
            Ok(reloaded) => {
                for name in reloaded.needs_restart {
                    tracing::warn!(name, "changed in config.toml: only a restart applies it");
                }
                self.settings = reloaded.settings;
            }
            Err(error) => tracing::error!(%error, "the settings stay as they were"),
        }
    }

    /// Attaches every joined mesh that is not attached yet; says how many were.
    pub(super) fn attach_joined(&mut self) -> Result<usize, DaemonError> {
        let config = IdentityConfig::load(&self.paths)?;
        self.check_only_meshes(&config)?;
        let mut added = 0;
        for joined in config.meshes {
            let wanted = self.only_meshes.is_empty() || self.only_meshes.contains(&joined.slug);
            if wanted && self.meshes.get(&joined.slug).is_none() {
                self.attach(joined, config.display_name.clone())?;
                added += 1;
            }
        }
        Ok(added)
    }

    fn check_only_meshes(&self, config: &IdentityConfig) -> Result<(), DaemonError> {
        match self.only_meshes.iter().find(|slug| config.mesh(slug).is_none()) {
            None => Ok(()),
            Some(slug) => {
                let joined: Vec<&str> =
                    config.meshes.iter().map(|mesh| mesh.slug.as_str()).collect();
                let joined = joined.join(", ");
                Err(DaemonError::Failed(format!(
                    "--mesh {slug}: no such mesh was joined; joined are: {joined}"
                )))
            }
        }
    }

    fn attach(&mut self, joined: JoinedMesh, name: Option<String>) -> Result<(), DaemonError> {
        let slug = joined.slug.clone();
        let roster = self.rosters.remove(&slug).unwrap_or_default();
        let (runtime, bus) = (self.runtime.clone(), self.bus.clone());
        let member_key = joined.pubkey().to_hex();
        // First what can fail: a mesh that is attached accepts messages.
        let config = self.link_config(joined, name)?;
        let mesh = self.meshes.attach(slug, member_key, roster, runtime, bus);
        let (to_receive, pushes) = smol::channel::bounded(INBOUND_MAX);
        let receive = ReceiveFlow::new(
            mesh.clone(),
            self.stores.inbox.clone(),
            self.bus.clone(),
            self.runtime.clone(),
        );
        let receipts = ReceiptFlow::new(
            mesh.clone(),
            self.stores.outbox.clone(),
            self.bus.clone(),
            self.runtime.clone(),
        );
        let limits = DrainLimits {
            inflight_max: self.settings.link.inflight_max,
            backoff_cap_ms: self.settings.outbox.backoff_cap_ms,
        };
        let drain =
            DrainFlow::new(mesh.clone(), self.stores.outbox.clone(), self.runtime.clone(), limits);
        // The link outlives the drain: what is under way at shutdown is still answered.
        let (drained, link_may_end) = Shutdown::new();
        let stopped = self.stopped.clone();
        let drain = async move {
            drain.run(stopped).await;
            drop(drained);
        };
        let end = Box::pin(async move { link_may_end.wait().await });
        let (remote, orders) = LinkHandle::new();
        self.links.insert(mesh.slug().to_owned(), remote);
        let observer =
            Arc::new(RevocationLogger { mesh: mesh.clone(), outbox: self.stores.outbox.clone() });
        let link = link::run(config, self.runtime.clone(), observer, to_receive, end, orders);
        let tasks = [
            self.runtime.spawn(link),
            self.runtime.spawn(drain),
            self.runtime.spawn(receive.run(pushes)),
            self.runtime.spawn(receipts.run(self.stopped.clone())),
            self.runtime.spawn(keep_roster(
                mesh,
                self.paths.clone(),
                self.meshes.clone(),
                self.runtime.clone(),
                self.stopped.clone(),
            )),
        ];
        self.tasks.extend(tasks);
        Ok(())
    }

    fn link_config(
        &mut self,
        joined: JoinedMesh,
        display_name: Option<String>,
    ) -> Result<LinkConfig, DaemonError> {
        let session = self.session_keys.ensure(&joined.slug, &self.runtime)?;
        let settings = &self.settings;
        let link = &settings.link;
        let display_name = settings.daemon.display_name.clone().or(display_name);
        Ok(LinkConfig {
            policy: FeaturePolicy {
                require: settings.features.require.clone(),
                optional: settings.features.optional.clone(),
                allow_legacy: settings.features.allow_legacy_broker.allows(&joined.slug),
            },
            broker_url: joined.broker_url,
            mesh_id: joined.mesh_id,
            member_id: joined.member_id,
            secret: joined.secret_key,
            session_id: session.session_id,
            display_name,
            hostname: Some(hostname()),
            cwd: self.paths.home.display().to_string(),
            pid: std::process::id(),
            timers: Timers {
                hello_max: link.hello_ms,
                negotiation_max: link.negotiation_ms,
                ping_every: link.ping_ms,
                dead_after: link.dead_ms,
                stable_after: settings.reconnect.stable_ms,
                cap_ms: link.backoff_cap_ms,
            },
            connect_max: link::CONNECT_MAX,
            ack_max: link.ack_ms,
            inflight_max: link.inflight_max,
            max_age_override_hours: settings.outbox.max_age_hours,
            tls_roots: TlsRoots::default(),
        })
    }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Writes the rosters when they change, now and then; the last ones are written at the end.
async fn keep_roster(
    mesh: Mesh,
    paths: Paths,
    meshes: Meshes,
    runtime: Runtime,
    stopped: Shutdown,
) {
    let keep = async {
        let mut changed = mesh.roster_changed();
        loop {
            changed.await;
            // Listening before the write: what changes during it is written the next time.
            changed = mesh.roster_changed();
            let (paths, meshes) = (paths.clone(), meshes.clone());
            let _ = runtime.unblock(move || save_rosters(&paths, &meshes)).await;
            runtime.sleep(ROSTER_SAVE_PAUSE).await;
        }
    };
    keep.or(stopped.wait()).await;
}
