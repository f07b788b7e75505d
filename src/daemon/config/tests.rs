//! What `config.toml` promises (§13).

use super::*;
use claudemesh_fsm::retry::DedupeWindow;
use std::time::Duration;

fn refused(text: &str) -> String {
    Settings::parse(text).expect_err(text).to_string()
}

#[test]
fn no_file_is_all_defaults() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings::load(&dir.path().join("config.toml")).expect("no file");
    assert_eq!(settings.link.ack_ms, Duration::from_secs(15));
    assert_eq!(settings.outbox.max_age_hours, None);
    assert_eq!(settings.broker.retention_days, DedupeWindow::Days(365));
    assert_eq!(settings.broker.listen.port(), 7900);
    assert!(!settings.features.allow_legacy_broker.allows("demo"));
    assert!(settings.ipc.tcp_enabled && !settings.ipc.public_health_check);
    assert_eq!(settings.ipc.http_port, 47_823);
    assert_eq!((settings.inbox.retention_days, settings.inbox.max_bytes), (30, 5 << 30));
    assert!(Settings::load(dir.path()).is_err(), "a directory is not a missing file");
}

#[test]
fn the_file_is_read_into_plain_values() {
    let text = r#"
        [daemon]
        display_name = "alice"
        log_level = "debug"
        [ipc]
        tcp_enabled = false
        [outbox]
        max_age_hours = 720
        [metrics]
        [features]
        require = ["max_payload"]
        allow_legacy_broker = ["old-mesh"]
        [broker]
        retention_days = "permanent"
        listen = "[::1]:0"
    "#;
    let settings = Settings::parse(text).expect("good");
    assert_eq!(settings.daemon.display_name.as_deref(), Some("alice"));
    assert_eq!(settings.outbox.max_age_hours, Some(720));
    assert_eq!(settings.broker.retention_days, DedupeWindow::Permanent);
    assert_eq!(settings.broker.listen.to_string(), "[::1]:0");
    assert!(settings.features.allow_legacy_broker.allows("old-mesh"));
    assert!(!settings.features.allow_legacy_broker.allows("demo"));
    assert_eq!(settings.features.require, ["max_payload"]);
    let rest = ["member_keypair_rotated_event", "key_epoch", "delivery_receipts"];
    assert_eq!(settings.features.optional, rest);
    assert_eq!(settings.origin("daemon.log_level"), Some(Origin::File));
    assert_eq!(settings.origin("ipc.http_port"), Some(Origin::Default));
    assert_eq!(settings.origin("ipc.nothing"), None);
    let all = Settings::parse("[features]\nallow_legacy_broker = true").expect("good");
    assert!(all.features.allow_legacy_broker.allows("demo"));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_name() {
    assert_eq!(
        refused("[outbox]\nmax_age_hour = 3"),
        "config.toml: unknown key `outbox.max_age_hour`\nhint:  did you mean `outbox.max_age_hours`?"
    );
    assert!(refused("[out_box]\nmax_bytes = 1").ends_with("did you mean `[outbox]`?"));
    assert!(refused("log_levl = 'info'").ends_with("did you mean `daemon.log_level`?"));
    assert!(refused("[ipc.limits]\nstreams = 1").contains("`ipc.limits`"));
    assert!(refused("[metrics]\nport = 1").contains("`metrics.port`"));
    assert!(refused("ipc = 3").contains("write [ipc]"));
}

#[test]
fn a_wrong_value_names_the_key_and_its_range() {
    assert_eq!(
        refused("[link]\nack_ms = 5"),
        "config.toml: `link.ack_ms` must be a whole number from 100 to 600000, not 5"
    );
    for (text, want) in [
        ("[ipc]\nhttp_port = 65536", "from 0 to 65535, not 65536"),
        ("[ipc]\nhttp_port = -1", "not -1"),
        ("[ipc]\ntcp_enabled = 1", "`ipc.tcp_enabled` must be true or false, not 1"),
        ("[outbox]\nmax_age_hours = 721", "from 1 to 720"),
        ("[inbox]\nretention_days = 0", "from 1 to 36500, not 0"),
        ("[inbox]\nmax_bytes = 1000", "from 1048576 to"),
        ("[daemon]\nlog_level = 'loud'", "\"warn\", \"info\""),
        ("[daemon]\ndisplay_name = \"a\\u0007\"", "visible text"),
        ("[features]\nrequire = ['max_paylod']", "\"max_payload\""),
        ("[features]\nallow_legacy_broker = 'demo'", "a list of names, or true for all"),
        ("[broker]\nretention_days = 2", "from 3 to 36500, or \"permanent\""),
        ("[broker]\nlisten = 'localhost'", "like \"127.0.0.1:7900\""),
        ("[link]\nping_ms = 80000", "`link.dead_ms` must be more than link.ping_ms (80000)"),
        ("[link]\nping_ms = 1.5", "not 1.5"),
        ("a = \n\nb = 1", "line 1"),
        ("[ipc]\nhttp_port = 1\nhttp_port = 2", "line 3"),
    ] {
        assert!(refused(text).contains(want), "{text}: {}", refused(text));
    }
}

#[test]
fn what_comes_from_elsewhere_obeys_the_same_rules() {
    let mut settings = Settings::parse("[link]\nping_ms = 70000").expect("good");
    settings.set("ipc.tcp_enabled", false, Origin::Detection).expect("good");
    assert!(!settings.ipc.tcp_enabled);
    assert_eq!(settings.origin("ipc.tcp_enabled"), Some(Origin::Detection));
    assert!(settings.set("link.dead_ms", 60_000, Origin::Flag).is_err());
    assert!(settings.set("link.dead", 60_000, Origin::Flag).is_err());
    assert_eq!(settings.link.dead_ms, Duration::from_secs(75));
}

#[test]
fn a_file_read_again_counts_as_before_after_what_was_said_elsewhere() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = dir.path().join("config.toml");
    let mut settings = Settings::parse("[link]\nack_ms = 1000\n").expect("good");
    settings.set("daemon.display_name", "flag", Origin::Flag).expect("good");
    std::fs::write(&file, "[daemon]\ndisplay_name = \"file\"\n[link]\nhello_ms = 2000\n")
        .expect("writes");
    let Reloaded { settings: reloaded, .. } = settings.reloaded(&file).expect("good");
    assert_eq!(reloaded.daemon.display_name.as_deref(), Some("flag"));
    assert_eq!(reloaded.origin("daemon.display_name"), Some(Origin::Flag));
    assert_eq!(reloaded.link.hello_ms, Duration::from_secs(2));
    // What the file no longer says is its default again.
    assert_eq!(reloaded.link.ack_ms, Settings::default().link.ack_ms);
    std::fs::write(&file, "[link]\nhello = 1\n").expect("writes");
    assert!(settings.reloaded(&file).is_err());
}

#[test]
fn what_only_a_restart_applies_stays_and_is_said_at_every_reading() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = dir.path().join("config.toml");
    let mut settings = Settings::parse("[inbox]\nretention_days = 7").expect("good");
    std::fs::write(&file, "[link]\ninflight_max = 8\nack_ms = 1000").expect("writes");
    for _ in 0..2 {
        let reloaded = settings.reloaded(&file).expect("good");
        settings = reloaded.settings;
        assert_eq!(reloaded.needs_restart, ["inbox.retention_days", "link.inflight_max"]);
        assert_eq!(settings.link.inflight_max, Settings::default().link.inflight_max);
        assert_eq!(settings.inbox.retention_days, 7);
        assert_eq!(settings.origin("link.inflight_max"), Some(Origin::Default));
        assert_eq!(settings.link.ack_ms, Duration::from_secs(1));
    }
    std::fs::write(&file, "[inbox]\nretention_days = 7").expect("writes");
    assert!(settings.reloaded(&file).expect("good").needs_restart.is_empty());
}

#[test]
fn names_of_a_flag_stand_beside_those_of_the_file_however_often_it_is_read() {
    const LEGACY: &str = "features.allow_legacy_broker";
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = dir.path().join("config.toml");
    let mut settings = Settings::parse("[features]\nallow_legacy_broker = ['old']").expect("good");
    settings.allow_legacy_brokers(vec!["flag".into()]).expect("good");
    let allowed = |settings: &Settings| {
        ["old", "new", "flag"].map(|slug| settings.features.allow_legacy_broker.allows(slug))
    };
    assert_eq!(allowed(&settings), [true, false, true]);
    assert_eq!(settings.origin(LEGACY), Some(Origin::Flag));
    for (value, expected) in [
        ("['new']", [false, true, true]),
        ("false", [false, false, true]),
        ("true", [true, true, true]),
        ("[]", [false, false, true]),
    ] {
        std::fs::write(&file, format!("[features]\nallow_legacy_broker = {value}"))
            .expect("writes");
        settings = settings.reloaded(&file).expect("good").settings;
        assert_eq!(allowed(&settings), expected, "{value}");
    }
    assert!(settings.allow_legacy_brokers(vec!["\u{7}".into()]).is_err());
}

#[test]
fn every_value_can_be_written_into_the_file_as_it_is_shown() {
    let settings = Settings::parse("[outbox]\nmax_age_hours = 5").expect("good");
    for key in KEYS {
        let shown = (key.value)(&settings);
        if !shown.is_empty() {
            let (section, field) = key.name.split_once('.').expect("dotted");
            let again = Settings::parse(&format!("[{section}]\n{field} = {shown}"));
            assert_eq!((key.value)(&again.expect(key.name)), shown, "{}", key.name);
        }
    }
}

/// A field holds both ends of its range, so that the `expect` in `Said::value` cannot fail.
#[test]
fn every_range_fits_its_field() {
    for key in KEYS {
        let (Kind::Integer(low, high) | Kind::IntegerOr(low, high, _)) = key.kind else { continue };
        for end in [low, high] {
            let mut said = Said::default();
            let end = i64::try_from(end).expect("TOML holds it");
            said.set(key.name, Value::from(end), Origin::File).expect(key.name);
            Settings::of(said);
        }
    }
}

#[test]
fn the_page_of_the_contract_has_the_table() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../specs/process.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let settings = Settings::default();
    let row = |key: &Key| {
        let default = match (key.value)(&settings) {
            unset if unset.is_empty() => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let reload = if key.reload == Reload::Applies { "yes" } else { "no" };
        format!("| `{}` | {} | {default} | {reload} | {} |\n", key.name, key.kind, key.about)
    };
    let rows: String = KEYS.iter().map(row).collect();
    let table =
        format!("| key | value | default | reload | what it is |\n|---|---|---|---|---|\n{rows}\n");
    assert!(page.contains(&table), "specs/process.md §13 lacks this table:\n{table}");
}
