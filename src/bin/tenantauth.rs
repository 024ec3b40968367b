//! The `tenantauth` command.
fn main() {}
