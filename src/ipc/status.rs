//! `GET /v1/version` and `GET /v1/health`: what this daemon is, and how it is.

use super::outbox::store_problem;
use super::{App, Request, reply};
use crate::api::{Health, IPC_API, IPC_FEATURES, MeshHealth, MeshVersion, OutboxHealth, Version};
use crate::store::Error;
use crate::store::outbox::Depth;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::link::LinkState;
use claudemesh_fsm::outbox::Status;

/// The generation of `outbox.db`'s schema, as older clients know it.
const SCHEMA_VERSION: u32 = 1;

pub(super) async fn version(request: Request) -> tide::Result {
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
        ipc_features: IPC_FEATURES.map(str::to_owned).to_vec(),
        schema_version: SCHEMA_VERSION,
        durable: true,
        meshes: meshes.collect(),
    }))
}

pub(super) async fn health(request: Request) -> tide::Result {
    Ok(match health_of(request.state()).await {
        Ok(health) => reply::ok(&health),
        Err(error) => store_problem(&error).into(),
    })
}

async fn health_of(app: &App) -> Result<Health, Error> {
    let oldest = app.outbox.oldest_waiting().await?;
    let depths = app.outbox.depths();
    let now = app.clock.now();
    let age = |at: &Millis| now.since(*at) / 1000;
    let attached = app.meshes.all();
    let any_refused = attached.iter().any(|mesh| mesh.link().state == LinkState::Refused);
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
        status: (if any_refused { "degraded" } else { "ok" }).to_owned(),
        uptime_seconds: app.clock.monotonic().saturating_sub(app.started_at).as_secs(),
        brokers: attached
            .iter()
            .map(|mesh| (mesh.slug().to_owned(), older_word(mesh.link().state).to_owned()))
            .collect(),
        meshes,
        outbox: OutboxHealth {
            pending: total.of(Status::Pending),
            inflight: total.of(Status::Inflight),
            done: total.of(Status::Done),
            dead: total.of(Status::Dead),
            aborted: total.of(Status::Aborted),
            oldest_pending_age_seconds: oldest.values().min().map(age),
        },
        durable: true,
    })
}

/// A link's state in the words of older clients.
const fn older_word(state: LinkState) -> &'static str {
    match state {
        LinkState::Open => "open",
        LinkState::Dialing | LinkState::Greeting | LinkState::Negotiating => "connecting",
        LinkState::Waiting => "reconnecting",
        LinkState::Offline | LinkState::Refused => "closed",
    }
}
