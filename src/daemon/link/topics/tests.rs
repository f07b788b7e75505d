//! Names of topics against the broker's list.

use super::*;
use serde_json::Map;

const ANSWER_MAX: Duration = Duration::from_secs(15);

fn find(topics: &Topics, name: &str, at_s: u64) -> Lookup {
    topics.find(name, Duration::from_secs(at_s), ANSWER_MAX)
}

fn topic(name: &str, id: &str) -> Topic {
    Topic { id: id.into(), name: name.into(), rest: Map::new() }
}

#[test]
fn a_topic_is_missing_only_in_a_list_that_came_after_it_was_looked_for() {
    let topics = Topics::new();
    assert_eq!(find(&topics, "ops", 0), Lookup::NotYet { ask: true });
    assert_eq!(find(&topics, "ops", 1), Lookup::NotYet { ask: false });
    topics.learned(&[topic("ops", "Tp1")]);
    assert_eq!(find(&topics, "ops", 2), Lookup::Id("Tp1".into()));
    assert_eq!(find(&topics, "Tp1", 2), Lookup::Id("Tp1".into()));
    // It may have been created since that list.
    assert_eq!(find(&topics, "new", 2), Lookup::NotYet { ask: true });
    topics.learned(&[topic("ops", "Tp1"), topic("new", "Tp2")]);
    assert_eq!(find(&topics, "new", 3), Lookup::Id("Tp2".into()));
    assert_eq!(find(&topics, "none", 3), Lookup::NotYet { ask: true });
    topics.learned(&[]);
    assert_eq!(find(&topics, "none", 4), Lookup::Missing);
    assert_eq!(find(&topics, "none", 4), Lookup::NotYet { ask: true });
}

#[test]
fn a_list_that_never_comes_is_asked_for_again_and_names_are_bounded() {
    let topics = Topics::new();
    assert_eq!(find(&topics, "ops", 0), Lookup::NotYet { ask: true });
    assert_eq!(find(&topics, "ops", 14), Lookup::NotYet { ask: false });
    assert_eq!(find(&topics, "ops", 15), Lookup::NotYet { ask: true });
    for number in 0..2 * WANTED_MAX {
        find(&topics, &number.to_string(), 16);
    }
    assert_eq!(topics.lock().wanted.len(), WANTED_MAX);
}
