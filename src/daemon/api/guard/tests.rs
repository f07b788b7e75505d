//! The guard's table, case by case.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;

const UNIX: Transport = Transport::Unix { uid: 1000 };
const TCP: Transport = Transport::Tcp;
const TOKEN: &str = "bG9jYWwtdG9rZW4";
const NOW: Duration = Duration::from_secs(1000);

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn ask(
    transport: Transport,
    method: &str,
    target: &str,
    list: &[(&'static str, &str)],
    public_health: bool,
) -> Result<Admitted, (u16, &'static str)> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let target: Uri = target.parse().unwrap();
    let headers = headers(list);
    let token = AcceptedToken::new(TOKEN);
    let head = RequestHead { transport, method: &method, target: &target, headers: &headers };
    let policy = GuardPolicy { token: &token, public_health };
    admit(head, policy).map_err(|problem| (problem.status, problem.error))
}

fn unix(method: &str, target: &str, list: &[(&'static str, &str)]) -> Option<(u16, &'static str)> {
    ask(UNIX, method, target, list, false).err()
}

fn tcp(list: &[(&'static str, &str)]) -> Option<(u16, &'static str)> {
    ask(TCP, "GET", "/v1/health", list, false).err()
}

#[test]
fn a_token_in_the_query_is_refused_however_it_is_spelled() {
    let refused = Some((400, "token_in_query"));
    for query in ["token=x", "token", "a=1&token=x", "%74oken=x", "tok%65n", "token=x=y", "&token"]
    {
        assert_eq!(unix("GET", &format!("/v1/peers?{query}"), &[]), refused, "{query}");
    }
    for query in ["", "tokens=1", "a=token", "mytoken=1", "to%6=1", "%", "%zz=token", "Token=1"] {
        assert_eq!(unix("GET", &format!("/v1/peers?{query}"), &[]), None, "{query}");
    }
}

#[test]
fn only_loopback_names_pass_as_host() {
    let good = [
        "localhost",
        "LocalHost",
        "localhost:47823",
        "localhost:1",
        "127.0.0.1",
        "127.0.0.1:47823",
        "[::1]",
        "[::1]:1",
    ];
    for host in good {
        assert_eq!(unix("GET", "/v1/peers", &[("host", host)]), None, "{host}");
    }
    let bad = [
        "",
        "evil.example",
        "localhost.evil.example",
        "localhost.",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "::1",
        "[::1",
        "[::2]",
        "localhost:",
        "localhost:x",
        "localhost:123456",
        "localhost:1:2",
        "evil@localhost",
        "localhost@evil",
        "0.0.0.0",
        "lo\u{e9}",
        "[::1]:",
        "localhost, evil",
    ];
    for host in bad {
        let answer = unix("GET", "/v1/peers", &[("host", host)]);
        assert_eq!(answer, Some((403, "forbidden_host")), "{host}");
    }
}

#[test]
fn an_absent_host_passes() {
    assert_eq!(unix("GET", "/v1/peers", &[]), None);
}

#[test]
fn two_hosts_and_foreign_targets_are_malformed() {
    let refused = Some((400, "invalid_host"));
    let twice = [("host", "localhost"), ("host", "localhost")];
    assert_eq!(unix("GET", "/v1/peers", &twice), refused);
    let with_evil = [("host", "evil.example"), ("host", "localhost")];
    assert_eq!(unix("GET", "/v1/peers", &with_evil), refused);
    let host = [("host", "localhost")];
    for target in ["http://evil.example/v1/peers", "http://me@localhost/v1/peers"] {
        assert_eq!(unix("GET", target, &host), refused, "{target}");
    }
    assert_eq!(unix("CONNECT", "evil.example:443", &host), refused);
    for target in ["http://localhost:47823/v1/peers", "http://[::1]/v1/peers"] {
        assert_eq!(unix("GET", target, &host), None, "{target}");
    }
    let foreign = [("host", "evil.example")];
    let answer = unix("GET", "http://localhost/v1/peers", &foreign);
    assert_eq!(answer, Some((403, "forbidden_host")));
}

#[test]
fn web_pages_are_refused() {
    let refused = Some((403, "forbidden_origin"));
    for origin in ["https://evil.example", "http://localhost", "null", ""] {
        assert_eq!(unix("GET", "/v1/peers", &[("origin", origin)]), refused, "{origin}");
    }
    for site in ["cross-site", "same-site", "same-origin", "None", ""] {
        assert_eq!(unix("GET", "/v1/peers", &[("sec-fetch-site", site)]), refused, "{site}");
    }
    assert_eq!(unix("GET", "/v1/peers", &[("sec-fetch-site", "none")]), None);
    let both = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
    assert_eq!(unix("GET", "/v1/peers", &both), refused);
}

#[test]
fn options_is_refused_everywhere() {
    assert_eq!(unix("OPTIONS", "/v1/send", &[]), Some((403, "forbidden_method")));
    assert_eq!(unix("OPTIONS", "*", &[]), Some((403, "forbidden_method")));
}

#[test]
fn tcp_needs_the_bearer() {
    assert_eq!(tcp(&[("authorization", "Bearer bG9jYWwtdG9rZW4")]), None);
    assert_eq!(tcp(&[("authorization", "bearer  bG9jYWwtdG9rZW4")]), None);
    let missing = Some((401, "missing_bearer_token"));
    assert_eq!(tcp(&[]), missing);
    for value in ["", "Bearer", "Bearer ", "Basic bG9jYWwtdG9rZW4", "bG9jYWwtdG9rZW4", "B\u{e9} x"]
    {
        assert_eq!(tcp(&[("authorization", value)]), missing, "{value}");
    }
    let invalid = Some((401, "invalid_bearer_token"));
    for value in ["Bearer x", "Bearer bG9jYWwtdG9rZW5", "Bearer bG9jYWwtdG9rZW4 x"] {
        assert_eq!(tcp(&[("authorization", value)]), invalid, "{value}");
    }
    let twice = [("authorization", "Bearer bG9jYWwtdG9rZW4"), ("authorization", "Bearer x")];
    assert_eq!(tcp(&twice), invalid);
}

#[test]
fn the_unix_socket_needs_none_and_ignores_what_older_clients_send() {
    let session = [("authorization", "ClaudeMesh-Session 00ff")];
    assert_eq!(unix("GET", "/v1/peers", &session), None);
}

#[test]
fn public_health_frees_that_one_route() {
    let open = |method, target| ask(TCP, method, target, &[], true).is_ok();
    assert!(open("GET", "/v1/health"));
    assert!(open("GET", "/v1/health?verbose=1"));
    for (method, target) in [
        ("POST", "/v1/health"),
        ("HEAD", "/v1/health"),
        ("GET", "/v1/health/"),
        ("GET", "/v1/peers"),
        ("GET", "/v1/health/../peers"),
        ("GET", "//v1/health"),
    ] {
        assert!(!open(method, target), "{method} {target}");
    }
    let evil = [("host", "evil.example")];
    assert_eq!(ask(TCP, "GET", "/v1/health", &evil, true), Err((403, "forbidden_host")));
}

#[test]
fn a_body_must_be_json_or_untyped() {
    let post = |list: &[(&'static str, &str)]| unix("POST", "/v1/send", list);
    let sized = ("content-length", "2");
    for good in ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"] {
        assert_eq!(post(&[sized, ("content-type", good)]), None, "{good}");
    }
    assert_eq!(post(&[sized]), None);
    let refused = Some((415, "unsupported_media_type"));
    for bad in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "\u{e9}"]
    {
        assert_eq!(post(&[sized, ("content-type", bad)]), refused, "{bad}");
        let chunked = [("transfer-encoding", "chunked"), ("content-type", bad)];
        assert_eq!(post(&chunked), refused, "{bad}");
        assert_eq!(post(&[("content-length", "0"), ("content-type", bad)]), None, "{bad}");
        assert_eq!(post(&[("content-type", bad)]), None, "{bad}");
    }
    let json = ("content-type", "application/json");
    assert_eq!(post(&[sized, json, ("content-type", "text/plain")]), refused);
    assert_eq!(post(&[sized, json, json]), refused);
}

#[test]
fn a_body_is_known_by_its_framing() {
    let has_body = |list| ask(UNIX, "POST", "/v1/send", list, false).unwrap().has_body;
    assert!(has_body(&[("content-length", "1")]));
    assert!(has_body(&[("transfer-encoding", "chunked")]));
    assert!(!has_body(&[("content-length", "0")]));
    assert!(!has_body(&[]));
}

/// Each request fails this check and every later one: the earliest must answer.
#[test]
fn the_checks_come_in_the_order_of_the_contract() {
    let mut list = vec![
        ("host", "evil.example"),
        ("host", "evil.example"),
        ("origin", "https://evil.example"),
        ("content-length", "1"),
        ("content-type", "text/plain"),
    ];
    let answer = |target: &str, method: &str, list: &[(&'static str, &str)]| {
        ask(TCP, method, target, list, false).unwrap_err().1
    };
    assert_eq!(answer("/v1/send?token=x", "OPTIONS", &list), "token_in_query");
    assert_eq!(answer("/v1/send", "OPTIONS", &list), "invalid_host");
    list.remove(0);
    assert_eq!(answer("/v1/send", "OPTIONS", &list), "forbidden_host");
    list.remove(0);
    assert_eq!(answer("/v1/send", "OPTIONS", &list), "forbidden_origin");
    list.remove(0);
    assert_eq!(answer("/v1/send", "OPTIONS", &list), "forbidden_method");
    assert_eq!(answer("/v1/send", "POST", &list), "missing_bearer_token");
    list.push(("authorization", "Bearer bG9jYWwtdG9rZW4"));
    assert_eq!(answer("/v1/send", "POST", &list), "unsupported_media_type");
}

#[test]
fn an_empty_token_opens_nothing() {
    assert!(!AcceptedToken::new("").accepts(b""));
}

#[test]
fn a_token_is_never_shown() {
    assert!(!format!("{:?}", AcceptedToken::new(TOKEN)).contains(TOKEN));
}

#[test]
fn tokens_in_queries_are_logged_once_a_minute() {
    let mut log = TokenLog::default();
    assert_eq!(log.seen(NOW), Some(0));
    assert_eq!(log.seen(NOW + Duration::from_secs(1)), None);
    assert_eq!(log.seen(NOW + Duration::from_secs(59)), None);
    assert_eq!(log.seen(NOW + TOKEN_LOG_INTERVAL), Some(2));
}
