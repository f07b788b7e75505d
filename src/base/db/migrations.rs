//! A database's schema as numbered forward steps (§4.5.2).

use super::{Adoption, Error};
use sqlite::Connection;

/// A database's schema: step `n` takes it from version `n` to `n + 1`.
#[derive(Debug)]
pub struct Migrations {
    /// What the database holds, for messages and the thread's name.
    pub name: &'static str,
    /// Forward steps, each run in one transaction.
    pub steps: &'static [&'static str],
    /// Another program's database that may be found in this one's place, if any may.
    pub adoption: Option<&'static Adoption>,
}

pub(super) fn migrate(
    connection: &Connection,
    migrations: &Migrations,
    version: usize,
) -> Result<(), Error> {
    let name = migrations.name;
    for (step, sql) in migrations.steps.iter().enumerate().skip(version) {
        let to = step + 1;
        let whole = format!("BEGIN IMMEDIATE; {sql}; PRAGMA user_version = {to}; COMMIT;");
        if let Err(error) = connection.execute(whole) {
            // Fails only where the step already rolled back by itself.
            let _ = connection.execute("ROLLBACK");
            let error = Error::from(error);
            let text = format!("cannot bring the {name} to schema {to}: {error}");
            return Err(Error::new(error.kind(), text));
        }
    }
    Ok(())
}
