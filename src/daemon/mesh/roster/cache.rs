//! The last roster of each mesh on disk, so that a name means the same after a restart, link or no
//! link (§3.3).
//!
//! Losing this file costs nothing but that: a cache that cannot be read is an empty one.

use super::Roster;
use claudemesh_base::paths::{Paths, PathsError, write_private};
use claudemesh_base::wire::{PeersList, to_text};
use claudemesh_fsm::id::Millis;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Reads every mesh's roster.
#[must_use]
pub fn load(paths: &Paths) -> BTreeMap<String, Roster> {
    let text = std::fs::read_to_string(paths.roster()).unwrap_or_default();
    let Ok(Value::Object(meshes)) = serde_json::from_str(&text) else { return BTreeMap::new() };
    meshes.into_iter().filter_map(|(slug, value)| Some((slug, parse(value)?))).collect()
}

fn parse(value: Value) -> Option<Roster> {
    let as_of = Millis(value.get("as_of")?.as_i64()?);
    let list: PeersList = serde_json::from_value(value).ok()?;
    Some(Roster { peers: list.peers, as_of: Some(as_of), is_live: false, version: 0 })
}

/// Writes the rosters that were ever fetched.
pub fn save<'a>(
    paths: &Paths,
    rosters: impl Iterator<Item = (&'a str, Roster)>,
) -> Result<(), PathsError> {
    let fetched = rosters.filter_map(|(slug, roster)| {
        let as_of = roster.as_of?.0;
        Some((slug.to_owned(), json!({ "as_of": as_of, "peers": roster.peers })))
    });
    let meshes: Map<String, Value> = fetched.collect();
    write_private(&paths.roster(), to_text(&meshes).as_bytes())
}
