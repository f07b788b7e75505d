//! What canonical `meta` promises.

use super::*;

fn canonical(raw: &str) -> String {
    canonical_meta(raw).expect("good meta").expect("an object")
}

fn refused(raw: &str) -> (MetaErrorKind, String) {
    let error = canonical_meta(raw).expect_err(raw);
    (error.kind, error.path)
}

#[test]
fn order_and_spacing_do_not_matter() {
    assert_eq!(canonical_meta(" null "), Ok(None));
    assert_eq!(canonical("{ }"), "{}");
    assert_eq!(
        canonical(r#"{ "b":1, "a":{"d":null,"c":[2,true]} }"#),
        canonical(r#"{"a":{"c":[2,true],"d":null},"b":1}"#)
    );
}

/// The example of RFC 8785 §3.2.2, and its order of keys by UTF-16 code units (3.2.3 there).
#[test]
fn the_examples_of_the_rfc_hold() {
    let raw = r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],
        "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
    let want = concat!(
        r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
        r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
    );
    assert_eq!(canonical(raw), want);
    let sorted = canonical(r#"{"\ufb33":0,"\ud83d\ude00":0,"\u20ac":0,"1":0,"\r":0,"10":0,"9":0}"#);
    assert_eq!(sorted, "{\"\\r\":0,\"1\":0,\"10\":0,\"9\":0,\"€\":0,\"😀\":0,\"\u{fb33}\":0}");
}

#[test]
fn doubles_keep_their_last_bit() {
    assert_eq!(
        canonical(r#"{"x":[0.1,-0,5e-324,1.7976931348623157e308]}"#),
        r#"{"x":[0.1,0,5e-324,1.7976931348623157e+308]}"#
    );
    assert_eq!(canonical(r#"{"x":2.2250738585072011e-308}"#), r#"{"x":2.225073858507201e-308}"#);
}

#[test]
fn a_key_given_twice_is_refused_at_any_depth() {
    assert_eq!(refused(r#"{"a":1,"a":1}"#), (MetaErrorKind::DuplicateKey, "meta.a".into()));
    assert_eq!(
        refused(r#"{"a":[0,{"b":{"x y":1,"x\u0020y":2}}]}"#),
        (MetaErrorKind::DuplicateKey, r#"meta.a[1].b["x y"]"#.into())
    );
}

#[test]
fn half_a_surrogate_pair_is_refused_wherever_it_stands() {
    let lone = |raw| refused(raw).0;
    assert_eq!(
        refused(r#"{"a":{"b":"\ud800"}}"#),
        (MetaErrorKind::LoneSurrogate, "meta.a.b".into())
    );
    assert_eq!(lone(r#"{"a":"\udc00"}"#), MetaErrorKind::LoneSurrogate);
    assert_eq!(lone(r#"{"a":"\ud800x"}"#), MetaErrorKind::LoneSurrogate);
    assert_eq!(lone(r#"{"a":"\ud800\n"}"#), MetaErrorKind::LoneSurrogate);
    assert_eq!(lone(r#"{"a":"\ud800\ud800"}"#), MetaErrorKind::LoneSurrogate);
    assert_eq!(lone(r#"{"\ud800":1}"#), MetaErrorKind::LoneSurrogate);
}

#[test]
fn an_integer_that_readers_would_round_is_refused() {
    assert_eq!(
        canonical(r#"{"a":9007199254740992,"b":-9007199254740992}"#),
        r#"{"a":9007199254740992,"b":-9007199254740992}"#
    );
    for raw in [
        r#"{"a":9007199254740993}"#,
        r#"{"a":-9007199254740993}"#,
        r#"{"a":18446744073709551615}"#,
        r#"{"a":100000000000000000000000000000}"#,
    ] {
        assert_eq!(refused(raw), (MetaErrorKind::UnsafeInteger, "meta.a".into()), "{raw}");
    }
    assert_eq!(
        refused(r#"{"7 \" 8":["-9", 1e30, {"b":[1, 9007199254740993]}]}"#),
        (MetaErrorKind::UnsafeInteger, r#"meta["7 \" 8"][2].b[1]"#.into())
    );
    assert_eq!(refused(r#"{"a":1e999}"#).0, MetaErrorKind::NumberOutOfRange);
}

#[test]
fn only_one_object_or_null_is_meta() {
    for raw in ["[]", "1", "\"x\"", "true"] {
        assert_eq!(refused(raw), (MetaErrorKind::NotAnObject, "meta".into()), "{raw}");
    }
    for raw in ["", "{", "{} {}", "{\"a\":}", "{'a':1}", "{\"a\":01}", "{\"a\":NaN}"] {
        assert_eq!(refused(raw).0, MetaErrorKind::NotJson, "{raw}");
    }
}

#[test]
fn nesting_has_a_bound() {
    let nested =
        |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert!(canonical_meta(&nested(DEPTH_MAX)).is_ok());
    assert_eq!(refused(&nested(DEPTH_MAX + 1)).0, MetaErrorKind::TooDeep);
    assert_eq!(refused(&nested(100_000)).0, MetaErrorKind::TooDeep);
}
