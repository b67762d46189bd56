//! What a policy says of calls, as a table.

mod support;

#[test]
fn every_case_of_the_table() {
    let calls = support::run(include_str!("evaluation.table"), None);
    assert!(calls >= 60, "the table has only {calls} calls");
}
