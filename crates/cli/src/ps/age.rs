//! How long ago something was, in one short word.

/// `5s`, `5m`, `5h` or `5d`, rounded down; two units where the first is small enough for the second to matter.
pub(crate) fn render(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => format!("{minutes}m{:02}s", seconds % 60),
        600..3600 => format!("{minutes}m"),
        3600..36_000 => format!("{hours}h{:02}m", minutes % 60),
        36_000..86_400 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn ages() {
        let seen: Vec<String> =
            [-5, 0, 59_999, 60_000, 601_000, 3_600_000, 35_999_000, 36_000_000, 86_399_000, 86_400_000, 900 * 86_400_000]
                .into_iter()
                .map(render)
                .collect();
        assert_eq!(seen, ["0s", "0s", "59s", "1m00s", "10m", "1h00m", "9h59m", "10h", "23h", "1d", "900d"]);
    }
}
