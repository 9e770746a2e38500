//! Packs the program's relocations, where the C library can read them so.
//!
//! The program has some 57,000 places that its start corrects by where it was loaded. As a plain table they are 1.4 MB, all of which the
//! dynamic linker reads, so that it stays in memory with every server and agent; packed (`DT_RELR`) they are a twentieth. glibc reads that
//! from 2.36 on. An older one refuses to start such a program (`GLIBC_ABI_DT_RELR` not found), therefore a machine with an older one builds
//! it without, and `BERTH_PORTABLE=1` builds it without for other machines.

use std::env;
use std::process::Command;

/// The first glibc that reads packed relocations.
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BERTH_PORTABLE");
    let of = |name: &str| env::var(name).unwrap_or_default();
    let is_for_here = of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu" && of("TARGET") == of("HOST");
    if is_for_here && of("BERTH_PORTABLE") != "1" && glibc().is_some_and(|version| version >= FIRST) {
        // A linker that does not know it warns and goes on.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// This machine's glibc.
fn glibc() -> Option<(u32, u32)> {
    let found = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(found.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
