//! Every move the outbox forbids, and every forgery, fails to compile, with a message that says
//! why (§4.5.2). One file per attempt in `illegal/`; review a changed `.stderr` as a change of
//! behaviour.

#[test]
fn what_the_outbox_forbids_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/illegal/*.rs");
}
