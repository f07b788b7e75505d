//! The claudemesh binary.
fn main() {}
