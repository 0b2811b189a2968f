//! vch
fn main() {}
