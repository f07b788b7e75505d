//! What may be done to a member (§17.3): kick, ban, unban, revoke, and keeping one member's direct
//! messages from another. The same acts with a running broker around the ledger and without one.
//!
//! Order: the ledger commits first, connections are closed after it. Whoever says hello meanwhile
//! reads the ledger once more after it was let in, so that one of the two always sees the other.

use super::connection::{BANNED, store_last_acks};
use super::hub::Hub;
use super::ledger::{Entry, Ledger, Member};
use super::provision::mesh_by_slug;
use super::send::system_event;
use super::{Broker, BrokerError, housekeeping};
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::id::Millis;
use serde::Deserialize;
use serde_json::json;

/// The shortest beginning of a key that may stand for it.
pub const KEY_PREFIX_MIN: usize = 8;
/// Candidates that are listed when a name is ambiguous.
const CANDIDATES_MAX: usize = 10;
/// Close code and reason of a kick.
const KICKED: (u16, &str) = (4001, "kicked");

/// What to do to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberAct {
    /// Close its connections; it may come back when its operator acts.
    Kick,
    /// Suspend its membership until it is unbanned.
    Ban,
    /// Lift a ban.
    Unban,
    /// End its membership for good.
    Revoke,
}

impl MemberAct {
    /// Its word in commands and on `admin.sock`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::Revoke => "revoke",
        }
    }

    /// The act of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Kick, Self::Ban, Self::Unban, Self::Revoke]
            .into_iter()
            .find(|act| act.as_str() == word)
    }
}

/// A member, as shown to whoever administers its mesh.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberInfo {
    /// The member's id.
    pub id: String,
    /// Its key.
    pub pubkey: String,
    /// Its name.
    pub display_name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// When it joined, Unix milliseconds.
    pub joined_at_ms: i64,
    /// Whether its membership has ended.
    pub revoked: bool,
    /// Whether its membership is suspended.
    pub banned: bool,
    /// Its connections; `None` while no broker runs to know.
    pub connections: Option<usize>,
}

impl MemberInfo {
    pub(crate) fn of(member: Member, connections: Option<usize>) -> Self {
        Self {
            id: member.id,
            pubkey: member.pubkey,
            display_name: member.display_name,
            role: member.role,
            joined_at_ms: member.joined_at.0,
            revoked: member.revoked,
            banned: member.banned,
            connections,
        }
    }
}

/// One administrative act, or one verdict of §15.6.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AuditInfo {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// `operator`, or `broker` for a rule of the mesh.
    pub actor: String,
    /// What was done.
    pub act: String,
    /// The id of the member or mesh it was done to.
    pub subject: String,
    /// A word on how.
    pub detail: Option<String>,
}

/// What an act came to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberDone {
    /// Whom it was done to, as it stands now.
    pub member: MemberInfo,
    /// Whether anything is different from before.
    pub changed: bool,
    /// Connections that were closed.
    pub closed: usize,
}

/// The members of a mesh.
pub(crate) async fn members(
    ledger: &Ledger,
    hub: Option<&Hub>,
    mesh: &str,
) -> Result<Vec<MemberInfo>, BrokerError> {
    let mesh = mesh_by_slug(ledger, mesh).await?;
    let members = ledger.members(&mesh.id).await?.into_iter().map(|member| {
        let connections = hub.map(|hub| hub.connections_of(member.seq));
        MemberInfo::of(member, connections)
    });
    Ok(members.collect())
}

/// The latest acts on a mesh, newest first.
pub(crate) async fn audit(
    ledger: &Ledger,
    mesh: &str,
    limit: u32,
) -> Result<Vec<AuditInfo>, BrokerError> {
    let mesh = mesh_by_slug(ledger, mesh).await?;
    let rows = ledger.audit(&mesh.id, limit).await?.into_iter().map(|row| AuditInfo {
        at_ms: row.at.0,
        actor: row.actor,
        act: row.act,
        subject: row.subject,
        detail: row.detail,
    });
    Ok(rows.collect())
}

/// Does `act` to the member that `wanted` stands for. `broker` is the running one, if there is one.
///
/// # Errors
/// When the mesh or member is unknown or ambiguous, or the act has no meaning for it.
pub(crate) async fn act(
    ledger: &Ledger,
    runtime: &Runtime,
    broker: Option<&Broker>,
    mesh: &str,
    wanted: &str,
    act: MemberAct,
) -> Result<MemberDone, BrokerError> {
    let mesh = mesh_by_slug(ledger, mesh).await?;
    let member = find(ledger.members(&mesh.id).await?, wanted)?;
    let ended = || {
        let words = "the membership has ended for good: invite a new key";
        BrokerError::Conflict(format!("{}: {words}", shown(&member)))
    };
    let now = runtime.now();
    let (changed, close) = match (act, broker) {
        (MemberAct::Kick, None) => {
            let words = "no broker runs on this directory: nobody is connected, nobody to kick";
            return Err(BrokerError::NotRunning(words.to_owned()));
        }
        (MemberAct::Kick, Some(broker)) => {
            let is_there = broker.hub.connections_of(member.seq) > 0;
            if is_there {
                let entry = Entry::by_operator(&mesh.id, "member_kicked", &member.id, now);
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
    if let (Some(broker), Some(close)) = (broker, close) {
        let acks;
        (closed, acks) = expel(broker, &member, act, close, now);
        store_last_acks(broker, member.seq, acks).await;
    }
    if changed {
        tracing::warn!(member = %member.id, mesh = %mesh.slug, act = act.as_str(), closed, "audit: an operator acted on a member");
    }
    let member = Member {
        revoked: member.revoked || act == MemberAct::Revoke,
        banned: act == MemberAct::Ban || (member.banned && act != MemberAct::Unban),
        ..member
    };
    let connections = broker.map(|broker| broker.hub.connections_of(member.seq));
    Ok(MemberDone { member: MemberInfo::of(member, connections), changed, closed })
}

/// Tells the mesh, and the member itself, before its connections close.
fn expel(
    broker: &Broker,
    member: &Member,
    act: MemberAct,
    close: (u16, &'static str),
    now: Millis,
) -> (usize, Vec<i64>) {
    if act == MemberAct::Revoke {
        let (id, data) = (broker.runtime.mint_id(), json!({"pubkey": member.pubkey}));
        let event = system_event(id, &member.mesh_id, "member_revoked", data, now);
        broker.hub.broadcast(&member.mesh_id, &event, |_| true);
    }
    let expelled = broker.hub.expel(member.seq, close);
    if member.visible {
        housekeeping::announce_left(broker, expelled.gone);
    }
    (expelled.closed, expelled.acks)
}

/// Keeps the direct messages of one member from another, or lets them through again.
///
/// # Errors
/// When the mesh or one of the members is unknown or ambiguous, or both are one.
pub(crate) async fn block(
    ledger: &Ledger,
    runtime: &Runtime,
    mesh: &str,
    wanted: &str,
    sender: &str,
    is_blocked: bool,
) -> Result<MemberDone, BrokerError> {
    let mesh = mesh_by_slug(ledger, mesh).await?;
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
