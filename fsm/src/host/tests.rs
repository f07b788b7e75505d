//! The verdict on a host, case by case (§2.2).

use super::*;
use alloc::vec;

fn sources(host_id: &str, stable_mac: &str) -> Sources {
    Sources { host_id: host_id.into(), stable_mac: stable_mac.into() }
}

fn observed(host_id: &str, mac: &str) -> Observed {
    Observed { v1: sources(host_id, mac), v2: sources(host_id, mac) }
}

fn stored(schema: i64, host_id: &str, mac: &str) -> File {
    File::Stored { schema, sources: sources(host_id, mac) }
}

fn host_id(stored: &str, observed: &str) -> HostDecision {
    let (stored, observed) = (stored.into(), observed.into());
    HostDecision::Mismatch { what: Difference::HostId { stored, observed } }
}

fn mac(stored: &str, observed: &str) -> HostDecision {
    let (stored, observed) = (stored.into(), observed.into());
    HostDecision::Mismatch { what: Difference::Mac { stored, observed } }
}

const KEEP: HostDecision = HostDecision::Match { rewrite: false };
const REWRITE: HostDecision = HostDecision::Match { rewrite: true };

#[test]
fn the_host_id_decides_where_both_sides_have_one_and_the_mac_where_not() {
    for (before, now, expected) in [
        (("A", "x"), ("A", "x"), KEEP),
        (("A", "x"), ("A", "y"), REWRITE),
        (("A", "x"), ("A", ""), KEEP),
        (("A", ""), ("A", "y"), REWRITE),
        (("A", "x"), ("B", "x"), host_id("A", "B")),
        (("A", "x"), ("B", "y"), host_id("A", "B")),
        (("", "x"), ("", "x"), KEEP),
        (("", "x"), ("B", "x"), REWRITE),
        (("A", "x"), ("", "x"), KEEP),
        (("", "x"), ("", "y"), mac("x", "y")),
        (("", "x"), ("B", "y"), mac("x", "y")),
        (("A", "x"), ("", "y"), mac("x", "y")),
        (("A", "x"), ("", ""), HostDecision::DetectionOff),
        (("A", ""), ("", "y"), HostDecision::DetectionOff),
        (("", "x"), ("B", ""), HostDecision::DetectionOff),
        (("random:1", ""), ("", ""), HostDecision::DetectionOff),
        (("random:1", ""), ("B", "y"), HostDecision::FirstRun),
        (("random:1", ""), ("", "y"), HostDecision::FirstRun),
        (("", ""), ("B", ""), HostDecision::FirstRun),
    ] {
        let file = stored(2, before.0, before.1);
        assert_eq!(decide(&file, &observed(now.0, now.1)), expected, "{before:?} {now:?}");
    }
}

#[test]
fn without_a_file_the_host_is_new_or_cannot_be_told() {
    assert_eq!(decide(&File::Absent, &observed("A", "")), HostDecision::FirstRun);
    assert_eq!(decide(&File::Absent, &observed("", "x")), HostDecision::FirstRun);
    assert_eq!(decide(&File::Absent, &observed("", "")), HostDecision::DetectionOff);
}

#[test]
fn schema_one_is_judged_by_its_own_rules_and_rewritten() {
    let now = Observed { v1: sources("", "bridge-mac"), v2: sources("darwin:U", "en0-mac") };
    assert_eq!(decide(&stored(1, "", "bridge-mac"), &now), REWRITE);
    assert_eq!(decide(&stored(1, "", "en0-mac"), &now), mac("en0-mac", "bridge-mac"));
    assert_eq!(decide(&stored(1, "A", "x"), &observed("A", "x")), REWRITE);
    assert_eq!(decide(&stored(1, "A", "x"), &observed("B", "x")), host_id("A", "B"));
}

#[test]
fn a_file_we_cannot_judge_is_never_overwritten() {
    for schema in [0, 3, -1] {
        let unknown = HostDecision::Unavailable(Unavailable::UnknownSchema(schema));
        assert_eq!(decide(&stored(schema, "A", "x"), &observed("A", "x")), unknown);
    }
    let broken = decide(&File::Broken("no JSON".into()), &observed("A", "x"));
    assert_eq!(broken, HostDecision::Unavailable(Unavailable::Broken("no JSON".into())));
}

#[test]
fn a_rewrite_forgets_nothing_that_was_known() {
    assert_eq!(sources("A", "").over(sources("", "x")), sources("A", "x"));
    assert_eq!(sources("", "y").over(sources("A", "x")), sources("A", "y"));
    assert_eq!(sources("B", "").over(sources("random:1", "")), sources("B", ""));
}

fn interfaces(list: &[(&str, &str)]) -> Vec<Interface> {
    let interface = |(name, mac): &(&str, &str)| Interface {
        name: (*name).into(),
        mac: (*mac).into(),
        is_loopback: false,
    };
    list.iter().map(interface).collect()
}

#[test]
fn the_first_interface_that_stays_gives_its_address() {
    let list = interfaces(&[
        ("wlan0", "10:00:00:00:00:09"),
        ("eth1", "10:00:00:00:00:02"),
        ("eth0", "10:00:00:00:00:AA"),
        ("docker0", "10:00:00:00:00:03"),
        ("Br-12", "10:00:00:00:00:04"),
        ("VETH1", "10:00:00:00:00:05"),
        ("a-zero", "00:00:00:00:00:00"),
        ("a-none", ""),
    ]);
    assert_eq!(select_mac_v1(&list), "10:00:00:00:00:aa");
    assert_eq!(select_mac_v2(&list), "10:00:00:00:00:aa");
    assert_eq!(select_mac_v2(&[]), "");
    let name = "a0".into();
    let internal = Interface { name, mac: "10:00:00:00:00:01".into(), is_loopback: true };
    assert_eq!(select_mac_v2(&[internal]), "");
    for prefix in IGNORED {
        let gone = format!("{prefix}0");
        assert_eq!(select_mac_v1(&interfaces(&[(&gone, "10:00:00:00:00:01")])), "", "{gone}");
    }
}

#[test]
fn schema_two_prefers_hardware_and_ignores_more() {
    let made_up = [("en0", "02:00:00:00:00:01"), ("en1", "10:00:00:00:00:02")];
    assert_eq!(select_mac_v1(&interfaces(&made_up)), "02:00:00:00:00:01");
    assert_eq!(select_mac_v2(&interfaces(&made_up)), "10:00:00:00:00:02");
    assert_eq!(select_mac_v2(&interfaces(&made_up[..1])), "02:00:00:00:00:01");
    let more = [
        ("anpi0", "10:00:00:00:00:01"),
        ("ap1", "10:00:00:00:00:02"),
        ("bridge0", "10:00:00:00:00:03"),
        ("ape0", "10:00:00:00:00:04"),
    ];
    assert_eq!(select_mac_v1(&interfaces(&more)), "10:00:00:00:00:01");
    assert_eq!(select_mac_v2(&interfaces(&more)), "10:00:00:00:00:04");
    // A name that is no prefix and cuts a character in two must not matter.
    assert_eq!(select_mac_v2(&interfaces(&[("lé", "10:00:00:00:00:05")])), "10:00:00:00:00:05");
}

#[test]
fn the_preimages_are_what_protocol_2_8_hashes() {
    let host = sources("linux:01", "52:54:00:12:34:56");
    assert_eq!(preimage_v1(&host), b"linux:01\x0052:54:00:12:34:56");
    assert_eq!(preimage_v2(&host), b"v2\0linux:01\x0052:54:00:12:34:56");
    assert_eq!(preimage_v2(&Sources::default()), vec![b'v', b'2', 0, 0]);
}
