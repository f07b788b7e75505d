//! The new database: ours, empty, and written by nobody else.

use super::source::quoted;
use claudemesh_base::db::{Check, Error, Kind, check};
use sqlite::{Connection, State, Statement, Value};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// How many rows share a transaction.
const BATCH_MAX: usize = 1000;
/// A number beyond this was never counted up to.
const SEQUENCE_MAX: i64 = 1 << 53;

/// A table of the schema.
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// What each column has where nothing is said, as SQL.
    defaults: Vec<Option<String>>,
    /// The columns of its primary key, in order.
    pub(super) keys: Vec<String>,
    /// Whether its rows have numbers.
    pub(super) has_numbers: bool,
    pub(super) indexes: Vec<Index>,
}

impl Shape {
    /// What a row has in this column where it was written before there was one, as SQL.
    pub(super) fn default_of(&self, column: &str) -> &str {
        let place = self.columns.iter().position(|name| name == column);
        place.and_then(|place| self.defaults[place].as_deref()).unwrap_or("NULL")
    }
}

/// One of its indexes.
pub(super) struct Index {
    pub(super) name: String,
    pub(super) first_column: String,
    pub(super) is_partial: bool,
}

/// The new database.
pub(super) struct Target {
    connection: Connection,
}

/// A table that is being filled.
pub(super) struct Table<'c> {
    connection: &'c Connection,
    insert: Statement<'c>,
    names: Arc<[String]>,
    has_numbers: bool,
    /// What a new database has in it from the start; it makes way for the first row.
    seeds: Option<String>,
    in_batch: usize,
}

impl Target {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let connection = Connection::open(path)?;
        // Nobody relies on it until it is finished, so it is synced once, at the end.
        connection.execute(
            "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY;",
        )?;
        Ok(Self { connection })
    }

    pub(super) fn tables(&self) -> Result<Vec<Shape>, Error> {
        let sql = "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' \
                   AND type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
        let rows = self.rows(sql, |row| Ok((row.read(0)?, row.read::<i64, _>(1)? == 0)))?;
        rows.into_iter().map(|(name, has_numbers)| self.shape(name, has_numbers)).collect()
    }

    fn shape(&self, name: String, has_numbers: bool) -> Result<Shape, Error> {
        let table = quoted(&name);
        let columns: Vec<(String, i64, Option<String>)> = self
            .rows(&format!("PRAGMA table_info({table})"), |row| {
                Ok((row.read(1)?, row.read(5)?, row.read(4)?))
            })?;
        let mut keys: Vec<(i64, String)> = columns
            .iter()
            .filter(|(_, key, _)| *key > 0)
            .map(|(name, key, _)| (*key, name.clone()))
            .collect();
        keys.sort();
        let listed: Vec<(String, i64)> = self
            .rows(&format!("PRAGMA index_list({table})"), |row| Ok((row.read(1)?, row.read(4)?)))?;
        let mut indexes = Vec::new();
        for (index, partial) in listed {
            let sql = format!("PRAGMA index_info({})", quoted(&index));
            let columns: Vec<Option<String>> = self.rows(&sql, |row| row.read(2))?;
            if let Some(Some(first_column)) = columns.into_iter().next() {
                indexes.push(Index { name: index, first_column, is_partial: partial != 0 });
            }
        }
        Ok(Shape {
            name,
            defaults: columns.iter().map(|(_, _, default)| default.clone()).collect(),
            columns: columns.into_iter().map(|(name, _, _)| name).collect(),
            keys: keys.into_iter().map(|(_, name)| name).collect(),
            has_numbers,
            indexes,
        })
    }

    pub(super) fn table(&self, shape: &Shape) -> Result<Table<'_>, Error> {
        let names: Vec<String> = shape.columns.iter().map(|name| quoted(name)).collect();
        let places = vec!["?"; names.len()].join(", ");
        // A table that is read from both ends may give a row twice.
        let or = if shape.has_numbers { "" } else { "OR IGNORE " };
        let table = quoted(&shape.name);
        let sql = format!("INSERT {or}INTO {table} ({}) VALUES ({places})", names.join(", "));
        let seeds: Vec<i64> =
            self.rows(&format!("SELECT count(*) FROM {table}"), |row| row.read(0))?;
        Ok(Table {
            connection: &self.connection,
            insert: self.connection.prepare(sql)?,
            names: shape.columns.clone().into(),
            has_numbers: shape.has_numbers,
            seeds: (seeds != [0]).then(|| format!("DELETE FROM {table}")),
            in_batch: 0,
        })
    }

    /// Numbers that were given away are not given again, even if their rows are lost.
    pub(super) fn continue_sequences(&self, sequences: &[(String, i64)]) -> Result<(), Error> {
        for (table, number) in sequences.iter().filter(|(_, number)| *number < SEQUENCE_MAX) {
            let known = "SELECT 1 FROM pragma_table_list WHERE name = ?1 AND EXISTS \
                         (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')";
            let mut known = self.connection.prepare(known)?;
            known.bind((1, table.as_str()))?;
            if known.next()? == State::Done {
                continue;
            }
            for sql in [
                "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, ?2 WHERE NOT EXISTS \
                 (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
                "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1",
            ] {
                let mut statement = self.connection.prepare(sql)?;
                statement.bind((1, table.as_str()))?;
                statement.bind((2, *number))?;
                statement.next()?;
            }
        }
        Ok(())
    }

    /// Makes it one whole file on stable storage.
    pub(super) fn finish(self, sql: &str, path: &Path) -> Result<(), Error> {
        self.connection.execute(sql)?;
        if let Check::Damaged(findings) = check::quick_check(&self.connection)? {
            return Err(Error::damaged(format!("the new database is not whole: {findings}")));
        }
        drop(self.connection);
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| {
            Error::new(Kind::Io, format!("cannot sync {}: {error}", path.display()))
        })
    }

    fn rows<T>(
        &self,
        sql: &str,
        read: impl Fn(&Statement<'_>) -> sqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = Vec::new();
        while statement.next()? == State::Row {
            rows.push(read(&statement)?);
        }
        Ok(rows)
    }
}

impl Table<'_> {
    pub(super) fn names(&self) -> Arc<[String]> {
        self.names.clone()
    }

    pub(super) const fn has_numbers(&self) -> bool {
        self.has_numbers
    }

    /// Stores a row; says whether it was new.
    pub(super) fn insert(&mut self, values: &[Value]) -> Result<bool, Error> {
        if self.in_batch == 0 {
            self.connection.execute("BEGIN")?;
        }
        if let Some(sql) = self.seeds.take() {
            self.connection.execute(sql)?;
        }
        self.in_batch += 1;
        for (place, value) in values.iter().enumerate() {
            self.insert.bind((place + 1, value))?;
        }
        let stored = self.insert.next();
        // Says again what the step said.
        let _ = self.insert.reset();
        let is_new = self.connection.change_count() > 0;
        if self.in_batch >= BATCH_MAX {
            self.commit()?;
        }
        stored?;
        Ok(is_new)
    }

    pub(super) fn commit(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.in_batch) > 0 {
            self.connection.execute("COMMIT")?;
        }
        Ok(())
    }
}
