//! Pages of the inbox, newest first.

use super::{Inbox, StoredMessage, read};
use claudemesh_base::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// Which messages to show, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InboxFilter {
    /// Only this mesh.
    pub mesh: Option<String>,
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this sender: session key or member key.
    pub from: Option<String>,
    /// Only messages received at or after this instant.
    pub since: Option<Millis>,
    /// Only messages not marked as seen.
    pub unread_only: bool,
    /// Only messages before this place.
    pub before_seq: Option<i64>,
    /// At most this many.
    pub limit: usize,
    /// A page ends once its bodies weigh this much.
    pub bytes_max: usize,
}

/// A page of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Where the next page begins, if there is more.
    pub next_before_seq: Option<i64>,
}

impl Inbox {
    /// A page of messages.
    pub async fn list(&self, query: InboxFilter) -> Result<InboxPage, Error> {
        self.db.read(move |tx| list_in(tx, &query)).await
    }
}

/// SQL: a page of messages; `$narrower` is one more condition, written out so that an index of just
/// those serves it.
macro_rules! page {
    ($narrower:literal) => {
        columns!(
            "WHERE seq < ?1 AND (?2 IS NULL OR mesh = ?2) AND (?3 IS NULL OR topic = ?3) \
             AND (?4 IS NULL OR sender_pubkey = ?4 OR sender_member_pubkey = ?4) \
             AND received_at >= ?5 ",
            $narrower,
            " ORDER BY seq DESC LIMIT ?6"
        )
    };
}
const PAGE: &str = page!("");
const UNREAD_PAGE: &str = page!("AND seen_at IS NULL");

fn list_in(tx: &Tx<'_>, query: &InboxFilter) -> Result<InboxPage, Error> {
    let sql = if query.unread_only { UNREAD_PAGE } else { PAGE };
    // One more than asked for tells whether there is a next page.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX - 1) + 1;
    let params = [
        query.before_seq.unwrap_or(i64::MAX).into(),
        query.mesh.as_deref().into(),
        query.topic.as_deref().into(),
        query.from.as_deref().into(),
        query.since.map_or(i64::MIN, |since| since.0).into(),
        limit.into(),
    ];
    let mut messages = tx.query(sql, &params, read)?;
    let fits = fitting(&messages, query);
    let more = messages.len() > fits;
    messages.truncate(fits);
    let next_before_seq = if more { messages.last().map(|message| message.seq) } else { None };
    Ok(InboxPage { messages, next_before_seq })
}

/// How many messages a page holds: the limit, or fewer once their bodies weigh `bytes_max`. One is
/// always shown, or paging would stop at a large one.
fn fitting(messages: &[StoredMessage], query: &InboxFilter) -> usize {
    let mut bytes = 0;
    let heavy = messages.iter().position(|message| {
        bytes += message.content.body.as_ref().map_or(0, String::len);
        bytes > query.bytes_max
    });
    heavy.unwrap_or(messages.len()).max(1).min(query.limit).min(messages.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudemesh_base::db::{Driver, Param};

    #[test]
    fn unread_messages_are_found_by_their_index() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let inbox = Inbox::open(&dir.path().join("inbox.db"), Driver::Threaded).expect("opens");
        let explain = |tx: &Tx<'_>| {
            let sql = concat!("EXPLAIN QUERY PLAN ", page!("AND seen_at IS NULL"));
            let params =
                [i64::MAX.into(), Param::Null, Param::Null, Param::Null, 0.into(), 9.into()];
            tx.query(sql, &params, |row| row.text(3))
        };
        let plan: Vec<String> = smol::block_on(inbox.db.read(explain)).expect("explains");
        assert!(plan[0].contains("inbox_unread"), "{plan:?}");
        assert_eq!(plan.len(), 1, "nothing is sorted: {plan:?}");
    }
}
