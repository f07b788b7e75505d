//! Why a join fails, each with what to do about it.

use super::NAME_CHARACTERS_MAX;
use crate::identity::IdentityError;
use claudemesh_base::http::client::ClientError;
use claudemesh_base::runtime;
use claudemesh_fsm::id::Millis;

/// The code of a broker whose database failed: the same key may be tried again.
const MEMBER_INSERT_FAILED: &str = "member_insert_failed";

/// Why we did not join. Names the field and the remedy; never quotes a token or a key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what its fields are")]
pub enum JoinError {
    #[error(
        "this is not an invite link: expected http://<host>:<port>/join/<token>, \
         https://<host>/join/<token> or ic://join/<token>"
    )]
    BadLink,
    /// Only a web site can resolve it.
    #[error(
        "short links are not supported: open it in a browser and use the full \
         …/join/<token> link"
    )]
    ShortLink,
    #[error("the token in the link is damaged: {0}")]
    BadToken(&'static str),
    #[error(
        "the invite is of version {0}, this build reads version 1: ask for another \
         invite, or update claudemesh"
    )]
    UnknownVersion(u64),
    #[error("the invite's `{field}` {expected}: ask for a new invite")]
    BadField { field: &'static str, expected: String },
    #[error("the invite's `signature` is not its owner's: it was changed; ask for it again")]
    Forged,
    #[error("the invite expired at {}: ask for a new one", runtime::iso(*at))]
    Expired { at: Millis },
    #[error("the broker {broker} is behind TLS, and this release joins over ws:// only")]
    TlsUnsupported { broker: String },
    #[error(
        "the slug `{}` cannot be used: choose one of letters, digits, `-`, `_` and `.` \
         with --as <slug>",
        .0.escape_debug()
    )]
    BadSlug(String),
    #[error("the slug `{slug}` already names mesh {mesh_id} here: join with --as <slug>")]
    SlugTaken { slug: String, mesh_id: String },
    #[error("--name must be visible text of at most {NAME_CHARACTERS_MAX} characters")]
    BadName,
    #[error("no answer from the broker {broker}: {why}{}", again_after(why))]
    Unreachable {
        broker: String,
        #[source]
        why: ClientError,
    },
    #[error("what answers at {broker} (HTTP status {status}) is not a broker that can be joined")]
    NotABroker { broker: String, status: u16 },
    /// `code` is the broker's code, or its sentence where it has no code.
    #[error("the broker of `{slug}` refused: {code}; {}", Self::remedy_of(code))]
    Refused { code: String, slug: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

fn again_after(why: &ClientError) -> &'static str {
    if why.is_certainly_not_taken() {
        ""
    } else {
        "; run the same command again: the invite is not spent twice"
    }
}

impl JoinError {
    pub(super) const fn bad_token(why: &'static str) -> Self {
        Self::BadToken(why)
    }

    pub(super) fn bad_field(field: &'static str, expected: impl Into<String>) -> Self {
        Self::BadField { field, expected: expected.into() }
    }

    pub(super) fn refused(code: &str, slug: &str) -> Self {
        // Somebody else's text: it ends on a terminal.
        let code = code.chars().filter(|c| !c.is_control()).take(200).collect();
        Self::Refused { code, slug: slug.to_owned() }
    }

    /// Whether the caller's own words are wrong, and no attempt was made.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::BadLink | Self::ShortLink | Self::BadSlug(_) | Self::BadName)
    }

    /// Whether the broker has spoken, so that the key it was asked about is no longer of use.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code != MEMBER_INSERT_FAILED)
    }

    /// What to do, where the broker gave a reason it documents (`specs/wire.md`).
    #[must_use]
    pub fn remedy_of(code: &str) -> &'static str {
        match code {
            "invite_bad_signature" => "the invite was changed on its way: ask for it again",
            "mesh_not_found" => "the broker has no such mesh: ask for an invite to one it has",
            "mesh_missing_owner_key" => {
                "the mesh has no owner key at the broker: its owner must set one"
            }
            "invite_owner_mismatch" => {
                "the mesh has another owner than the one who signed: ask the owner for an invite"
            }
            "invite_not_found" => "the broker does not know this invite: ask for a new one",
            "invite_mesh_mismatch" => "the invite is for another mesh: ask for a new one",
            "invite_revoked" => "the invite was revoked: ask for a new one",
            "invite_expired" => "the invite has expired: ask for a new one",
            "invite_exhausted" => "the invite was used up: ask for a new one",
            "member_revoked" => {
                "this key's membership has ended for good: ask for an invite and join with a new key"
            }
            "member_banned" => "this key is banned from the mesh: ask its owner to lift the ban",
            MEMBER_INSERT_FAILED => "the broker could not store the member: try again later",
            _ => "ask whoever runs the broker",
        }
    }
}
