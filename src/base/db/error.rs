//! What can go wrong with a database, reduced to what callers decide on.

use std::fmt;

/// The kinds of failure callers treat differently. SQLite's primary result codes suffice to tell
/// them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The writer's queue is full.
    Busy,
    /// The database was closed.
    Closed,
    /// The disk is full.
    Full,
    /// The file system failed.
    Io,
    /// The file is damaged, or is no database.
    Corrupt,
    /// A uniqueness or check constraint refused the row.
    Constraint,
    /// The file was written by a newer version.
    Newer,
    /// The file has tables but not our schema.
    Foreign,
    /// Another program has the file open.
    InUse,
    /// Anything else: a bug in a statement, mostly.
    Other,
}

/// A database failure: its kind, and SQLite's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    /// The file is damaged, as opposed to a row that makes no sense.
    is_damage: bool,
}

impl Error {
    /// An error of `kind`, explained by `message`.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), is_damage: false }
    }

    /// The stored data is not what the schema allows.
    #[must_use]
    pub fn corrupt(message: impl fmt::Display) -> Self {
        Self::new(Kind::Corrupt, message.to_string())
    }

    /// The file itself is damaged: nothing may be written to it any more.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self { is_damage: true, ..Self::new(Kind::Corrupt, message) }
    }

    pub(super) const fn is_damage(&self) -> bool {
        self.is_damage
    }

    pub(super) fn busy() -> Self {
        Self::new(Kind::Busy, "the writer's queue is full")
    }

    pub(super) fn closed() -> Self {
        Self::new(Kind::Closed, "the database is closed")
    }

    /// What kind of failure this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the connection may be left in a state that only reopening it repairs.
    pub(super) const fn wants_reopening(&self) -> bool {
        matches!(self.kind, Kind::Full | Kind::Io | Kind::Corrupt)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Self {
        const BUSY: isize = 5;
        const IOERR: isize = 10;
        const CORRUPT: isize = 11;
        const FULL: isize = 13;
        const CANTOPEN: isize = 14;
        const CONSTRAINT: isize = 19;
        const NOTADB: isize = 26;
        const PRIMARY: isize = 0xFF;
        let kind = match error.code.map(|code| code & PRIMARY) {
            Some(BUSY) => Kind::InUse,
            Some(IOERR | CANTOPEN) => Kind::Io,
            Some(CORRUPT | NOTADB) => Kind::Corrupt,
            Some(FULL) => Kind::Full,
            Some(CONSTRAINT) => Kind::Constraint,
            _ => Kind::Other,
        };
        let message = match kind {
            Kind::Full => format!("the disk is full ({error}): free some space"),
            _ => error.to_string(),
        };
        Self { kind, message, is_damage: kind == Kind::Corrupt }
    }
}
