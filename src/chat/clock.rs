//! Floor 5: dates for templates. Knows no models.

use minijinja::{Error, ErrorKind};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, as templates write it.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    seconds: u64,
}

impl Clock {
    /// So many seconds after the beginning of 1970, or now.
    pub fn at(seconds: Option<u64>) -> Clock {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // The year 9999 is the last that Python knows.
        Clock { seconds: seconds.unwrap_or_else(now).min(253_402_300_799) }
    }

    /// `strftime`, in English.
    pub fn format(self, format: &str) -> Result<String, Error> {
        const DAYS: [&str; 7] =
            ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        let (days, second) = (self.seconds / 86_400, self.seconds % 86_400);
        let (year, month, day) = civil(days);
        let (weekday, name) = (DAYS[(days % 7) as usize], MONTHS[(month - 1) as usize]);
        let hour = second / 3600;
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut code = chars.next();
            let bare = code == Some('-');
            if bare {
                code = chars.next();
            }
            let mut two =
                |number: u64| if bare { write!(out, "{number}") } else { write!(out, "{number:02}") };
            match code {
                Some('d') => two(day)?,
                Some('m') => two(month)?,
                Some('y') => two(year % 100)?,
                Some('H') => two(hour)?,
                Some('I') => two((hour + 11) % 12 + 1)?,
                Some('M') => two(second / 60 % 60)?,
                Some('S') => two(second % 60)?,
                Some('Y') => write!(out, "{year}")?,
                Some('B') => out.push_str(name),
                Some('b' | 'h') => out.push_str(&name[..3]),
                Some('A') => out.push_str(weekday),
                Some('a') => out.push_str(&weekday[..3]),
                Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
                Some('F') => write!(out, "{year}-{month:02}-{day:02}")?,
                Some('T') => write!(out, "{hour:02}:{:02}:{:02}", second / 60 % 60, second % 60)?,
                Some('%') => out.push('%'),
                other => {
                    let what = format!("strftime_now does not know %{}", other.unwrap_or(' '));
                    return Err(Error::new(ErrorKind::InvalidOperation, what));
                }
            }
        }
        Ok(out)
    }
}

/// Year, month and day so many days after the beginning of 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}
