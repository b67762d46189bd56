//! Bulkhead: see ARCHITECTURE.md.
