//! Why a join fails, each with what to do about it.

use crate::identity::IdentityError;
use claudemesh_base::http::client::ClientError;
use claudemesh_base::runtime;
use claudemesh_fsm::id::Millis;
use std::fmt;

/// The code of a broker whose database failed: the same key may be tried again.
const MEMBER_INSERT_FAILED: &str = "member_insert_failed";

/// Why we did not join. Names the field and the remedy; never quotes a token or a key.
#[derive(Debug)]
pub enum JoinError {
    /// Not a link we know.
    BadLink,
    /// A short link, which only a web site can resolve.
    ShortLink,
    /// The token in the link is damaged.
    BadToken(&'static str),
    /// An invite of a format this build does not read.
    UnknownVersion(u64),
    /// A field of the invite is missing or wrong.
    BadField {
        /// The field as it stands in the invite.
        field: &'static str,
        /// What it must be.
        expected: String,
    },
    /// The signature is not the owner's.
    Forged,
    /// The invite's time is over.
    Expired {
        /// Since when.
        at: Millis,
    },
    /// The broker is behind TLS, which joining does not speak yet.
    TlsUnsupported {
        /// Its URL.
        broker: String,
    },
    /// The slug cannot be used here.
    BadSlug(String),
    /// Another mesh has the slug here.
    SlugTaken {
        /// The slug.
        slug: String,
        /// The mesh that has it.
        mesh_id: String,
    },
    /// The display name cannot be used.
    BadName,
    /// No answer from the broker.
    Unreachable {
        /// Its URL.
        broker: String,
        /// How far the request got.
        why: ClientError,
    },
    /// Something answered that is no broker.
    NotABroker {
        /// Its URL.
        broker: String,
        /// The HTTP status it answered with.
        status: u16,
    },
    /// The broker said no.
    Refused {
        /// Its code, or its sentence where it has no code.
        code: String,
        /// The mesh's slug in the invite.
        slug: String,
    },
    /// `config.json` cannot be used.
    Identity(IdentityError),
}

impl From<IdentityError> for JoinError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
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

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLink => f.write_str(
                "this is not an invite link: expected http://<host>:<port>/join/<token>, \
                 https://<host>/join/<token> or ic://join/<token>",
            ),
            Self::ShortLink => f.write_str(
                "short links are not supported: open it in a browser and use the full \
                 …/join/<token> link",
            ),
            Self::BadToken(why) => write!(f, "the token in the link is damaged: {why}"),
            Self::UnknownVersion(version) => write!(
                f,
                "the invite is of version {version}, this build reads version 1: ask for another \
                 invite, or update claudemesh"
            ),
            Self::BadField { field, expected } => {
                write!(f, "the invite's `{field}` {expected}: ask for a new invite")
            }
            Self::Forged => f.write_str(
                "the invite's `signature` is not its owner's: it was changed; ask for it again",
            ),
            Self::Expired { at } => {
                write!(f, "the invite expired at {}: ask for a new one", runtime::iso(*at))
            }
            Self::TlsUnsupported { broker } => write!(
                f,
                "the broker {broker} is behind TLS, and this release joins over ws:// only"
            ),
            Self::BadSlug(slug) => write!(
                f,
                "the slug `{}` cannot be used: choose one of letters, digits, `-`, `_` and `.` \
                 with --as <slug>",
                slug.escape_debug()
            ),
            Self::SlugTaken { slug, mesh_id } => write!(
                f,
                "the slug `{slug}` already names mesh {mesh_id} here: join with --as <slug>"
            ),
            Self::BadName => write!(
                f,
                "--name must be visible text of at most {} characters",
                super::NAME_CHARACTERS_MAX
            ),
            Self::Unreachable { broker, why } => {
                write!(f, "no answer from the broker {broker}: {why}")?;
                if why.is_certainly_not_taken() {
                    return Ok(());
                }
                f.write_str("; run the same command again: the invite is not spent twice")
            }
            Self::NotABroker { broker, status } => write!(
                f,
                "what answers at {broker} (HTTP status {status}) is not a broker that can be joined"
            ),
            Self::Refused { code, slug } => {
                write!(f, "the broker of `{slug}` refused: {code}; {}", Self::remedy_of(code))
            }
            Self::Identity(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { why, .. } => Some(why),
            Self::Identity(error) => Some(error),
            _ => None,
        }
    }
}
