//! Tests of unpacking into a folder; they change owners and make devices, so they need root.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::conformance::fixture::{Layer, Packing, digest, pack};

fn is_root() -> bool {
    // SAFETY: no memory arguments.
    let root = unsafe { libc::geteuid() == 0 };
    if !root {
        println!("SKIPPED (needs root): unpacking");
    }
    root
}

fn into_folder(layer: Layer, packing: Packing, limits: Limits) -> (Result<Unpacked, UnpackError>, Unpacked, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tar = layer.finish();
    let packed = pack(&tar, packing);
    let result = unpack(packed.as_slice(), packed.len() as u64, folder.path(), limits);
    (result, Unpacked { diff_id: digest(&tar), bytes: tar.len() as u64 }, folder)
}

#[test]
fn every_packing_gives_the_same() {
    if !is_root() {
        return;
    }
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let layer = Layer::default()
            .file("./deep/er/file", 0o640, vec![5; 700_000])
            .folder("/deep", 0o711)
            .symlink("link", "deep/er")
            .file("link/through", 0o4755, "x")
            .hard_link("hard", "deep/er/file")
            .file("hard2", 0o600, "old")
            .file("hard2", 0o600, "new");
        let (result, diff_id, folder) = into_folder(layer, packing, Limits::default());
        assert_eq!(result.unwrap(), diff_id, "{packing:?}");
        let meta = |name: &str| std::fs::symlink_metadata(folder.path().join(name)).unwrap();
        assert_eq!((meta("deep/er/file").mode() & 0o7777, meta("deep/er/file").len()), (0o640, 700_000));
        assert_eq!((meta("deep").mode() & 0o7777, meta("deep").mtime()), (0o711, 1_000_000_000));
        assert_eq!(meta("deep/er/through").mode() & 0o7777, 0o4755);
        assert_eq!(meta("hard").ino(), meta("deep/er/file").ino());
        assert_eq!(std::fs::read(folder.path().join("hard2")).unwrap(), b"new");
        assert!(meta("link").is_symlink());
    }
}

#[test]
fn whiteouts_become_overlays_own() {
    if !is_root() {
        return;
    }
    let layer = Layer::default().file("a/.wh.gone", 0o644, "").file("b/.wh..wh..opq", 0o644, "").file("b/new", 0o644, "");
    let (result, _, folder) = into_folder(layer, Packing::Plain, Limits::default());
    result.unwrap();
    let gone = std::fs::metadata(folder.path().join("a/gone")).unwrap();
    assert_eq!((gone.mode() & libc::S_IFMT, gone.rdev()), (libc::S_IFCHR, 0));
    let mut value = [0u8; 4];
    let place = CString::new(folder.path().join("b").to_str().unwrap()).unwrap();
    // SAFETY: the strings outlive the call and the buffer is valid for its length.
    let length = unsafe { libc::getxattr(place.as_ptr(), c"trusted.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), 4) };
    assert_eq!((length, value[0]), (1, b'y'));
}

#[test]
fn nothing_leaves_the_folder() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let there = outside.path().to_str().unwrap();
    for layer in [
        Layer::default().file("a/../../x", 0o644, "x"),
        Layer::default().hard_link("x", "../../../../etc/passwd"),
        Layer::default().symlink("x", there).hard_link("y", "x/../../etc/passwd"),
        Layer::default().file(".wh...", 0o644, ""),
    ] {
        let (result, _, _folder) = into_folder(layer, Packing::Plain, Limits::default());
        assert!(matches!(result, Err(UnpackError::Invalid(_))), "{result:?}");
    }
    let layer = Layer::default().symlink("way", there).file("way/evil", 0o644, "x").folder("way", 0o700);
    let _ = into_folder(layer, Packing::Plain, Limits::default());
    let magic = Layer::default().symlink("self", "/proc/self/root").file("self/tmp/evil", 0o644, "x");
    let _ = into_folder(magic, Packing::Plain, Limits::default());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!std::path::Path::new("/tmp/evil").exists());
}

#[test]
fn bombs_are_cut_short() {
    if !is_root() {
        return;
    }
    let small = Limits { entries: 3, bytes: 1 << 30, ratio: 10, free_bytes: 1 << 20 };
    let bomb = || Layer::default().file("zeros", 0o644, vec![0; 8 << 20]);
    for packing in [Packing::Gzip, Packing::Zstd] {
        let (result, _, folder) = into_folder(bomb(), packing, small);
        assert!(matches!(&result, Err(UnpackError::Invalid(text)) if text.contains("more than is believable")), "{result:?}");
        assert!(std::fs::metadata(folder.path().join("zeros")).is_ok_and(|meta| meta.len() <= 1 << 20));
    }
    into_folder(bomb(), Packing::Plain, small).0.expect("what is long because it is long is no bomb");
    let many = (0..4).fold(Layer::default(), |layer, number| layer.file(&number.to_string(), 0o644, ""));
    let (result, _, _folder) = into_folder(many, Packing::Gzip, small);
    assert!(matches!(&result, Err(UnpackError::Invalid(text)) if text.contains("more than 3 entries")), "{result:?}");
}

#[test]
fn a_broken_source_is_told_from_a_bad_layer() {
    struct Breaks;
    impl Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("connection reset"))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let tar = Layer::default().file("a", 0o644, vec![1; 4096]).finish();
    let result = unpack(tar[..1000].chain(Breaks), tar.len() as u64, folder.path(), Limits::default());
    assert!(matches!(&result, Err(UnpackError::Source(error)) if error.to_string() == "connection reset"), "{result:?}");
    let result = unpack(&b"no tar at all, but long enough to be looked at".repeat(40)[..], 1840, folder.path(), Limits::default());
    assert!(matches!(result, Err(UnpackError::Invalid(_))), "{result:?}");
}
