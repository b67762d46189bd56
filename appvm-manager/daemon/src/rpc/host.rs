//! The few services that the host itself has.

use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_policy::Call;

/// A time that is a little wrong is wrong by at most so many seconds.
const BLUR_S: u64 = 1800;

/// The service that shows a guest's words to the user.
pub(super) const NOTIFY: &str = "bulkhead.Notify";
/// The service that starts an application of the target's menu.
pub(super) const START_APP: &str = "qubes.StartApp";
/// Bytes of a notification.
pub(super) const MAX_NOTIFICATION: usize = 4096;
/// Characters of it that are shown.
const SHOWN: usize = 200;

/// What is shown of a notification: whose words they are stands before them.
pub(super) fn notification(source: &str, untrusted_text: &[u8]) -> String {
    let text = crate::text::clean(&String::from_utf8_lossy(untrusted_text), SHOWN);
    format!("{source} says: “{text}”")
}

/// What the host's service answers; `None` if it has no such service.
pub(super) fn answer(call: &Call) -> Option<Vec<u8>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    match call.service.as_str() {
        "qubes.GetDate" => Some(line(&date(now.as_secs()))),
        "qubes.GetRandomizedTime" => {
            // Rounded for everybody alike: nothing can be averaged out of many answers.
            let slot = now.as_secs() / BLUR_S * BLUR_S;
            Some(line(&date(slot)))
        }
        _ => None,
    }
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// `date -u -Iseconds`, as Qubes' service answers (RFC 3339).
pub(super) fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}+00:00",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar (Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(date(951_782_400 + 3661), "2000-02-29T01:01:01+00:00");
        assert_eq!(date(1_795_564_799), "2026-11-24T23:59:59+00:00");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00+00:00");
    }

    #[test]
    fn a_notification_is_one_line_that_says_whose_it_is() {
        let shown = notification("work", "a\n\u{202e}b\u{1b}[2J".as_bytes());
        assert_eq!(shown, "work says: “a b [2J”");
        assert!(notification("work", &[b'x'; 4096]).chars().count() < 230);
        assert_eq!(notification("work", &[0xff]), "work says: “”");
    }

    #[test]
    fn the_host_has_no_other_service() {
        let call = |service: &str| {
            Call::parse("work".parse().unwrap(), service.as_bytes(), b"@adminvm").unwrap()
        };
        assert!(
            answer(&call("qubes.GetDate"))
                .unwrap()
                .ends_with(b"+00:00\n")
        );
        assert_eq!(answer(&call("qubes.VMShell")), None);
    }
}
