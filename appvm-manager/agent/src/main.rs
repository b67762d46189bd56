//! Bulkhead: see ARCHITECTURE.md.
fn main() {}
