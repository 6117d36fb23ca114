//! Byte counts and durations as BuildKit's displays write them.

/// Decimal units with two digits: `32B`, `1.62kB`, `3.40MB`.
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let magnitude = count.unsigned_abs();
    if magnitude < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Seconds since the start of a step, as they stand in front of a log line: always about four digits wide.
pub fn log_offset(seconds: f64) -> String {
    let precision = if seconds < 10.0 {
        3
    } else if seconds < 100.0 {
        2
    } else {
        1
    };
    format!("{seconds:.precision$}")
}

/// Binary units with four significant digits: `512B`, `9.313GiB`. Used for limits.
pub fn binary(count: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{}{}", significant(value), UNITS[unit])
}

/// Decimal units with four significant digits: `512B`, `1.62kB`. Used for disk usage.
pub fn decimal(count: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", significant(value), UNITS[unit])
}

/// Four significant digits without trailing zeros.
fn significant(value: f64) -> String {
    let digits_before = if value < 1.0 {
        1
    } else {
        value.log10().floor() as usize + 1
    };
    let text = format!("{value:.*}", 4usize.saturating_sub(digits_before));
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_read_like_buildkit() {
        for (count, text) in [
            (0, "0B"),
            (32, "32B"),
            (999, "999B"),
            (1620, "1.62kB"),
            (3_400_000, "3.40MB"),
            (12_000_000_000, "12.00GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in [
            (512, "512B"),
            (1 << 30, "1GiB"),
            (10_000_000_000, "9.313GiB"),
            (1536, "1.5KiB"),
        ] {
            assert_eq!(binary(count), text);
        }
        for (count, text) in [
            (0, "0B"),
            (512, "512B"),
            (4096, "4.096kB"),
            (12_345_678, "12.35MB"),
            (999_999, "1000kB"),
            (1_000_000, "1MB"),
        ] {
            assert_eq!(decimal(count), text);
        }
    }

    #[test]
    fn log_offsets_keep_their_width() {
        for (seconds, text) in [(0.1234, "0.123"), (12.345, "12.35"), (123.45, "123.5")] {
            assert_eq!(log_offset(seconds).len(), text.len());
        }
        assert_eq!(log_offset(0.1234), "0.123");
    }
}
