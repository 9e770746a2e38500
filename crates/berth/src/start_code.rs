//! The pages of the program that only its start touched.
//!
//! A start runs through most of the program once: options, certificates, registration. The kernel maps these pages, and what lies around them,
//! and without pressure never takes them back: 13 MB of an idle agent's 20 were such. They are clean pages of a file, so letting go of them
//! loses nothing; what is still needed is mapped again when it is touched.

use std::path::Path;
use std::time::Duration;

/// How long after it is ready a process is still starting: the first reports and clean-ups fall into it.
const SETTLED: Duration = Duration::from_secs(3);

/// Lets go of the program's pages once, some seconds from now, beside whatever else runs.
pub(crate) fn let_go_later() {
    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        let_go();
    });
}

#[cfg(target_os = "linux")]
fn let_go() {
    let (Ok(program), Ok(maps)) = (std::fs::read_link("/proc/self/exe"), std::fs::read_to_string("/proc/self/maps")) else { return };
    for (start, length) in code_of(&program, &maps) {
        // SAFETY: the range is a mapping of this process, private, executable and not writable, of a file: none of its pages can differ from
        // the file's, and after MADV_DONTNEED whoever touches one finds the file's again (madvise(2)).
        let outcome = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        if outcome != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "the program's pages stay mapped");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn let_go() {}

/// Start and length in bytes of what is mapped of a program to be run and not written, from the text of `/proc/PID/maps`.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has /proc"))]
fn code_of(program: &Path, maps: &str) -> Vec<(usize, usize)> {
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let path = &rest[rest.find('/')?..];
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (rest.starts_with("r-xp ") && Path::new(path) == program).then(|| (start, end.saturating_sub(start)))
    };
    maps.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_let_go() {
        let maps = "\
            55d0c0000000-55d0c0400000 r--p 00000000 fe:00 1                          /opt/my berth\n\
            55d0c0400000-55d0c2400000 r-xp 00400000 fe:00 1                          /opt/my berth\n\
            55d0c2400000-55d0c2500000 rw-p 02400000 fe:00 1                          /opt/my berth\n\
            55d0c3000000-55d0c3100000 rw-p 00000000 00:00 0                          [heap]\n\
            7f0000000000-7f0000100000 r-xp 00000000 fe:00 2                          /lib/libc.so.6\n\
            7f0000200000-7f0000201000 rwxp 00000000 fe:00 1                          /opt/my berth\n";
        assert_eq!(code_of(Path::new("/opt/my berth"), maps), [(0x55d0_c040_0000, 0x200_0000)]);
        assert!(code_of(Path::new("/opt/other"), maps).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_goes_on_without_its_pages() {
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!code_of(&program, &maps).is_empty(), "a program has code");
        let before = resident_code(&program);
        let_go();
        let after = resident_code(&program);
        assert!(after < before, "{before} KiB before, {after} after");
    }

    /// KiB of the program's code that are mapped now, of `/proc/self/smaps`.
    #[cfg(target_os = "linux")]
    fn resident_code(program: &Path) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut resident, mut is_code) = (0, false);
        for line in smaps.lines() {
            if line.contains(" r-xp ") {
                is_code = !code_of(program, line).is_empty();
            } else if line.split_once('-').is_some_and(|(start, _)| usize::from_str_radix(start, 16).is_ok()) {
                is_code = false;
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| is_code) {
                resident += size.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
        }
        resident
    }
}
