//! What the pages name is there: routes, keys of `config.toml`, metrics. The program itself is
//! asked, so that no table of it has to be found.

use crate::support::rig::{Broker, Daemon, Home, exchange, get};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;

/// What is named and not there: its kind, and why.
const NOT_THERE: &[(&str, &str, &str)] =
    &[("key", "outbox.max_age_hour", "an example of a mistake")];

/// Every page that a reader may take for a promise; the roadmap makes none.
fn pages() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(root.join("README.md")).expect("reads");
    for entry in std::fs::read_dir(root.join("specs")).expect("reads").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is planned, what once was, and what others made.
        let is_other = ["roadmap.md", "history.md", "legacy.md"];
        if name.ends_with(".md") && !is_other.contains(&name.as_str()) {
            text += &std::fs::read_to_string(entry.path()).expect("reads");
        }
    }
    text
}

/// Every place where a text goes on with `prefix`, up to the first letter that does not belong.
fn words(text: &str, prefix: &str, belongs: impl Fn(char) -> bool) -> BTreeSet<String> {
    let after = text.split(prefix).skip(1);
    let end = |rest: &str| rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    after.map(|rest| format!("{prefix}{}", &rest[..end(rest)])).collect()
}

/// Fails with what is named and not there, and with what is listed and should not be any more.
fn compare(kind: &str, named: &BTreeSet<String>, is_there: impl Fn(&str) -> bool) {
    assert!(!named.is_empty(), "no {kind} was found");
    let missing: BTreeSet<&str> =
        named.iter().map(String::as_str).filter(|name| !is_there(name)).collect();
    let of_kind = NOT_THERE.iter().filter(|(listed, ..)| *listed == kind);
    let listed: BTreeSet<&str> = of_kind.map(|(_, name, _)| *name).collect();
    let unlisted: Vec<_> = missing.difference(&listed).collect();
    assert!(unlisted.is_empty(), "pages name a {kind} that is not there: {unlisted:#?}");
    let stale: Vec<_> = listed.difference(&missing).collect();
    assert!(stale.is_empty(), "no page names this {kind} in vain: take it off the list: {stale:?}");
}

#[test]
fn every_route_of_the_pages_is_served() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let named: BTreeSet<String> =
        words(&pages(), "/v1/", |c| c.is_ascii_lowercase() || "_./{}".contains(c))
            .into_iter()
            .map(|route| route.trim_end_matches(['/', '.']).to_owned())
            .filter(|route| route != "/v1")
            .collect();
    compare("route", &named, |route| {
        let part =
            |part: &str| if part.contains(['{', '}']) { "x".into() } else { part.to_owned() };
        let path: Vec<String> = route.split('/').map(part).collect();
        // No route takes this method: what is served says so, what is not is not found.
        let ask = |path: &str| {
            let request = get(path).replacen("GET", "BREW", 1);
            daemon.try_request(&request).expect("answers").status() == 405
        };
        let path = path.join("/");
        // An id may be left out where a page speaks of all of them.
        ask(&path) || ask(&format!("{path}/x"))
    });
}

#[test]
fn every_key_of_the_pages_can_be_set() {
    const SECTIONS: [&str; 8] =
        ["ipc", "outbox", "inbox", "disk", "link", "reconnect", "features", "broker"];
    /// Names of files look like keys.
    const FILES: [&str; 4] = [".db", ".rs", ".md", ".lock"];
    let text = pages();
    let mut named = BTreeSet::new();
    for section in SECTIONS {
        let prefix = format!("`{section}.");
        for key in words(&text, &prefix, |c| c.is_ascii_lowercase() || c == '_') {
            let key = key.trim_start_matches('`');
            let is_file = FILES.iter().any(|end| key.ends_with(end));
            if !is_file && !key.ends_with('.') {
                named.insert(key.to_owned());
            }
        }
    }
    let home = Home::new();
    compare("key", &named, |key| {
        let (section, name) = key.split_once('.').expect("a section");
        // A value of no type that any key has: what is known complains of that.
        home.configure(&format!("[{section}]\n{name} = {{}}\n"));
        let refused = home.cli(&["daemon", "up", "--foreground", "--no-tcp"]);
        assert_eq!(refused.status.code(), Some(2), "{key}: {refused:?}");
        !String::from_utf8_lossy(&refused.stderr).contains("unknown key")
    });
}

#[test]
fn every_metric_of_the_pages_is_counted() {
    let home = Home::new();
    let broker = Broker::start(&home, 0);
    let stream = TcpStream::connect(("127.0.0.1", broker.port)).expect("connects");
    let metrics = exchange(stream, &get("/metrics")).body;
    let named: BTreeSet<String> =
        words(&pages(), "cm_", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            .into_iter()
            .filter(|name| !name.ends_with('_'))
            .collect();
    compare("metric", &named, |name| {
        metrics.lines().any(|line| line.split([' ', '{']).next() == Some(name))
    });
}
