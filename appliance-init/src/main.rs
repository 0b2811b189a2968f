//! appliance-init
fn main() {}
