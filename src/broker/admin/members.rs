//! What may be done to a member (§17.3): kick, ban, unban, revoke, and keeping one member's direct
//! messages from another. The same acts with a running broker around the ledger and without one.
//!
//! The ledger commits first, connections are closed after it. Whoever says hello meanwhile reads the
//! ledger once more after it was let in, so that one of the two always sees the other.

use super::meshes::mesh_by_slug;
use super::{AdminContext, MemberAct, MemberDone, MemberInfo};
use crate::BrokerError;
use crate::connection::{BANNED, store_last_acks};
use crate::hub::Hub;
use crate::ledger::{AuditEntry, AuditInfo, Ledger, Member};
use claudemesh_base::runtime::Runtime;
use serde_json::json;

/// The shortest beginning of a key that may stand for it.
pub const KEY_PREFIX_MIN: usize = 8;
/// Candidates that are listed when a name is ambiguous.
const CANDIDATES_MAX: usize = 10;
/// Close code and reason of a kick.
const KICKED: (u16, &str) = (4001, "kicked");

/// The members of a mesh.
pub(super) async fn members(
    context: &AdminContext,
    mesh: &str,
) -> Result<Vec<MemberInfo>, BrokerError> {
    let AdminContext { ledger, hub, .. } = context;
    let mesh = mesh_by_slug(&**ledger, mesh).await?;
    let members = ledger.members(&mesh.id).await?.into_iter().map(|member| {
        let connections = hub.as_ref().map(|hub| hub.connections_of(member.seq));
        MemberInfo::of(member, connections)
    });
    Ok(members.collect())
}

/// The latest acts on a mesh, newest first.
pub(super) async fn audit(
    ledger: &dyn Ledger,
    mesh: &str,
    limit: u32,
) -> Result<Vec<AuditInfo>, BrokerError> {
    let mesh = mesh_by_slug(ledger, mesh).await?;
    Ok(ledger.audit(&mesh.id, limit).await?)
}

/// Does `act` to the member that `wanted` stands for.
pub(super) async fn apply(
    context: &AdminContext,
    mesh: &str,
    wanted: &str,
    act: MemberAct,
) -> Result<MemberDone, BrokerError> {
    let AdminContext { ledger, hub, runtime, .. } = context;
    let mesh = mesh_by_slug(&**ledger, mesh).await?;
    let member = find(ledger.members(&mesh.id).await?, wanted)?;
    let ended = || {
        let words = "the membership has ended for good: invite a new key";
        BrokerError::Conflict(format!("{}: {words}", shown(&member)))
    };
    let now = runtime.now();
    let (changed, close) = match (act, hub) {
        (MemberAct::Kick, None) => {
            let words = "no broker runs on this directory: nobody is connected, nobody to kick";
            return Err(BrokerError::NotRunning(words.to_owned()));
        }
        (MemberAct::Kick, Some(hub)) => {
            let is_there = hub.connections_of(member.seq) > 0;
            if is_there {
                let entry = AuditEntry::by_operator(&mesh.id, "member_kicked", &member.id, now);
                ledger.record(entry).await?;
            }
            (is_there, Some(KICKED))
        }
        (MemberAct::Ban | MemberAct::Unban, _) if member.revoked => return Err(ended()),
        (MemberAct::Ban, _) => (ledger.ban_member(&member, now).await?, Some(BANNED)),
        (MemberAct::Unban, _) => (ledger.unban_member(&member, now).await?, None),
        (MemberAct::Revoke, _) => (ledger.revoke_member(&member, now).await?, Some(BANNED)),
    };
    let mut closed = 0;
    if let (Some(hub), Some(close)) = (hub, close) {
        let acks;
        (closed, acks) = expel(hub, runtime, &member, act, close);
        store_last_acks(ledger, hub, member.seq, acks).await;
    }
    if changed {
        tracing::warn!(member = %member.id, mesh = %mesh.slug, act = act.as_str(), closed, "audit: an operator acted on a member");
    }
    let member = Member {
        revoked: member.revoked || act == MemberAct::Revoke,
        banned: act == MemberAct::Ban || (member.banned && act != MemberAct::Unban),
        ..member
    };
    let connections = hub.as_ref().map(|hub| hub.connections_of(member.seq));
    Ok(MemberDone { member: MemberInfo::of(member, connections), changed, closed })
}

/// Tells the mesh, and the member itself, before its connections close.
fn expel(
    hub: &Hub,
    runtime: &Runtime,
    member: &Member,
    act: MemberAct,
    close: (u16, &'static str),
) -> (usize, Vec<i64>) {
    if act == MemberAct::Revoke {
        let data = json!({"pubkey": member.pubkey});
        hub.announce(runtime, &member.mesh_id, "member_revoked", data, |_| true);
    }
    let expelled = hub.expel(member.seq, close);
    if member.visible {
        hub.announce_left(runtime, expelled.identities);
    }
    (expelled.closed, expelled.acks)
}

/// Keeps the direct messages of one member from another, or lets them through again.
pub(super) async fn block(
    context: &AdminContext,
    mesh: &str,
    wanted: &str,
    sender: &str,
    is_blocked: bool,
) -> Result<MemberDone, BrokerError> {
    let AdminContext { ledger, runtime, .. } = context;
    let mesh = mesh_by_slug(&**ledger, mesh).await?;
    let members = ledger.members(&mesh.id).await?;
    let member = find(members.clone(), wanted)?;
    let sender = find(members, sender)?;
    if member.seq == sender.seq {
        return Err(BrokerError::Invalid("a member cannot be blocked from itself".to_owned()));
    }
    let changed = ledger.set_block(&member, &sender, is_blocked, runtime.now()).await?;
    if changed {
        tracing::warn!(member = %member.id, sender = %sender.id, is_blocked, "audit: an operator changed whose direct messages a member gets");
    }
    Ok(MemberDone { member: MemberInfo::of(member, None), changed, closed: 0 })
}

/// The one member that a name, an id, a key or the beginning of a key stands for, tried in the
/// order id, key, name, beginning of a key. Somebody whose membership has ended comes last: a name
/// is mostly meant for who is there.
fn find(members: Vec<Member>, wanted: &str) -> Result<Member, BrokerError> {
    let key = wanted.to_ascii_lowercase();
    let is_prefix = key.len() >= KEY_PREFIX_MIN && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    let rules: [&dyn Fn(&Member) -> bool; 5] = [
        &|member| member.id == wanted || member.pubkey == key,
        &|member| !member.revoked && member.display_name == wanted,
        &|member| !member.revoked && is_prefix && member.pubkey.starts_with(&key),
        &|member| member.display_name == wanted,
        &|member| is_prefix && member.pubkey.starts_with(&key),
    ];
    for rule in rules {
        let found: Vec<&Member> = members.iter().filter(|member| rule(member)).collect();
        match found[..] {
            [] => {}
            [one] => return Ok(one.clone()),
            _ => {
                let some: Vec<_> = found.iter().take(CANDIDATES_MAX).map(|m| shown(m)).collect();
                let words = format!(
                    "{wanted:?} stands for {} members: name one by key or id\n{}",
                    found.len(),
                    some.join("\n")
                );
                return Err(BrokerError::Invalid(words));
            }
        }
    }
    let words = format!(
        "no member has the name, id or key {wanted:?} (a key may be cut to its first \
         {KEY_PREFIX_MIN} digits)"
    );
    Err(BrokerError::NotFound(words))
}

fn shown(member: &Member) -> String {
    format!("{:?} {} {}", member.display_name, member.pubkey, member.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: usize, name: &str, revoked: bool) -> Member {
        Member {
            id: format!("id{n}"),
            pubkey: format!("{n:08x}{:056x}", 7),
            display_name: name.into(),
            revoked,
            ..Member::default()
        }
    }

    #[test]
    fn a_member_is_named_in_one_way_only_or_not_at_all() {
        let members = vec![
            member(1, "bob", true),
            member(2, "bob", false),
            member(3, "ann", false),
            member(4, "ann", false),
            member(0xabc, "00000001", false),
        ];
        let found = |wanted: &str| find(members.clone(), wanted).map(|member| member.id);
        assert_eq!(found("id1").as_deref(), Ok("id1"), "also when it has left");
        assert_eq!(found("bob").as_deref(), Ok("id2"), "who is there comes first");
        assert_eq!(found(&member(3, "", false).pubkey.to_uppercase()).as_deref(), Ok("id3"));
        assert_eq!(found("00000001").as_deref(), Ok("id2748"), "a name before a key's beginning");
        assert_eq!(found("00000002").as_deref(), Ok("id2"));
        assert!(matches!(found("0000000"), Err(BrokerError::NotFound(_))), "too short");
        let Err(BrokerError::Invalid(words)) = found("ann") else { panic!("is ambiguous") };
        assert!(words.contains("id3") && words.contains("id4"), "{words}");
    }
}
