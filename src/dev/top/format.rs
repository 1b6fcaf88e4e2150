//! Formats numbers for people.

/// `1,234,567`.
pub(super) fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, with one decimal below 100.
pub(super) fn rate(number: f64) -> String {
    if number < 100.0 { format!("{:.1}", number.max(0.0)) } else { count(number) }
}

/// `850 µs`, `12 ms`, `3.2 s`, `4m10s`, `2h05m`, or a dash for an unknown duration.
pub(super) fn duration(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    if seconds.is_infinite() {
        return "long".to_owned();
    }
    let (minutes, rest) = ((seconds / 60.0).floor(), seconds % 60.0);
    match seconds {
        0.0 => "0 s".to_owned(),
        _ if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        _ if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds < 60.0 => format!("{seconds:.1} s"),
        _ if seconds < 3_600.0 => format!("{minutes:.0}m{:02.0}s", rest.floor()),
        _ => format!("{:.0}h{:02.0}m", (minutes / 60.0).floor(), minutes % 60.0),
    }
}

/// `512 KiB`, `1.5 GiB`.
pub(super) fn bytes(number: f64) -> String {
    let (mut number, mut unit) = (number, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if number >= 1024.0 {
            (number, unit) = (number / 1024.0, next);
        }
    }
    if number < 10.0 && unit != "B" {
        format!("{number:.1} {unit}")
    } else {
        format!("{number:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!(
            (count(0.0), count(999.0), count(1_234_567.0)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (rate(0.04), rate(99.94), rate(12_345.6)),
            ("0.0".into(), "99.9".into(), "12,346".into())
        );
        let times = [0.0, 0.000_85, 0.012, 3.21, 250.0, 7_500.0, f64::INFINITY]
            .map(|it| duration(Some(it)));
        assert_eq!(times, ["0 s", "850 µs", "12 ms", "3.2 s", "4m10s", "2h05m", "long"]);
        assert_eq!(duration(None), "-");
        assert_eq!([512.0, 524_288.0, 1_610_612_736.0].map(bytes), ["512 B", "512 KiB", "1.5 GiB"]);
    }
}
