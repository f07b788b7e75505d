//! Identifiers and instants, parsed once at the edge and trusted afterwards.
//!
//! A value of one of these types has passed its check; no other code repeats it.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// The longest `client_message_id`, in bytes (§3.3).
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 255;

/// A point in time as Unix milliseconds, the unit of every database column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// This instant moved later by `duration_ms`; saturates instead of wrapping.
    #[must_use]
    pub const fn plus(self, duration_ms: u64) -> Self {
        let duration_ms = if duration_ms > i64::MAX as u64 { i64::MAX } else { duration_ms as i64 };
        Self(self.0.saturating_add(duration_ms))
    }

    /// Milliseconds from `earlier` to this instant; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        let difference = self.0.saturating_sub(earlier.0);
        if difference < 0 { 0 } else { difference as u64 }
    }
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Wraps text that is already known to be one of these: read back from our own
            /// database, or minted by us.
            #[must_use]
            pub fn trusted(text: String) -> Self {
                Self(text)
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The identifier as owned text.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// Names one row of the outbox; ours, never sent to a broker.
    RowId
}
text_id! {
    /// The caller's name for a message (§4.2): the key every layer deduplicates on.
    ClientMessageId
}
text_id! {
    /// The broker's name for a message it accepted.
    BrokerMessageId
}

/// Why text is not a `client_message_id`. The text of each is the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdError {
    /// Nothing is left after trimming.
    Empty,
    /// Longer than [`CLIENT_MESSAGE_ID_BYTES_MAX`].
    TooLong,
    /// Has a byte outside `!`…`~`.
    BadCharacter,
    /// Is `.` or `..`, which no URL path can carry.
    DotSegment,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "must not be empty",
            Self::TooLong => "must be at most 255 characters",
            Self::BadCharacter => {
                "must be visible ASCII characters only (0x21 to 0x7E, no spaces inside)"
            }
            Self::DotSegment => "must not be `.` or `..`",
        })
    }
}

impl core::error::Error for IdError {}

impl ClientMessageId {
    /// Parses a caller's id: trimmed, 1 to 255 characters 0x21–0x7E, not `.` or `..` (§3.3).
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > CLIENT_MESSAGE_ID_BYTES_MAX {
            return Err(IdError::TooLong);
        }
        if !text.bytes().all(|byte| (0x21..=0x7E).contains(&byte)) {
            return Err(IdError::BadCharacter);
        }
        if text == "." || text == ".." {
            return Err(IdError::DotSegment);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The SHA-256 that binds an id to one request (§4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A fingerprint from its 32 raw bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fingerprint from stored bytes; `None` unless there are exactly 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A fingerprint from 64 hex digits, as it travels on the wire.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The 32 raw bytes, as stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 bytes in hex: the *prefix* shown to people (§4.4).
    #[must_use]
    pub fn prefix(&self) -> String {
        hex(&self.0[..8])
    }

    /// All 32 bytes in hex, as sent on the wire.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0x0F)]));
    }
    text
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests;
