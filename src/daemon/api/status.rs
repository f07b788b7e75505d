//! `GET /v1/version` and `GET /v1/health`: what this daemon is, and how it is.

use super::reply::{self, Answer};
use super::{App, Request, routes};
use crate::api::bodies::{
    DiskHealth, Health, IPC_API, MeshHealth, MeshVersion, OutboxHealth, StoresHealth, Version,
};
use crate::mesh::Mesh;
use crate::store::outbox::Depth;
use crate::store::quota::Usage;
use crate::store::{Error, Integrity, Kind};
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::link::LinkState;
use claudemesh_fsm::outbox::Status;
use std::collections::BTreeMap;

/// The generation of `outbox.db`'s schema, as older clients know it.
const SCHEMA_VERSION: u32 = 1;

pub(super) async fn version(request: Request) -> Answer {
    let meshes = request.state().meshes.all().into_iter().map(|mesh| {
        let link = mesh.link();
        MeshVersion {
            mesh: mesh.slug().to_owned(),
            member_pubkey: mesh.member_key().to_owned(),
            features: link.features.into_iter().collect(),
            legacy_broker: link.legacy_broker,
        }
    });
    Ok(reply::ok(&Version {
        daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
        ipc_api: IPC_API.to_owned(),
        ipc_features: routes::features(),
        schema_version: SCHEMA_VERSION,
        durable: true,
        meshes: meshes.collect(),
    }))
}

pub(super) async fn health(request: Request) -> Answer {
    let app = request.state();
    health_of(app).await.map(|health| reply::ok(&health)).map_err(|error| app.store_problem(&error))
}

async fn health_of(app: &App) -> Result<Health, Error> {
    let oldest = match app.outbox.oldest_waiting().await {
        // What health is for: it says so instead of failing.
        Err(error) if error.kind() == Kind::Corrupt => BTreeMap::default(),
        oldest => oldest?,
    };
    let depths = app.outbox.depths();
    let now = app.runtime.now();
    let age = |at: &Millis| now.since(*at) / 1000;
    let attached = app.meshes.all();
    let usage = app.outbox.quota().usage();
    let stores = [("outbox", app.outbox.integrity()), ("inbox", app.inbox.integrity())];
    let reasons = reasons(&attached, usage.as_ref(), &stores);
    let [outbox_integrity, inbox_integrity] = stores.map(|(_, store)| store.as_str().to_owned());
    let meshes: Vec<MeshHealth> = attached
        .iter()
        .map(|mesh| {
            let link = mesh.link();
            let depth = depths.get(mesh.slug()).copied().unwrap_or_default();
            MeshHealth {
                mesh: mesh.slug().to_owned(),
                link: link.state.as_str().to_owned(),
                reason: link.reason,
                remedy: link.remedy,
                pending: depth.of(Status::Pending),
                inflight: depth.of(Status::Inflight),
                oldest_pending_age_seconds: oldest.get(mesh.slug()).map(age),
            }
        })
        .collect();
    let total = depths.values().fold(Depth::default(), |sum, depth| sum.plus(*depth));
    Ok(Health {
        ok: true,
        pid: std::process::id(),
        status: (if reasons.is_empty() { "ok" } else { "degraded" }).to_owned(),
        reasons,
        warnings: usage.as_ref().map(Usage::warnings).unwrap_or_default(),
        uptime_seconds: app.runtime.monotonic().saturating_sub(app.started_at).as_secs(),
        brokers: attached
            .iter()
            .map(|mesh| (mesh.slug().to_owned(), legacy_state(mesh.link().state).to_owned()))
            .collect(),
        meshes,
        outbox: OutboxHealth {
            pending: total.of(Status::Pending),
            inflight: total.of(Status::Inflight),
            done: total.of(Status::Done),
            dead: total.of(Status::Dead),
            aborted: total.of(Status::Aborted),
            oldest_pending_age_seconds: oldest.values().min().map(age),
            bytes: total.live_bytes(),
            max_bytes: usage.map_or(0, |usage| usage.limits.outbox_bytes_max),
            percent: usage.as_ref().map_or(0, Usage::outbox_percent),
        },
        disk: usage.as_ref().map(disk).unwrap_or_default(),
        stores: StoresHealth { outbox: outbox_integrity, inbox: inbox_integrity },
        durable: true,
    })
}

fn disk(usage: &Usage) -> DiskHealth {
    DiskHealth {
        free_bytes: usage.space.map(|space| space.free_bytes),
        reserved_bytes: usage.limits.disk_reserved_bytes,
        used_percent: usage.disk_percent(),
    }
}

/// Why the daemon does less than it should, in words.
fn reasons(attached: &[Mesh], usage: Option<&Usage>, stores: &[(&str, Integrity)]) -> Vec<String> {
    let refused = attached.iter().filter(|mesh| mesh.link().state == LinkState::Refused);
    let refused = refused.map(|mesh| {
        let why = mesh.link().reason.unwrap_or_else(|| "it does not say why".to_owned());
        format!("the broker of mesh `{}` refuses us: {why}", mesh.slug())
    });
    let damaged = stores.iter().filter_map(|(name, integrity)| match integrity {
        Integrity::Damaged(why) => Some(format!(
            "the {name} is damaged ({why}): stop the daemon and see `claudemesh daemon recover`"
        )),
        _ => None,
    });
    refused.chain(usage.map(Usage::reasons).unwrap_or_default()).chain(damaged).collect()
}

/// A link's state in the words of older clients.
const fn legacy_state(state: LinkState) -> &'static str {
    match state {
        LinkState::Open => "open",
        LinkState::Dialing | LinkState::Greeting | LinkState::Negotiating => "connecting",
        LinkState::Waiting => "reconnecting",
        LinkState::Offline | LinkState::Refused => "closed",
    }
}
