//! Who is there: `hello` and `session_hello`, checked in the order of `specs/wire.md`.

use super::Context;
use crate::hub::Identity;
use crate::ledger::{GROUPS_MAX, LedgerError, Member};
use claudemesh_base::message::keys::SIGNATURE_BYTES;
use claudemesh_base::message::{PublicKey, signed};
use claudemesh_base::wire::hello::{Group, Hello, SKEW_MS_MAX, SessionHello};
use claudemesh_fsm::envelope::is_public_key;
use claudemesh_fsm::id::Millis;
use serde_json::{Map, Value, json};

/// The longest time a session may be vouched for (§2).
const ATTESTATION_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The longest text of a hello that is kept: names, paths.
const TEXT_CHARS_MAX: usize = 256;
/// Close code of every refusal but a revoked member's.
const CLOSE_POLICY_VIOLATION: u16 = 1008;
/// Close code and reason for a member that was removed or banned.
pub(crate) const BANNED: (u16, &str) = (4002, "banned");
/// The longest group name or role, in characters: every row of a roster repeats them.
const GROUP_CHARS_MAX: usize = 64;

/// Why a connection is not let in: one `error` frame, then a close.
#[derive(Debug)]
pub(crate) struct HelloRejection {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) close: (u16, &'static str),
    /// The ledger's failure, if that is why.
    pub(crate) cause: Option<LedgerError>,
}

impl HelloRejection {
    /// A refusal whose close reason is its code.
    pub(crate) fn because(code: &'static str) -> Self {
        let message = format!("hello rejected: {code}");
        Self { code, message, close: (CLOSE_POLICY_VIOLATION, code), cause: None }
    }

    fn revoked() -> Self {
        let message = "You've been removed from this mesh. Ask its owner for a new invite.";
        Self { code: "revoked", message: message.to_owned(), close: BANNED, cause: None }
    }

    fn banned() -> Self {
        let message = "You're banned from this mesh. Its owner can lift the ban.";
        Self { code: "banned", message: message.to_owned(), close: BANNED, cause: None }
    }
}

impl From<LedgerError> for HelloRejection {
    fn from(error: LedgerError) -> Self {
        let message = "the broker's ledger does not answer; try again".to_owned();
        Self { code: "unavailable", message, close: (1011, "unavailable"), cause: Some(error) }
    }
}

/// Somebody whose signature and membership hold.
pub(crate) struct Authenticated {
    pub(crate) identity: Identity,
    pub(crate) member: Member,
    pub(crate) groups: Vec<Group>,
}

/// Checks a member's hello.
pub(crate) async fn member(
    broker: &Context,
    hello: Hello,
) -> Result<Authenticated, HelloRejection> {
    if hello.session_pubkey.as_deref().is_some_and(|key| !is_lower_key(key)) {
        return Err(HelloRejection::because("bad_session_pubkey"));
    }
    if broker.hub.is_full(&hello.mesh_id, &hello.session_id) {
        return Err(HelloRejection::because("capacity"));
    }
    let now = broker.runtime.now();
    check_skew(hello.timestamp, now)?;
    let key = parse_key(&hello.pubkey)?;
    let at = Millis(hello.timestamp);
    let text = signed::hello(&hello.mesh_id, &hello.member_id, &key, at);
    check_signature(&key, &text, &hello.signature)?;
    let member = membership(broker, &hello.mesh_id, &hello.pubkey).await?;
    if let Some(session) = &hello.session_pubkey
        && !bind_session_key(broker, &hello.mesh_id, session, member.seq, now).await?
    {
        return Err(HelloRejection::because("bad_session_pubkey"));
    }
    let mut roster_details = Map::new();
    show(&mut roster_details, "cwd", Some(&hello.cwd));
    show(&mut roster_details, "hostname", hello.hostname.as_deref());
    show(&mut roster_details, "channel", hello.channel.as_deref());
    show(&mut roster_details, "peerType", hello.peer_type.as_deref());
    let identity = Identity {
        mesh_id: hello.mesh_id,
        member: member.seq,
        member_pubkey: member.pubkey.clone(),
        routing_key: hello.session_pubkey.unwrap_or_else(|| member.pubkey.clone()),
        is_session: false,
        session_id: sanitize(&hello.session_id),
        name: name_of(hello.display_name.as_deref(), &member),
        connected_at: now,
        roster_details,
    };
    Ok(Authenticated { identity, member, groups: sanitize_groups(hello.groups) })
}

/// Checks a session's hello, and its member's attestation for it.
pub(crate) async fn session(
    broker: &Context,
    hello: SessionHello,
) -> Result<Authenticated, HelloRejection> {
    if !is_lower_key(&hello.session_pubkey) {
        return Err(HelloRejection::because("bad_session_pubkey"));
    }
    if !is_lower_key(&hello.parent_member_pubkey) {
        return Err(HelloRejection::because("bad_parent_pubkey"));
    }
    let attestation = &hello.parent_attestation;
    if attestation.session_pubkey != hello.session_pubkey
        || attestation.parent_member_pubkey != hello.parent_member_pubkey
    {
        return Err(HelloRejection::because("attestation_mismatch"));
    }
    if broker.hub.is_full(&hello.mesh_id, &hello.session_id) {
        return Err(HelloRejection::because("capacity"));
    }
    let now = broker.runtime.now();
    if attestation.expires_at <= now.0 {
        return Err(HelloRejection::because("expired"));
    }
    if attestation.expires_at > now.plus(ATTESTATION_MS_MAX).0 {
        return Err(HelloRejection::because("ttl_too_long"));
    }
    let parent = parse_key(&hello.parent_member_pubkey)?;
    let session = parse_key(&hello.session_pubkey)?;
    let text = signed::session_attestation(&parent, &session, Millis(attestation.expires_at));
    check_signature(&parent, &text, &attestation.signature)?;
    check_skew(hello.timestamp, now)?;
    let at = Millis(hello.timestamp);
    let text = signed::session_hello(&hello.mesh_id, &parent, &session, at);
    check_signature(&session, &text, &hello.signature)?;
    let member = membership(broker, &hello.mesh_id, &hello.parent_member_pubkey).await?;
    if member.id != hello.parent_member_id {
        return Err(HelloRejection::because("parent_member_id_mismatch"));
    }
    let (mesh, key) = (&hello.mesh_id, &hello.session_pubkey);
    if !bind_session_key(broker, mesh, key, member.seq, now).await? {
        return Err(HelloRejection::because("bad_session_pubkey"));
    }
    let mut roster_details = Map::new();
    show(&mut roster_details, "cwd", Some(&hello.cwd));
    let identity = Identity {
        mesh_id: hello.mesh_id,
        member: member.seq,
        member_pubkey: member.pubkey.clone(),
        routing_key: hello.session_pubkey,
        is_session: true,
        session_id: sanitize(&hello.session_id),
        name: name_of(hello.display_name.as_deref(), &member),
        connected_at: now,
        roster_details,
    };
    Ok(Authenticated { identity, member, groups: sanitize_groups(hello.groups) })
}

/// The member with this key, if its membership holds now.
pub(super) async fn membership(
    broker: &Context,
    mesh: &str,
    pubkey: &str,
) -> Result<Member, HelloRejection> {
    match broker.ledger.member(mesh, pubkey).await? {
        None => Err(HelloRejection::because("unauthorized")),
        Some(member) if member.revoked => Err(HelloRejection::revoked()),
        Some(member) if member.banned => Err(HelloRejection::banned()),
        Some(member) => Ok(member),
    }
}

/// Binds a session key to its member; `false` when it is somebody else's. That a bound one is in
/// use again is for the nightly expiry, which asks the hub too: a ledger whose disk is full does not
/// keep a session it knows from its messages.
pub(super) async fn bind_session_key(
    broker: &Context,
    mesh: &str,
    key: &str,
    member: i64,
    now: Millis,
) -> Result<bool, LedgerError> {
    let bound = broker.ledger.bind_session_key(mesh, key, member, now).await;
    let Err(error) = bound else { return bound };
    if !broker.ledger.is_session_key_of(mesh, key, member).await? {
        return Err(error);
    }
    broker.ledger.failed(&error);
    Ok(true)
}

fn check_skew(timestamp: i64, now: Millis) -> Result<(), HelloRejection> {
    if timestamp.abs_diff(now.0) > SKEW_MS_MAX {
        return Err(HelloRejection::because("timestamp_skew"));
    }
    Ok(())
}

fn parse_key(text: &str) -> Result<PublicKey, HelloRejection> {
    PublicKey::parse(text).map_err(|_| HelloRejection::because("malformed"))
}

fn check_signature(key: &PublicKey, text: &str, signature: &str) -> Result<(), HelloRejection> {
    let is_hex = signature.bytes().all(|byte| byte.is_ascii_hexdigit());
    if signature.len() != 2 * SIGNATURE_BYTES || !is_hex {
        return Err(HelloRejection::because("malformed"));
    }
    if key.verify(text, signature) { Ok(()) } else { Err(HelloRejection::because("bad_signature")) }
}

fn is_lower_key(text: &str) -> bool {
    is_public_key(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Text of a stranger made fit to store and to show: no control characters, not endless.
pub(crate) fn sanitize(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn short(text: &str) -> String {
    sanitize(text).chars().take(GROUP_CHARS_MAX).collect()
}

/// Group names made fit to store; empty ones are dropped.
pub(crate) fn sanitize_groups(groups: Vec<Group>) -> Vec<Group> {
    let cleaned = groups.into_iter().take(GROUPS_MAX).map(|group| Group {
        name: short(group.name.trim_start_matches('@')),
        role: group.role.as_deref().map(short),
    });
    cleaned.filter(|group| !group.name.is_empty()).collect()
}

fn name_of(wished: Option<&str>, member: &Member) -> String {
    let wished = wished.map(sanitize).filter(|name| !name.trim().is_empty());
    wished.unwrap_or_else(|| member.display_name.clone())
}

fn show(roster_details: &mut Map<String, Value>, name: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        roster_details.insert(name.to_owned(), json!(sanitize(value)));
    }
}
