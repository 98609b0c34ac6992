//! RFC 3339 times, as anybody may write them: any offset, any fraction.
#![forbid(unsafe_code)]

use crate::time::WallMillis;

/// The moment that the text names, to the millisecond (what is finer is cut off); `None` if it is no such time.
///
/// The first moment of the year 1, which some systems write for a time that they do not know, is 0, our "not known".
pub(super) fn parse_time(text: &str) -> Option<WallMillis> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    byte(&mut rest, b"-")?;
    let month = digits(&mut rest, 2).filter(|month| (1..=12).contains(month))?;
    byte(&mut rest, b"-")?;
    let day = digits(&mut rest, 2).filter(|day| (1..=days_in(year, month)).contains(day))?;
    byte(&mut rest, b"Tt ")?;
    let hour = digits(&mut rest, 2).filter(|hour| *hour <= 23)?;
    byte(&mut rest, b":")?;
    let minute = digits(&mut rest, 2).filter(|minute| *minute <= 59)?;
    byte(&mut rest, b":")?;
    // A leap second is the first one of the next minute.
    let second = digits(&mut rest, 2).filter(|second| *second <= 60)?;
    let millis = fraction(&mut rest)?;
    let offset_minutes = offset(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    let at = (minutes * 60 + second) * 1000 + millis;
    Some(WallMillis::new(if at == YEAR_ONE { 0 } else { at }))
}

fn byte(rest: &mut &[u8], one_of: &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    one_of.contains(first).then_some(*first)
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (number, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    number.iter().try_fold(0, |sum, digit| Some(sum * 10 + i64::from(char::from(*digit).to_digit(10)?)))
}

/// Of a point and any number of digits, the first three.
fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let Some((b'.', behind)) = rest.split_first() else { return Some(0) };
    let len = behind.iter().take_while(|digit| digit.is_ascii_digit()).count();
    let (fraction, behind) = behind.split_at_checked(len).filter(|(fraction, _)| !fraction.is_empty())?;
    *rest = behind;
    let of = |place: usize| fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'));
    Some(of(0) * 100 + of(1) * 10 + of(2))
}

fn offset(rest: &mut &[u8]) -> Option<i64> {
    let sign = match byte(rest, b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Some(0),
    };
    let hours = digits(rest, 2).filter(|hours| *hours <= 23)?;
    byte(rest, b":")?;
    let minutes = digits(rest, 2).filter(|minutes| *minutes <= 59)?;
    Some(sign * (hours * 60 + minutes))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to this day. Years begin in March here, so that the day which not every year has is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month_from_march + 2) / 5 + day - 1 - 719_468
}

const YEAR_ONE: i64 = -62_135_596_800_000;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::cli::print::rfc_3339;

    fn millis(text: &str) -> Option<i64> {
        parse_time(text).map(WallMillis::as_millis)
    }

    #[test]
    fn a_moment_is_the_same_however_it_is_written() {
        let at = 1_772_532_000_123;
        for text in [
            "2026-03-03T10:00:00.123Z",
            "2026-03-03t10:00:00.123z",
            "2026-03-03 10:00:00.123999999999Z",
            "2026-03-03T10:00:00.123+00:00",
            "2026-03-03T10:00:00.123-00:00",
            "2026-03-03T12:00:00.123+02:00",
            "2026-03-03T04:30:00.123-05:30",
            "2026-03-04T09:59:00.123+23:59",
            "2026-03-02T10:01:00.123-23:59",
        ] {
            assert_eq!(millis(text), Some(at), "{text}");
        }
        for (text, at) in [
            ("2026-03-03T10:00:00Z", 1_772_532_000_000),
            ("2026-03-03T10:00:00.1Z", 1_772_532_000_100),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("0001-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(millis(text), Some(at), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for day in -719_528_i64..=2_932_896 {
            let at = day * 86_400_000 + day.rem_euclid(86_400_000);
            if at != YEAR_ONE {
                assert_eq!(millis(&rfc_3339(at)), Some(at), "{day}");
            }
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2026-03-03",
            "2026-03-03T10:00:00",
            "2026-03-03T10:00Z",
            "2026-03-03T10:00:00.Z",
            "2026-03-03T10:00:00,5Z",
            "2026-03-03T10:00:00+0200",
            "2026-03-03T10:00:00+02",
            "2026-03-03T10:00:00+24:00",
            "2026-03-03T10:00:00+02:60",
            "2026-03-03T24:00:00Z",
            "2026-03-03T10:60:00Z",
            "2026-03-03T10:00:61Z",
            "2026-00-03T10:00:00Z",
            "2026-13-03T10:00:00Z",
            "2026-03-00T10:00:00Z",
            "2026-04-31T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "1900-02-29T10:00:00Z",
            "+026-03-03T10:00:00Z",
            "12026-03-03T10:00:00Z",
            "2026-03-03T10:00:00Z ",
            " 2026-03-03T10:00:00Z",
            "2026-03-03T10:00:00Zx",
            "2026\u{2d}03-0\u{663}T10:00:00Z",
            "1772532000",
        ] {
            assert_eq!(millis(text), None, "{text:?}");
        }
    }
}
