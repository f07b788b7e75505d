//! `GET /v1/peers`: who is there, and whether that can be known (§3.2).

use super::Request;
use super::query::QueryParameters;
use super::reply::{self, Answer, Problem};
use crate::api::bodies::{MeshRoster, Peers};
use crate::mesh::Mesh;
use crate::mesh::roster::Roster;
use claudemesh_base::runtime::iso;
use serde_json::{Map, Value};

pub(super) async fn list(request: Request) -> Answer {
    let meshes = &request.state().meshes;
    let chosen = match QueryParameters::read(&request, &["mesh"])?.text("mesh") {
        None => meshes.all(),
        Some(slug) => vec![meshes.get(&slug).ok_or_else(|| {
            let detail = format!("this daemon does not serve mesh `{slug}`");
            Problem::not_found("mesh_not_attached", detail).with("mesh", slug)
        })?],
    };
    let mut answer = Peers { peers: Vec::new(), meshes: Vec::new() };
    for mesh in chosen {
        mesh.with_roster(|roster| {
            answer.peers.extend(roster.peers.iter().filter_map(|peer| with_mesh(peer, &mesh)));
            answer.meshes.push(state_of(roster, &mesh));
        });
    }
    Ok(reply::ok(&answer))
}

fn with_mesh(peer: &claudemesh_base::wire::RosterEntry, mesh: &Mesh) -> Option<Map<String, Value>> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(peer) else { return None };
    fields.insert("mesh".to_owned(), Value::from(mesh.slug()));
    Some(fields)
}

fn state_of(roster: &Roster, mesh: &Mesh) -> MeshRoster {
    let state = match roster.as_of {
        None => "unknown",
        Some(_) if roster.is_live => "live",
        Some(_) => "cached",
    };
    MeshRoster {
        mesh: mesh.slug().to_owned(),
        link: mesh.link().state.as_str().to_owned(),
        roster: state.to_owned(),
        as_of: roster.as_of.map(iso),
    }
}
