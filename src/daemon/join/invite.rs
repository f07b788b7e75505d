//! An invite: the token in a link, and the signed JSON in the token (`specs/wire.md`).

use super::JoinError;
use claudemesh_base::message::{PublicKey, signed};
use claudemesh_fsm::id::Millis;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

/// The invite format that is read here.
pub(super) const VERSION: u64 = signed::INVITE_VERSION as u64;
/// The longest link, in bytes; token and payload together must fit a broker's 64 KiB body.
pub const LINK_BYTES_MAX: usize = 16 * 1024;
/// The longest slug, in characters.
const SLUG_CHARACTERS_MAX: usize = 64;
const MILLISECONDS_PER_SECOND: i64 = 1000;
const WS_PORT: u16 = 80;

/// An invite whose signature and expiry have been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedInvite {
    /// Exactly as it stands in the link: brokers look it up by this text.
    pub token: String,
    /// The JSON in it, whole.
    pub payload: Map<String, Value>,
    /// The mesh's id on the wire.
    pub mesh_id: String,
    /// The mesh's name for people.
    pub mesh_slug: String,
    /// Where its broker listens, `/ws` included.
    pub broker_url: String,
    /// base64url.
    pub mesh_root_key: String,
    /// What a joiner becomes: `member` or `admin`.
    pub role: String,
    /// Where to ask to be let in.
    pub broker: JoinAddress,
}

/// `POST` goes here: the broker's URL with its scheme swapped and its path replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAddress {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `host:port` as it stands in the URL.
    pub authority: String,
    /// The path.
    pub path: String,
}

impl VerifiedInvite {
    /// Reads a link, or a bare token, and verifies the invite in it.
    ///
    /// # Errors
    /// When it is no link, or the invite is malformed, forged or expired.
    pub fn read(link: &str, now: Millis) -> Result<Self, JoinError> {
        let token = token(link)?;
        let bad = JoinError::bad_token;
        let json = BASE64URL_NOPAD
            .decode(token.trim_end_matches('=').as_bytes())
            .map_err(|_| bad("it is not base64url: was the link cut off?"))?;
        let Ok(Value::Object(payload)) = serde_json::from_slice(&json) else {
            return Err(bad("it does not hold a JSON object: was the link cut off?"));
        };
        let invite = Self::check(token.to_owned(), payload)?;
        if !invite.is_signed()? {
            return Err(JoinError::Forged);
        }
        let expires_at_s = invite.expires_at_s()?;
        if expires_at_s.saturating_mul(MILLISECONDS_PER_SECOND) <= now.0 {
            let at = Millis(expires_at_s.saturating_mul(MILLISECONDS_PER_SECOND));
            return Err(JoinError::Expired { at });
        }
        Ok(invite)
    }

    fn check(token: String, payload: Map<String, Value>) -> Result<Self, JoinError> {
        match payload.get("v").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(JoinError::UnknownVersion(other)),
            None => return Err(JoinError::bad_field("v", "must be 1")),
        }
        let text = |field: &'static str| match payload.get(field) {
            Some(Value::String(text)) if !text.is_empty() && !text.contains(char::is_control) => {
                Ok(text.clone())
            }
            _ => Err(JoinError::bad_field(field, "must be visible text")),
        };
        let role = text("role")?;
        if role != "member" && role != "admin" {
            return Err(JoinError::bad_field("role", "must be member or admin"));
        }
        let broker_url = text("broker_url")?;
        let broker = JoinAddress::of(&broker_url)?;
        Ok(Self {
            mesh_id: text("mesh_id")?,
            mesh_slug: text("mesh_slug")?,
            mesh_root_key: text("mesh_root_key")?,
            token,
            role,
            broker_url,
            broker,
            payload,
        })
    }

    fn expires_at_s(&self) -> Result<i64, JoinError> {
        let seconds = self.payload.get("expires_at").and_then(Value::as_i64);
        seconds.ok_or_else(|| JoinError::bad_field("expires_at", "must be a time in seconds"))
    }

    fn is_signed(&self) -> Result<bool, JoinError> {
        let text = |field: &str| self.payload.get(field).and_then(Value::as_str);
        let owner = PublicKey::parse(text("owner_pubkey").unwrap_or_default())
            .map_err(|error| JoinError::bad_field("owner_pubkey", error.to_string()))?;
        let signature = text("signature")
            .ok_or_else(|| JoinError::bad_field("signature", "must be 128 hex digits"))?;
        let canonical = signed::invite(&signed::InviteClaims {
            mesh_id: &self.mesh_id,
            mesh_slug: &self.mesh_slug,
            broker_url: &self.broker_url,
            expires_at_s: self.expires_at_s()?,
            mesh_root_key: &self.mesh_root_key,
            role: &self.role,
            owner: &owner,
        });
        Ok(owner.verify(&canonical, signature))
    }
}

/// Whether a slug can name a mesh here: on a command line, in a table, in a file.
pub(super) fn check_slug(slug: &str) -> Result<(), JoinError> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let fits = (1..=SLUG_CHARACTERS_MAX).contains(&slug.chars().count());
    if fits && !slug.starts_with(['-', '.']) && slug.chars().all(is_plain) {
        Ok(())
    } else {
        Err(JoinError::BadSlug(slug.to_owned()))
    }
}

/// The token of `http(s)://…/join/<token>`, `ic://join/<token>`, or of nothing around it.
fn token(link: &str) -> Result<&str, JoinError> {
    let link = link.trim();
    if link.is_empty() || link.len() > LINK_BYTES_MAX {
        return Err(JoinError::BadLink);
    }
    let Some((scheme, rest)) = link.split_once("://") else {
        return if link.contains(['/', ' ']) { Err(JoinError::BadLink) } else { Ok(link) };
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let token = match scheme.to_ascii_lowercase().as_str() {
        "ic" => rest.strip_prefix("join/"),
        "http" | "https" if rest.contains("/i/") => return Err(JoinError::ShortLink),
        "http" | "https" => rest.split_once("/join/").map(|(_, token)| token),
        _ => None,
    };
    token.filter(|token| !token.is_empty() && !token.contains('/')).ok_or(JoinError::BadLink)
}

impl JoinAddress {
    /// `ws://host:port/…` is `http://host:port/join`.
    fn of(broker_url: &str) -> Result<Self, JoinError> {
        let bad = |expected: &str| JoinError::bad_field("broker_url", expected);
        if broker_url.starts_with("wss://") {
            return Err(JoinError::TlsUnsupported { broker: broker_url.to_owned() });
        }
        let rest = broker_url
            .strip_prefix("ws://")
            .ok_or_else(|| bad("must begin with ws:// or wss://"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or_else(|| bad("has an unclosed bracket"))?,
            None => match authority.rfind(':') {
                Some(colon) => authority.split_at(colon),
                None => (authority, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => WS_PORT,
            digits => digits
                .and_then(|digits| digits.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| bad("must have a port from 1 to 65535"))?,
        };
        if host.is_empty() || host.contains(['@', ' ']) {
            return Err(bad("must name a host"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path: "/join".to_owned(),
        })
    }
}
