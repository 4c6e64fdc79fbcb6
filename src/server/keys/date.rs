//! Moments as people write them, `2027-01-31T12:00:00Z`. Pure.

/// The moment, to the second.
pub fn date_text(ms: u64) -> String {
    let (days, second) = (ms / DAY_MS, ms % DAY_MS / 1000);
    let (year, month, day) = date_of(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Days from the first of January 1970 to a date of the Gregorian calendar.
pub fn days_to(year: u16, month: u8, day: u8) -> i64 {
    // Years begin in March here: then the day that comes and goes is the last of the year.
    let year = i64::from(year) - i64::from(month <= 2);
    let month = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - DAYS_TO_1970
}

fn date_of(days: u64) -> (u16, u8, u8) {
    let days = days as i64;
    // Not far off: one step up or down at most.
    let mut year = (1970 + days / 366).min(i64::from(u16::MAX)) as u16;
    while year < u16::MAX && days_to(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_to(year, *month, 1) <= days).unwrap_or(1);
    (year, month, (days - days_to(year, month, 1) + 1).clamp(1, 31) as u8)
}

const DAY_MS: u64 = 86_400_000;

/// From the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_text(ms), text);
        }
    }

    #[test]
    fn every_day_has_its_date() {
        for days in 0..100_000 {
            let (year, month, day) = date_of(days);
            assert_eq!(days_to(year, month, day), days as i64, "{year}-{month}-{day}");
        }
    }
}
