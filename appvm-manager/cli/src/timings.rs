//! How long each stage of `bulkhead run` took.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::output::table;

/// Microseconds of `CLOCK_MONOTONIC`, as the manager counts.
pub fn now_us() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to room for a timespec.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) } != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// The stages in their order: the manager's name, and what a person reads.
const STAGES: [(&str, &str); 7] = [
    ("request", "request to the manager"),
    ("spawned", "vmm spawn"),
    ("hello", "kernel"),
    ("ready", "agent ready"),
    ("exec", "command sent"),
    ("started", "exec"),
    ("frame", "first frame"),
];

/// Name, microseconds of this stage, microseconds since the beginning. Stages from before
/// `begin` belong to an earlier start.
fn stages(begin: u64, times: &HashMap<String, u64>) -> Vec<(&'static str, &'static str, u64, u64)> {
    let mut last = begin;
    STAGES
        .into_iter()
        .filter_map(|(key, name)| {
            let time = *times.get(key)?;
            if time < begin {
                return None;
            }
            let row = (key, name, time.saturating_sub(last), time - begin);
            last = time.max(last);
            Some(row)
        })
        .collect()
}

/// For people.
pub fn text(begin: u64, times: &HashMap<String, u64>) -> String {
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
    let mut rows = vec![vec![
        "STAGE".to_owned(),
        "TOOK".to_owned(),
        "SINCE START".to_owned(),
    ]];
    for (_, name, took, total) in stages(begin, times) {
        rows.push(vec![name.to_owned(), ms(took), ms(total)]);
    }
    let mut guest: Vec<_> = times
        .iter()
        .filter_map(|(key, value)| Some((*value, key.strip_prefix("guest.")?)))
        .collect();
    guest.sort();
    let started_now = times.get("hello").is_some_and(|&time| time >= begin);
    let mut text = table(&rows);
    if started_now && !guest.is_empty() {
        let guest: Vec<_> = guest
            .iter()
            .map(|(ms, name)| format!("{name} {ms}"))
            .collect();
        text.push_str(&format!("guest, ms since its boot: {}\n", guest.join(", ")));
    }
    text
}

/// For programs: microseconds since the beginning.
pub fn json(begin: u64, times: &HashMap<String, u64>) -> Value {
    let host: Map<_, _> = stages(begin, times)
        .into_iter()
        .map(|(key, _, _, total)| (format!("{key}_us"), Value::from(total)))
        .collect();
    let guest: Map<_, _> = times
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("guest.")?.to_owned(), (*value).into())))
        .collect();
    serde_json::json!({ "stages": host, "guest_ms": guest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_an_earlier_start_are_left_out() {
        let times = [
            ("request", 5u64),
            ("hello", 8),
            ("exec", 1000),
            ("started", 1500),
        ];
        let times = times
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect();
        let rows = stages(900, &times);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].2, rows[1].2, rows[1].3), (100, 500, 600));
        assert!(text(900, &times).contains("exec"));
        assert_eq!(json(900, &times)["stages"]["started_us"], 600);
    }
}
