//! What the existing TypeScript daemon left behind (§4.5.2, `specs/legacy.md`): its databases, in
//! every shape its versions gave them, are taken over in place, and no row is lost.

mod home;
mod inbox;
mod outbox;
mod refused;

use crate::support::snap::pin_as_is;
use crate::support::theirs::Columns;
use std::fmt::Write;

/// The subject of the snapshots.
const SUBJECT: &str = "legacy";
const BOB: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

/// Pins rows, a column a line.
fn pin_rows(name: &str, rows: &[Columns]) {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{}", row["id"]);
        for (column, value) in row.iter().filter(|(column, _)| *column != "id") {
            let _ = writeln!(text, "  {column}: {value}");
        }
    }
    pin_as_is!(SUBJECT, name, &text);
}

/// Every row is there, in order, and says the same in these columns.
fn assert_kept(before: &[Columns], after: &[Columns], columns: &[&str]) {
    assert_eq!(before.len(), after.len(), "rows");
    for (theirs, ours) in before.iter().zip(after) {
        for column in columns {
            assert_eq!(theirs.get(*column), ours.get(*column), "{column} of {}", theirs["id"]);
        }
    }
}
