//! Plain root file system tars (`docker export`, `debootstrap | tar`, an Alpine mini root): an image of one layer, for
//! this machine's architecture, without a command of its own.

use std::sync::Arc;

use serde_json::json;

use super::archive::{Archive, Source};
use super::docker::assemble;
use super::layer::{Layer, Meter, pack};
use super::{ArchiveKind, Blob, Image, LoadError, OwnName, architecture};

pub(super) fn image(archive: &Archive, meter: &Arc<Meter>) -> Result<Image, LoadError> {
    let layer = match &archive.gzipped {
        // It came as a gzipped tar, which is just what a layer is.
        Some(packed) => Layer {
            blob: Blob { digest: packed.digest.clone(), size: packed.size, source: Source::Slice { file: packed.file.clone(), offset: 0 } },
            diff_id: packed.diff_id.clone(),
        },
        None => {
            let source = Source::Slice { file: archive.file.clone(), offset: 0 };
            pack(archive, "root file system", &source, archive.size, meter)?
        }
    };
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
    });
    let own_name = OwnName::None("it is a plain root file system".into());
    Ok(assemble(ArchiveKind::RootFileSystem, config.to_string().into_bytes(), vec![layer.blob], own_name))
}
