//! Archives as they should be.

use super::super::{ArchiveKind, architecture};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_saved() {
    let harbour = Harbour::open().await;
    let (base, top) = (layer("base"), layer("top"));
    let archive = docker_save(&["docker.io/library/web:v1", "web:other"], &[&base, &top]);
    let path = harbour.write("web.tar", &archive);
    let mut told = Vec::new();
    let loaded = load(&path, None, &harbour.endpoint, "AWS", "secret", &mut |p| told.push(p)).await.expect("load");
    assert_eq!((loaded.reference.as_str(), loaded.kind, loaded.layers), ("web:v1", ArchiveKind::Docker, 2));
    assert_eq!(loaded.pushed_bytes, loaded.bytes);
    assert!(matches!(told[0], Progress::Reading { bytes: 0 }));
    assert!(matches!(told.last(), Some(Progress::Pushing { blob: 3, blobs: 3, bytes, total }) if bytes == total), "{told:?}");

    let (manifest, config, layers) = harbour.pull("web", "v1").await;
    assert_eq!(layers, [base.clone(), top.clone()]);
    assert_eq!(config["rootfs"]["diff_ids"], json!([sha256(&base), sha256(&top)]));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(loaded.digest, sha256(&harbour.get("/v2/web/manifests/v1").await));

    // The second time everything is there, and the digest is the same.
    let mut told = Vec::new();
    let again = load(&path, None, &harbour.endpoint, "AWS", "secret", &mut |p| told.push(p)).await.expect("load");
    assert_eq!((again.digest, again.pushed_bytes), (loaded.digest, 0));
    assert_eq!(told.iter().filter(|p| matches!(p, Progress::Present { .. })).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn gzipped_archives_and_layers() {
    let harbour = Harbour::open().await;
    let plain = layer("x");
    let archive = docker_save(&["web:v1"], &[&plain]);
    let one = harbour.load(&archive, None).await.expect("plain");
    let two = harbour.load(&gzip(&archive), Some("web:v2")).await.expect("gzipped");
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    let three = harbour.load(&zstd, Some("web:v3")).await.expect("zstd");
    assert_eq!((&one.digest, &one.digest), (&two.digest, &three.digest));

    // A layer that is packed already stays as it is; its diff id is that of its content.
    let packed = gzip(&plain);
    let config = json!({ "rootfs": { "diff_ids": [sha256(&plain)] } }).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["packed"], "Layers": ["a/layer.tar.gz"] }]).to_string();
    let archive = tar(&[("c.json", config.as_bytes()), ("a/layer.tar.gz", &packed), ("manifest.json", manifest.as_bytes())]);
    let loaded = harbour.load(&archive, None).await.expect("packed layer");
    let (manifest, _, layers) = harbour.pull("packed", "latest").await;
    assert_eq!((loaded.reference.as_str(), &layers[0]), ("packed:latest", &plain));
    assert_eq!(manifest["layers"][0]["digest"], sha256(&packed));
}

/// Docker before 25 wrote a layer once and linked to it.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_links_or_repeated() {
    let harbour = Harbour::open().await;
    let plain = layer("x");
    let config = json!({ "rootfs": { "diff_ids": [sha256(&plain), sha256(&plain)] } }).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["b/layer.tar", "a/layer.tar"] }]).to_string();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes()), ("a/layer.tar", &plain)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("./{name}"), bytes).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
    let archive = builder.into_inner().unwrap();
    let loaded = harbour.load(&archive, Some("web")).await.expect("load");
    assert_eq!(loaded.layers, 2);
    assert_eq!(harbour.pull("web", "latest").await.2, [plain.clone(), plain]);
    let nameless = harbour.load(&archive, None).await.unwrap_err().to_string();
    assert!(nameless.contains("RepoTags") && nameless.contains("give NAME:TAG"), "{nameless}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout_keeps_its_digest() {
    let harbour = Harbour::open().await;
    let plain = layer("x");
    let named = json!({ "org.opencontainers.image.ref.name": "localhost/team/web:v3" });
    let (archive, digest) = oci_archive(&named, &[&plain]);
    let loaded = harbour.load(&archive, None).await.expect("load");
    assert_eq!((loaded.reference.as_str(), loaded.kind), ("team/web:v3", ArchiveKind::Oci));
    assert_eq!(loaded.digest, digest);
    assert_eq!(harbour.pull("team/web", &digest).await.2, std::slice::from_ref(&plain));

    let full = json!({ "io.containerd.image.name": "docker.io/library/api:v1", "org.opencontainers.image.ref.name": "v1" });
    let loaded = harbour.load(&gzip(&oci_archive(&full, &[&plain]).0), None).await.expect("load");
    assert_eq!(loaded.reference, "api:v1");

    let (bare, _) = oci_archive(&json!({ "org.opencontainers.image.ref.name": "v1" }), &[&plain]);
    let text = harbour.load(&bare, None).await.unwrap_err().to_string();
    assert!(text.contains("ref.name is only \"v1\""), "{text}");
}

/// As buildx writes it: an index inside the index, with other platforms and an attestation beside ours.
#[tokio::test(flavor = "multi_thread")]
async fn this_machines_image_is_taken_from_an_index() {
    let harbour = Harbour::open().await;
    let config = b"{}";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config), "size": 2 },
        "layers": [],
    })
    .to_string();
    let of = |arch: &str, digest: String, size: usize| {
        let platform = json!({ "os": "linux", "architecture": arch });
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": platform })
    };
    let mut attestation = of("unknown", sha256(b"attestation"), 11);
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let other = if architecture() == "s390x" { "amd64" } else { "s390x" };
    let ours = of(architecture(), sha256(manifest.as_bytes()), manifest.len());
    for (manifests, expected) in [
        (json!([of(other, sha256(b"other"), 5), attestation, ours]), Ok(())),
        (json!([of(other, sha256(b"other"), 5), of("sparc", sha256(b"sparc"), 5)]), Err("only for: linux/")),
    ] {
        let inner = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        let descriptor =
            json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": sha256(inner.as_bytes()), "size": inner.len() });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string();
        let path = |bytes: &[u8]| sha256(bytes).replace("sha256:", "blobs/sha256/");
        let archive = tar(&[
            ("oci-layout", b"{}"),
            ("index.json", index.as_bytes()),
            (&path(inner.as_bytes()), inner.as_bytes()),
            (&path(manifest.as_bytes()), manifest.as_bytes()),
            (&path(config), config),
        ]);
        match (harbour.load(&archive, Some("web:v1")).await, expected) {
            (Ok(loaded), Ok(())) => assert_eq!(loaded.digest, sha256(manifest.as_bytes())),
            (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_root_file_system() {
    let harbour = Harbour::open().await;
    // A file of that name alone makes no docker archive.
    let root = tar(&[("bin/sh", b"#!"), ("manifest.json", b"{\"name\": \"a web page\"}"), ("a/b/c/d/e", b"deep")]);
    let plain = harbour.load(&root, Some("base:1")).await.expect("plain");
    assert_eq!((plain.kind, plain.layers), (ArchiveKind::RootFileSystem, 1));
    let (_, config, layers) = harbour.pull("base", "1").await;
    assert_eq!(layers, std::slice::from_ref(&root));
    assert_eq!((&config["architecture"], &config["config"]), (&json!(architecture()), &json!({})));
    assert_eq!(config["rootfs"]["diff_ids"], json!([sha256(&root)]));

    let packed = gzip(&root);
    harbour.load(&packed, Some("base:2")).await.expect("gzipped");
    let (manifest, _, layers) = harbour.pull("base", "2").await;
    assert_eq!(manifest["layers"][0]["digest"], sha256(&packed), "pushed as it came");
    assert_eq!(layers, std::slice::from_ref(&root));

    harbour.load(&zstd::encode_all(&root[..], 1).unwrap(), Some("base:3")).await.expect("zstd");
    assert_eq!(harbour.pull("base", "3").await.2, std::slice::from_ref(&root), "packed anew, with gzip");

    let text = harbour.load(&root, None).await.unwrap_err().to_string();
    assert!(text.contains("plain root file system") && text.contains("give NAME:TAG"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_image_of_several() {
    let harbour = Harbour::open().await;
    let (one, two) = (layer("one"), layer("two"));
    let config = |layer: &[u8]| json!({ "rootfs": { "diff_ids": [sha256(layer)] } }).to_string();
    let (first, second) = (config(&one), config(&two));
    let manifest = json!([
        { "Config": "1.json", "RepoTags": ["web:v1"], "Layers": ["1/layer.tar"] },
        { "Config": "2.json", "RepoTags": ["web:v2"], "Layers": ["2/layer.tar"] },
    ])
    .to_string();
    let archive = tar(&[
        ("1.json", first.as_bytes()),
        ("2.json", second.as_bytes()),
        ("1/layer.tar", &one),
        ("2/layer.tar", &two),
        ("manifest.json", manifest.as_bytes()),
    ]);
    for name in [None, Some("web:v3")] {
        let text = harbour.load(&archive, name).await.unwrap_err().to_string();
        assert!(text.contains("web:v1, web:v2"), "{text}");
    }
    harbour.load(&archive, Some("web:v2")).await.expect("load");
    assert_eq!(harbour.pull("web", "v2").await.2, [two]);
}

/// Several pieces of a stream, and more than one read of every buffer on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_larger_than_every_buffer() {
    let harbour = Harbour::open().await;
    let mut state = 1u64;
    let noise: Vec<u8> = (0..3 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    let big = tar(&[("noise", &noise)]);
    let loaded = harbour.load(&docker_save(&["big"], &[&big]), None).await.expect("load");
    assert!(loaded.pushed_bytes > 3 << 20);
    assert_eq!(harbour.pull("big", "latest").await.2, [big]);
}
