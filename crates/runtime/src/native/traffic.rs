//! What went over the network of a process's namespace, as the kernel tells it. Reads only.

use crate::port::{Direction, Traffic};

/// Of the namespace that a process is in; `None` if it is gone.
#[must_use]
pub fn of(pid: i32) -> Option<Traffic> {
    Some(parse(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?))
}

/// Two lines of headings; then each interface's name, eight numbers of what came in, eight of what went out.
fn parse(text: &str) -> Traffic {
    let mut all = Traffic::default();
    for (name, numbers) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        add(&mut all.received, numbers.get(..8).unwrap_or_default());
        add(&mut all.sent, numbers.get(8..).unwrap_or_default());
    }
    all
}

fn add(to: &mut Direction, numbers: &[u64]) {
    let [bytes, packets, errors, dropped, ..] = numbers else { return };
    to.bytes += bytes;
    to.packets += packets;
    to.errors += errors;
    to.dropped += dropped;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_but_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
            \x20   lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n\
            \x20 eth0:    5000      40    1    2    0     0          0         0     3000      30    3    4    0     0       0          0\n\
            \x20 eth1:       1       1    0    0    0     0          0         0        2       1    0    0    0     0       0          0\n";
        let read = parse(text);
        assert_eq!(read.received, Direction { bytes: 5001, packets: 41, errors: 1, dropped: 2 });
        assert_eq!(read.sent, Direction { bytes: 3002, packets: 31, errors: 3, dropped: 4 });
        assert_eq!(parse(""), Traffic::default());
    }

    #[test]
    fn of_a_process_that_is_there() {
        assert!(of(std::process::id().cast_signed()).is_some());
        assert_eq!(of(i32::MAX), None);
    }
}
