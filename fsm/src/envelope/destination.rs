//! The address grammar: whom a caller may write to, and how that is stored, hashed and routed.

use super::Encryption;
use alloc::string::String;

/// Whether a destination is one member or many (the `kind` of §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DestinationKind {
    /// One member: a public key or a name.
    Dm,
    /// A `#topic`, an `@group` or `*`.
    Topic,
}

impl DestinationKind {
    /// The word that is hashed and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dm => "dm",
            Self::Topic => "topic",
        }
    }
}

/// A destination as the caller wrote it, classified by its first character (§4.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A member's public key (lowercase), or a name to be resolved.
    Member(String),
    /// `@group`, without the `@`.
    Group(String),
    /// `#topic`, without the `#`.
    Topic(String),
    /// `*`, which may also be written `@all`: every member of the mesh.
    Everyone,
    /// Nobody knows where: a row of an earlier daemon that did not record it (§4.5.2). Never the
    /// destination of a row that waits to be sent.
    Unrecorded,
}

/// Why `to` names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationError {
    /// Nothing is left after trimming, or only the sigil.
    Empty,
    /// Has a control character.
    ControlCharacter,
    /// A group whose name begins with `*` or `#`.
    ReservedGroup,
}

/// The other way to write `*`. It is a group in the grammar alone: every broker takes it for
/// everyone, so that no group can have this name.
const EVERYONE_AS_GROUP: &str = "@all";

impl Destination {
    /// Classifies `to` (§3.3) as a caller wrote it: blanks around it do not count, and what nobody
    /// could mean is refused.
    ///
    /// # Errors
    /// When `to` is blank, a bare sigil, has a control character, or is `@*…` or `@#…`.
    pub fn parse(to: &str) -> Result<Self, DestinationError> {
        match Self::parse_exact(to.trim())? {
            // `@*` and `@#t` would be stored, and hashed, as `*` and `#t`.
            Self::Group(name) if name.starts_with(['*', '#']) => {
                Err(DestinationError::ReservedGroup)
            }
            Self::Group(name) | Self::Topic(name) if name.trim().is_empty() => {
                Err(DestinationError::Empty)
            }
            destination => Ok(destination),
        }
    }

    /// Classifies what a frame is addressed to, to the letter. A 64-hex public key is lowercased; a
    /// name keeps its case. This is the only reader of the address grammar.
    ///
    /// # Errors
    /// When `spec` is empty, a bare sigil, or has a control character.
    pub fn parse_exact(spec: &str) -> Result<Self, DestinationError> {
        if spec.chars().any(char::is_control) {
            return Err(DestinationError::ControlCharacter);
        }
        if spec == "*" || spec == EVERYONE_AS_GROUP {
            return Ok(Self::Everyone);
        }
        match spec.split_at_checked(1) {
            Some(("@" | "#", "")) => Err(DestinationError::Empty),
            Some(("@", name)) => Ok(Self::Group(name.into())),
            Some(("#", name)) => Ok(Self::Topic(name.into())),
            _ if spec.is_empty() => Err(DestinationError::Empty),
            _ if is_public_key(spec) => Ok(Self::Member(spec.to_ascii_lowercase())),
            _ => Ok(Self::Member(spec.into())),
        }
    }

    /// Rebuilds a destination from its stored pair; `None` if no destination has that pair.
    #[must_use]
    pub fn restore(kind: &str, reference: &str) -> Option<Self> {
        match (kind, reference.as_bytes().first()) {
            ("dm", None) => Some(Self::Unrecorded),
            ("dm", Some(_)) => Some(Self::Member(reference.into())),
            ("topic", Some(b'*')) if reference.len() == 1 => Some(Self::Everyone),
            ("topic", Some(b'#')) => Some(Self::Topic(reference[1..].into())),
            ("topic", Some(_)) => Some(Self::Group(reference.into())),
            _ => None,
        }
    }

    /// The `kind` half of what is hashed and stored.
    #[must_use]
    pub const fn kind(&self) -> DestinationKind {
        match self {
            Self::Member(_) | Self::Unrecorded => DestinationKind::Dm,
            Self::Group(_) | Self::Topic(_) | Self::Everyone => DestinationKind::Topic,
        }
    }

    /// The `ref` half of what is hashed and stored: `@g` → `g`, `#t` → `#t`, `*` → `*`; empty for
    /// [`Unrecorded`](Self::Unrecorded).
    #[must_use]
    pub fn reference(&self) -> String {
        match self {
            Self::Member(name) | Self::Group(name) => name.clone(),
            Self::Topic(name) => alloc::format!("#{name}"),
            Self::Everyone => "*".into(),
            Self::Unrecorded => String::new(),
        }
    }

    /// The destination as a caller writes it.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Group(name) => alloc::format!("@{name}"),
            _ => self.reference(),
        }
    }

    /// How a message to it travels (§3.7): sealed for one member, in clear for many.
    #[must_use]
    pub const fn encryption(&self) -> Encryption {
        match self {
            Self::Member(_) => Encryption::Direct,
            Self::Group(_) | Self::Topic(_) | Self::Everyone | Self::Unrecorded => Encryption::None,
        }
    }

    /// Whether one member receives it, sealed end to end (§3.7).
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Member(_))
    }
}

/// Whether text is a member's public key: 64 hex digits in any case.
#[must_use]
pub fn is_public_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
