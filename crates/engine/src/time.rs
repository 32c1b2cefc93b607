//! Dates for people and models, from milliseconds since the epoch.

/// The civil date of a day since the epoch, after Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `2026-11-22T13:21:41.627Z`.
pub(crate) fn iso(ms: u64) -> String {
    let (year, month, day) = civil((ms / 86_400_000) as i64);
    let (hours, minutes) = (ms / 3_600_000 % 24, ms / 60_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{:02}.{:03}Z", ms / 1_000 % 60, ms % 1_000)
}

/// `2026-11-22`.
pub(crate) fn date(ms: u64) -> String {
    iso(ms)[..10].to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_moment_reads_as_recorded() {
        assert_eq!(super::iso(1_795_353_701_627), "2026-11-22T13:21:41.627Z");
        assert_eq!(super::iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }
}
