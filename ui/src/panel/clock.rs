//! The time on the wall.

use std::mem::MaybeUninit;

/// The local time as hours and minutes, and the date in a short form.
pub fn now() -> (String, String) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    text(now.tv_sec)
}

fn text(seconds: i64) -> (String, String) {
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; a zeroed tm is a valid one, whatever the call
    // makes of it, and only this thread of the process draws the clock.
    let time = unsafe {
        libc::localtime_r(&raw const seconds, time.as_mut_ptr());
        time.assume_init()
    };
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let name = |names: &[&'static str], index: i32| {
        let index = usize::try_from(index).unwrap_or(0);
        names.get(index).copied().unwrap_or("")
    };
    (
        format!("{:02}:{:02}", time.tm_hour, time.tm_min),
        format!(
            "{} {} {}",
            name(&DAYS, time.tm_wday),
            time.tm_mday,
            name(&MONTHS, time.tm_mon)
        ),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_have_their_forms() {
        let (time, date) = super::text(0);
        assert_eq!(time.len(), 5);
        assert!(
            ["Thu 1 Jan", "Wed 31 Dec"].contains(&date.as_str()),
            "{date}"
        );
        super::text(i64::MAX);
        super::text(i64::MIN);
    }
}
