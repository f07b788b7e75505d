//! The damaged database: read only, and every statement may fail anywhere.

use super::target::Shape;
use claudemesh_base::db::{Error, Kind, Migrations, Tx, files};
use sqlite::{Connection, State, Statement, Value};
use std::collections::HashSet;
use std::path::Path;

/// A schema that is newer by more than this is none, but damage.
const NEWER_MAX: i64 = 100;

/// The damaged database.
pub(super) struct Source {
    connection: Connection,
    bytes: u64,
}

/// Which rows the indexes know.
pub(super) struct Known {
    pub(super) numbers: HashSet<i64>,
    /// Whether an index that has every row could be read to its end.
    pub(super) is_complete: bool,
}

impl Source {
    /// Opens it. The inner error says why nothing of it can be read.
    ///
    /// # Errors
    /// When it is of a newer version: what it holds is not ours to judge.
    pub(super) fn open(path: &Path, migrations: &Migrations) -> Result<Result<Self, Error>, Error> {
        let bytes = files::size_bytes(path) + files::size_bytes(&files::companion(path, "-wal"));
        let connection = match files::connect_read_only(path) {
            Ok(connection) => connection,
            Err(error) => return Ok(Err(error)),
        };
        let newest = migrations.steps.len() as i64;
        let version = Tx::new(&connection).query_row("PRAGMA user_version", &[], |row| row.int(0));
        match version {
            Ok(Some(version)) if (newest + 1..=newest + NEWER_MAX).contains(&version) => {
                let text = format!(
                    "{} is of schema {version}, and this program knows schemas up to {newest}: upgrade claudemesh. The file was not touched",
                    path.display(),
                );
                Err(Error::new(Kind::Newer, text))
            }
            Ok(_) => Ok(Ok(Self { connection, bytes })),
            Err(error) => Ok(Err(error)),
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The numbers of rows that the indexes have, read from both ends of each.
    pub(super) fn numbers_in_indexes(&self, table: &Shape) -> Known {
        let mut known = Known { numbers: HashSet::new(), is_complete: false };
        for index in &table.indexes {
            let mut read = |order: &str| -> Result<(), Error> {
                let sql = format!(
                    "SELECT rowid AS k FROM {} INDEXED BY {} ORDER BY {} {order}",
                    quoted(&table.name),
                    quoted(&index.name),
                    quoted(&index.first_column),
                );
                let mut statement = self.connection.prepare(sql)?;
                while statement.next()? == State::Row {
                    known.numbers.insert(statement.read::<i64, _>(0)?);
                }
                Ok(())
            };
            if read("ASC").is_ok() {
                known.is_complete |= !index.is_partial;
            } else {
                // What an unreadable index does not say, the table may.
                let _ = read("DESC");
            }
        }
        known
    }

    pub(super) fn reader(&self, table: &Shape) -> Result<Reader<'_>, Error> {
        let from = format!("{} FROM {} NOT INDEXED", columns(table), quoted(&table.name));
        let name = quoted(&table.name);
        let scan =
            format!("SELECT rowid AS k FROM {name} NOT INDEXED WHERE rowid >= ? ORDER BY rowid");
        let look_up = format!("SELECT {from} WHERE rowid = ?");
        let column = |name: &String| {
            let (name, table) = (quoted(name), quoted(&table.name));
            let sql = format!("SELECT {name} AS c FROM {table} NOT INDEXED WHERE rowid = ?");
            self.connection.prepare(sql)
        };
        Ok(Reader {
            scan: self.connection.prepare(scan)?,
            // A damaged schema may have other names for some columns: those are lost alone.
            look_up: self.connection.prepare(look_up).ok(),
            columns: table.columns.iter().map(|name| column(name).ok()).collect(),
        })
    }

    /// Reads a table without row numbers, until its end or the damage.
    pub(super) fn scan_keys(
        &self,
        table: &Shape,
        backwards: bool,
        take: &mut dyn FnMut(Vec<Value>) -> Result<(), Error>,
    ) -> Result<Result<(), Error>, Error> {
        let order = if backwards { "DESC" } else { "ASC" };
        let keys: Vec<String> =
            table.keys.iter().map(|key| format!("{} {order}", quoted(key))).collect();
        let sql = format!(
            "SELECT {} FROM {} NOT INDEXED ORDER BY {}",
            self.known_columns(table),
            quoted(&table.name),
            keys.join(", ")
        );
        let mut statement = match self.connection.prepare(sql) {
            Ok(statement) => statement,
            Err(error) => return Ok(Err(error.into())),
        };
        loop {
            match statement.next() {
                Ok(State::Done) => return Ok(Ok(())),
                Ok(State::Row) => match values(&statement) {
                    Ok(values) => take(values)?,
                    Err(error) => return Ok(Err(error)),
                },
                Err(error) => return Ok(Err(error.into())),
            }
        }
    }

    /// As [`columns`]; in place of one that an older schema did not have, what it would have become.
    fn known_columns(&self, table: &Shape) -> String {
        let is_known = |name: &str| {
            let sql = format!("SELECT {} FROM {}", quoted(name), quoted(&table.name));
            self.connection.prepare(sql).is_ok()
        };
        let expression = |name: &String| {
            if is_known(name) { quoted(name) } else { table.default_of(name).to_owned() }
        };
        let named = table.columns.iter().enumerate();
        let named: Vec<String> =
            named.map(|(place, name)| format!("{} AS c{place}", expression(name))).collect();
        named.join(", ")
    }

    /// How far the numbers of each table got that never uses one twice.
    pub(super) fn sequences(&self) -> Vec<(String, i64)> {
        let read = || -> Result<Vec<(String, i64)>, Error> {
            let sql = "SELECT name AS n, seq AS s FROM sqlite_sequence";
            let mut statement = self.connection.prepare(sql)?;
            let mut sequences = Vec::new();
            while statement.next()? == State::Row {
                sequences.push((statement.read(0)?, statement.read(1)?));
            }
            Ok(sequences)
        };
        read().unwrap_or_default()
    }
}

/// The statements that read one table.
pub(super) struct Reader<'c> {
    scan: Statement<'c>,
    look_up: Option<Statement<'c>>,
    /// One for each column that the schema still knows.
    columns: Vec<Option<Statement<'c>>>,
}

/// A row that was looked up.
pub(super) struct Found {
    /// Its columns; NULL where one cannot be read.
    pub(super) values: Vec<Value>,
    /// Whether every column could be read.
    pub(super) is_whole: bool,
}

impl Reader<'_> {
    /// The numbers of the rows from `next` on, and the damage they end at, if they do. What a scan
    /// shows of a damaged page may be no row at all: who wants the row looks it up.
    pub(super) fn scan(&mut self, next: i64) -> (Vec<i64>, Option<Error>) {
        let mut numbers = Vec::new();
        let damage = self.scan_into(next, &mut numbers).err();
        (numbers, damage)
    }

    fn scan_into(&mut self, next: i64, numbers: &mut Vec<i64>) -> Result<(), Error> {
        // Says again what its last step said.
        let _ = self.scan.reset();
        self.scan.bind((1, next))?;
        while self.scan.next()? == State::Row {
            numbers.push(self.scan.read::<i64, _>(0)?);
        }
        Ok(())
    }

    /// The row of this number. A row lies on several pages if it is large: where one of them cannot
    /// be read, the columns on the others can.
    pub(super) fn look_up(&mut self, number: i64) -> Result<Option<Found>, Error> {
        match self.look_up.as_mut().map(|look_up| values_of(look_up, number)) {
            Some(Ok(found)) => Ok(found.map(|values| Found { values, is_whole: true })),
            Some(Err(_)) | None => self.look_up_columns(number),
        }
    }

    fn look_up_columns(&mut self, number: i64) -> Result<Option<Found>, Error> {
        let mut values = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter_mut().enumerate() {
            let Some(column) = column else {
                // The number is the first column, where a table has one.
                values.push(if place == 0 { Value::Integer(number) } else { Value::Null });
                continue;
            };
            match values_of(column, number) {
                Ok(Some(mut value)) => values.append(&mut value),
                Ok(None) => return Ok(None),
                // Without its first column it is no row.
                Err(error) if place == 0 => return Err(error),
                Err(_) => values.push(Value::Null),
            }
        }
        Ok(Some(Found { values, is_whole: false }))
    }
}

/// What a statement finds under a number.
fn values_of(statement: &mut Statement<'_>, number: i64) -> Result<Option<Vec<Value>>, Error> {
    // Says again what its last step said.
    let _ = statement.reset();
    statement.bind((1, number))?;
    match statement.next()? {
        State::Done => Ok(None),
        State::Row => values(statement).map(Some),
    }
}

/// Every column, as it is stored.
fn values(statement: &Statement<'_>) -> Result<Vec<Value>, Error> {
    (0..statement.column_count())
        .map(|column| statement.read::<Value, _>(column).map_err(Error::from))
        .collect()
}

/// A table's columns under names of ours: those in a damaged schema may be no text.
fn columns(table: &Shape) -> String {
    let named = table.columns.iter().enumerate();
    let named: Vec<String> =
        named.map(|(place, name)| format!("{} AS c{place}", quoted(name))).collect();
    named.join(", ")
}

/// A name as SQL takes it, whatever is in it. Names come from our own schema alone.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
