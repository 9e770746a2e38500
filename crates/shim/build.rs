//! Links the compiler's unwinder into the small programs instead of having each of them load `libgcc_s.so.1`.
//!
//! Both programs are executed once a container. Of such an execution the dynamic linker is most, and a fifth of that is this one library:
//! opened, mapped in four pieces, relocated, and asked what the processor can do, which in a virtual machine is a way out of it for each
//! question. The library's licence (GPL with the GCC runtime library exception) allows both ways.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name: &str| env::var(name).unwrap_or_default();
    // With another linker, or for another machine than this one, the library stays where it is: that is slower, and works.
    if of("CARGO_CFG_TARGET_OS") != "linux" || of("CARGO_CFG_TARGET_ENV") != "gnu" || of("TARGET") != of("HOST") || !has_unwinder() {
        return;
    }
    let folder = PathBuf::from(of("OUT_DIR"));
    // What the linker finds first under the name that the standard library asks for: a script that names the archives.
    std::fs::write(folder.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").expect("the build's own folder can be written");
    println!("cargo:rustc-link-search=native={}", folder.display());
}

fn has_unwinder() -> bool {
    let found = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    // A compiler that does not have it repeats the name.
    found.is_ok_and(|found| found.status.success() && Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_absolute())
}
