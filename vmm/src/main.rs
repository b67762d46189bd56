//! `bulkhead-vmm`: see the library.

fn main() {}
