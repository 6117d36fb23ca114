//! Sizes as Docker's flags take them: `512`, `64k`, `2g`, `1.5GiB`; powers of 1024.

pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    // The largest size that is exact as a floating-point number.
    (bytes <= 9e15).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [
            ("512", Some(512)),
            ("64k", Some(65536)),
            ("2G", Some(2 << 30)),
            ("1.5kib", Some(1536)),
            ("x", None),
            ("", None),
            ("-1", None),
            ("1q", None),
        ] {
            assert_eq!(super::parse(text), bytes, "{text}");
        }
    }
}
