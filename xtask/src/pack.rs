//! `cargo xtask image`: builds `examples/hello` statically and wraps it as a docker-archive, byte for byte the same for
//! the same binary, so that its digest is a constant that tests and caches can rely on.

use std::{
    error::Error,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest, Sha256};

/// The name under which `docker load` and `berth image load` know the image.
const TAG: &str = "hello:latest";

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where the archive goes; `target/hello.tar` if not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// `cargo` could not be started.
    #[error("could not start cargo")]
    Cargo(#[source] io::Error),
    /// The build failed; cargo has said why.
    #[error("building examples/hello failed")]
    Build,
    /// The binary wants a dynamic loader, which its image does not have.
    #[error("{} is not statically linked: are the C library's static archives installed (libc6-dev)?", .0.display())]
    Dynamic(PathBuf),
    /// A file could not be read or written.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

/// Runs the chore.
///
/// # Errors
/// As [`pack_hello`].
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let out = arguments.out.clone().unwrap_or_else(|| crate::workspace().join("target/hello.tar"));
    pack_hello(&out)?;
    println!("{}", out.display());
    Ok(())
}

/// Builds `hello` for this machine and writes it to `out` as a docker-archive.
///
/// # Errors
/// If the build fails, the binary is not static, or a file cannot be read or written.
pub fn pack_hello(out: &Path) -> Result<(), PackError> {
    let root = crate::workspace();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let built = Command::new(cargo)
        .current_dir(&root)
        .args(["rustc", "--quiet", "--release", "--package", "hello", "--bin", "hello", "--target-dir"])
        .arg(&target)
        .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .status()
        .map_err(PackError::Cargo)?;
    if !built.success() {
        return Err(PackError::Build);
    }
    let path = target.join("release/hello");
    let binary = fs::read(&path).map_err(|e| PackError::File(path.clone(), e))?;
    if !is_static(&binary) {
        return Err(PackError::Dynamic(path));
    }
    let archive = docker_archive(&binary, architecture()).map_err(|e| PackError::File(out.to_owned(), e))?;
    // Beside and renamed: somebody may be loading the old one.
    let fresh = out.with_extension(format!("tar.{}", std::process::id()));
    fs::write(&fresh, archive).and_then(|()| fs::rename(&fresh, out)).map_err(|e| PackError::File(out.to_owned(), e))
}

/// This machine's architecture as images name it (Go's GOARCH).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether a 64-bit little-endian ELF file has no PT_INTERP, i.e. asks for no dynamic loader.
fn is_static(binary: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = binary.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let scan = || {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let mut found = false;
        for i in 0..count {
            found |= number(usize::try_from(table + i * size).ok()?, 4)? == u64::from(PT_INTERP);
        }
        Some(!found)
    };
    binary.starts_with(b"\x7fELF\x02\x01") && scan().unwrap_or(false)
}

/// The archive: one layer with one file, its configuration, and docker's manifest of the two.
fn docker_archive(binary: &[u8], architecture: &str) -> io::Result<Vec<u8>> {
    let layer = tarball(&[("hello", 0o755, binary)])?;
    let layer_digest = hex::encode(Sha256::digest(&layer));
    let config = json!({
        "architecture": architecture,
        "config": {
            "Cmd": ["/hello"],
            "Env": ["PATH=/", "PORT=80"],
            "ExposedPorts": { "80/tcp": {} },
            "WorkingDir": "/",
        },
        "created": "1970-01-01T00:00:00Z",
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image" }],
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let layer_name = format!("{layer_digest}/layer.tar");
    let manifest = json!([{ "Config": &config_name, "Layers": [&layer_name], "RepoTags": [TAG] }]).to_string();
    let mut files = [
        (config_name.as_str(), 0o644, config.as_bytes()),
        (layer_name.as_str(), 0o644, layer.as_slice()),
        ("manifest.json", 0o644, manifest.as_bytes()),
    ];
    files.sort();
    tarball(&files)
}

fn tarball(files: &[(&str, u32, &[u8])]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, name, *bytes)?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_binary_makes_the_same_archive() {
        let one = docker_archive(b"binary", "amd64").unwrap();
        assert_eq!(one, docker_archive(b"binary", "amd64").unwrap());
        assert_ne!(one, docker_archive(b"Binary", "amd64").unwrap());
    }

    #[test]
    fn the_archive_holds_together() {
        let bytes = docker_archive(b"binary", "amd64").unwrap();
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!([TAG]));
        let config = &files[manifest[0]["Config"].as_str().unwrap()];
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex::encode(Sha256::digest(layer))));
        assert_eq!(config["config"]["Cmd"], json!(["/hello"]));
        let mut layer = tar::Archive::new(&layer[..]);
        let entry = layer.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.path().unwrap().to_str(), entry.header().mode().unwrap()), (Some("hello"), 0o755));
    }

    #[test]
    fn a_dynamic_binary_is_noticed() {
        // This test program itself wants a loader, as everything that cargo builds by default does here.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let expected = cfg!(target_feature = "crt-static");
        assert_eq!(is_static(&own), expected);
        assert!(!is_static(b"#!/bin/sh") && !is_static(b"\x7fELF\x02\x01"));
    }
}
