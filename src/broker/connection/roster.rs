//! The answer to `list_peers`, and its bound: whatever members say about themselves, the roster
//! fits into one message of every client (`specs/wire.md`).

use super::ClientConnection;
use super::requests::object;
use crate::hub::{ConnectionId, Identity};
use crate::ledger::{LedgerError, Member};
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::{RosterEntry as PeerRow, to_text};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// The most a roster weighs, in bytes: a link takes 4 MiB, and the frame around it has room.
const ROSTER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// A row that weighs no more keeps its details longest when a roster is too heavy, in bytes.
const ROW_BYTES_FAIR: usize = 1024;

/// Every connection, and to those who asked every member without one. Hidden members are shown to
/// themselves only.
pub(super) async fn build(
    peer: &ClientConnection,
    id: ConnectionId,
    identity: &Identity,
) -> Result<Vec<PeerRow>, LedgerError> {
    let members = peer.context.ledger.members(&identity.mesh_id).await?;
    let (live, lingering) = peer.context.hub.present(&identity.mesh_id);
    let may_see =
        |member: &Member| member.is_active() && (member.visible || member.seq == identity.member);
    let by_seq: HashMap<i64, &Member> =
        members.iter().filter(|member| may_see(member)).map(|m| (m.seq, m)).collect();
    let wants_offline = peer.context.hub.wants_offline(id);
    let mut rows: Vec<PeerRow> = Vec::with_capacity(live.len());
    for (identities, online) in [(live, true), (lingering, false)] {
        for identity in identities {
            let Some(member) = by_seq.get(&identity.member) else { continue };
            // To clients that cannot tell, a presence lease counts as presence.
            let online = wants_offline.then_some(online);
            rows.push(connected_row(identity, member, online));
        }
    }
    if wants_offline {
        let present: HashSet<String> = rows.iter().map(|row| row.member_pubkey.clone()).collect();
        let absent = members.iter().filter(|m| may_see(m) && !present.contains(&m.pubkey));
        rows.extend(absent.map(|member| PeerRow {
            pubkey: member.pubkey.clone(),
            member_pubkey: member.pubkey.clone(),
            display_name: member.display_name.clone(),
            online: Some(false),
            peer_role: None,
            rest: shown_member(member),
        }));
    }
    let all = rows.len();
    let rows = fit(rows);
    if rows.len() < all {
        peer.context.counters.rosters_cut.add(1);
    }
    Ok(rows)
}

/// As much of a roster as one message takes. Heavy rows lose their details first, then all do, and
/// only then are the last rows left out: whoever is fat pays before whoever is lean.
fn fit(mut rows: Vec<PeerRow>) -> Vec<PeerRow> {
    let mut weights: Vec<usize> = rows.iter().map(weight).collect();
    let mut whole: usize = weights.iter().sum();
    for row_bytes_max in [ROW_BYTES_FAIR, 0] {
        for (row, weight) in rows.iter_mut().zip(&mut weights) {
            if whole > ROSTER_BYTES_MAX && *weight > row_bytes_max {
                row.rest = Map::new();
                let bare = self::weight(row);
                whole -= *weight - bare;
                *weight = bare;
            }
        }
    }
    let mut room = ROSTER_BYTES_MAX;
    let fitting = weights.iter().take_while(|weight| {
        let fits = **weight <= room;
        room = room.saturating_sub(**weight);
        fits
    });
    let fitting = fitting.count();
    rows.truncate(fitting);
    rows
}

/// What a row weighs in its frame, with the comma behind it.
fn weight(row: &PeerRow) -> usize {
    to_text(row).len() + 1
}

fn connected_row(identity: Identity, member: &Member, online: Option<bool>) -> PeerRow {
    let mut rest = shown_member(member);
    rest.insert("sessionId".to_owned(), json!(identity.session_id));
    rest.insert("connectedAt".to_owned(), json!(iso(identity.connected_at)));
    rest.extend(identity.roster_details);
    let role = if identity.is_session { "session" } else { "control-plane" };
    PeerRow {
        pubkey: identity.routing_key,
        member_pubkey: identity.member_pubkey,
        display_name: identity.name,
        online,
        peer_role: Some(role.to_owned()),
        rest,
    }
}

fn shown_member(member: &Member) -> Map<String, Value> {
    let mut roster_details = object(json!({
        "status": member.status,
        "summary": member.summary,
        "groups": member.groups,
        "visible": member.visible,
        "memberId": member.id,
    }));
    let profile = member.profile.as_deref().and_then(|text| serde_json::from_str(text).ok());
    if let Some(profile @ Value::Object(_)) = profile {
        roster_details.insert("profile".to_owned(), profile);
    }
    if let Some(at) = member.last_seen_at {
        roster_details.insert("lastSeenAt".to_owned(), json!(iso(at)));
    }
    roster_details
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, summary: &str) -> Vec<PeerRow> {
        let rest: Map<String, Value> =
            [("summary".to_owned(), json!(summary))].into_iter().collect();
        let row = |n: usize| PeerRow {
            pubkey: format!("{n:064x}"),
            member_pubkey: format!("{n:064x}"),
            display_name: format!("peer {n}"),
            rest: rest.clone(),
            ..PeerRow::default()
        };
        (0..count).map(row).collect()
    }

    fn bytes(rows: &[PeerRow]) -> usize {
        rows.iter().map(|row| to_text(row).len()).sum()
    }

    #[test]
    fn a_roster_that_fits_is_left_alone() {
        let all = rows(1024, &"x".repeat(2000));
        assert_eq!(fit(all.clone()), all);
    }

    #[test]
    fn a_fat_peer_loses_its_details_before_a_lean_one() {
        let mut all = rows(100, "lean");
        all.extend(rows(1000, &"x".repeat(20_000)));
        let kept = fit(all);
        assert_eq!(kept.len(), 1100, "everybody is still there");
        assert!(bytes(&kept) <= ROSTER_BYTES_MAX);
        assert!(kept[..100].iter().all(|row| row.rest["summary"] == "lean"));
        assert!(kept[100].rest.is_empty() && !kept[1099].rest.is_empty());
    }

    #[test]
    fn a_roster_of_bare_rows_still_ends_somewhere() {
        let kept = fit(rows(50_000, "x"));
        assert!(bytes(&kept) <= ROSTER_BYTES_MAX && kept.len() > 10_000);
        assert!(kept.last().is_some_and(|row| row.rest.is_empty()));
    }
}
