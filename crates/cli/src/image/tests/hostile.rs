//! Archives and registries as they should not be.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_archive() {
    let harbour = Harbour::open().await;
    for (bytes, why) in [
        (&b""[..], "empty archive"),
        (&[0; 1024], "empty archive"),
        (b"just a text that somebody took for an archive", "not a tar archive"),
        (&[b'x'; 2000], "not a tar archive"),
        (b"\xfd7zXZ\0....", "compressed with xz"),
        (b"BZh9....", "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd and then rubbish", "damaged or cut off"),
        (b"\x1f\x8b\x08 and then rubbish", "damaged or cut off"),
    ] {
        let text = harbour.refused(bytes).await;
        assert!(text.contains(why), "{why}: {text}");
    }
    let folder = harbour.folder.path().to_owned();
    let text = load(&folder, Some("x"), &harbour.endpoint, "AWS", "secret", &mut |_| {}).await.unwrap_err().to_string();
    assert!(text.contains("is not a file"), "{text}");
    let absent = folder.join("absent.tar");
    let text = load(&absent, Some("x"), &harbour.endpoint, "AWS", "secret", &mut |_| {}).await.unwrap_err().to_string();
    assert!(text.contains("absent.tar"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_are_cut_off() {
    let harbour = Harbour::open().await;
    let archive = docker_save(&["web"], &[&layer("x")]);
    let root = tar(&[("big", &[7; 5000])]);
    let text = harbour.refused(&root[..3000]).await;
    assert!(text.contains("cut off within \"big\""), "{text}");
    let packed = gzip(&archive);
    let text = harbour.refused(&packed[..packed.len() / 2]).await;
    assert!(text.contains("damaged or cut off"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives_that_lie() {
    let harbour = Harbour::open().await;
    let plain = layer("x");
    let config = json!({ "rootfs": { "diff_ids": [sha256(b"other")] } }).to_string();
    let good = json!({ "rootfs": { "diff_ids": [sha256(&plain)] } }).to_string();
    let list = |layer: &str| json!([{ "Config": "c.json", "RepoTags": ["web"], "Layers": [layer] }]).to_string();
    let (here, gone) = (list("a/layer.tar"), list("b/layer.tar"));
    for (config, manifest, why) in [
        (config.as_str(), here.as_str(), "the configuration wants sha256:"),
        (&good, &gone, "\"b/layer.tar\" is missing"),
        ("{}", &here, "not an image configuration"),
        ("{\"rootfs\":{\"diff_ids\":[]}}", &here, "1 layers are listed, but the configuration has 0"),
        (&good, "[]", "lists no image"),
        (&good, "[{\"Config\": 1}]", "manifest.json is not docker's"),
    ] {
        let archive = tar(&[("c.json", config.as_bytes()), ("a/layer.tar", &plain), ("manifest.json", manifest.as_bytes())]);
        let text = harbour.refused(&archive).await;
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_archives_that_lie() {
    let harbour = Harbour::open().await;
    let (archive, digest) = oci_archive(&json!({}), &[&layer("x")]);
    // Change one byte of the manifest's content: the text "byte for byte" stands only there.
    let at = archive.windows(13).position(|w| w == b"byte for byte").unwrap();
    let mut changed = archive.clone();
    changed[at] = b'B';
    let text = harbour.refused(&changed).await;
    assert!(text.contains(&format!("blob {digest} has digest sha256:")), "{text}");

    for (bad, why) in [("sha256:../../../etc/passwd", "not a sha256 digest"), (&format!("sha256:{}", "0".repeat(64)), "is missing")] {
        let index = json!({ "manifests": [{ "digest": bad, "size": 1 }] }).to_string();
        let text = harbour.refused(&tar(&[("oci-layout", b"{}"), ("index.json", index.as_bytes())])).await;
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_contains_itself_in_turns() {
    let harbour = Harbour::open().await;
    // Five indexes, each naming the next: no tool nests so deep.
    let mut files: Vec<(String, String)> = Vec::new();
    let mut inner = json!({ "manifests": [] }).to_string();
    for _ in 0..6 {
        let digest = sha256(inner.as_bytes());
        files.push((digest.replace("sha256:", "blobs/sha256/"), inner.clone()));
        let descriptor = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": inner.len() });
        inner = json!({ "manifests": [descriptor] }).to_string();
    }
    files.push(("index.json".into(), inner));
    files.push(("oci-layout".into(), "{}".into()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let text = harbour.refused(&tar(&files)).await;
    assert!(text.contains("nested more than"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_links_and_headers_that_attack() {
    let harbour = Harbour::open().await;
    let entry = |name: &[u8], kind: tar::EntryType, link: &[u8], size: u64| {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let outside = entry(b"../../etc/cron.d/x", tar::EntryType::Regular, b"", 0);
    let text = harbour.refused(&outside).await;
    assert!(text.contains("leads out of it"), "{text}");

    let long = entry(b"x", tar::EntryType::GNULongName, b"", 1 << 40);
    let text = harbour.refused(&long).await;
    assert!(text.contains("extended header of 1099511627776 bytes"), "{text}");

    let endless = entry(b"x", tar::EntryType::Regular, b"", u64::MAX >> 1);
    let text = harbour.refused(&endless).await;
    assert!(text.contains("damaged"), "{text}");
    let larger = entry(b"x", tar::EntryType::Regular, b"", 1 << 40);
    let text = harbour.refused(&larger).await;
    assert!(text.contains("cut off"), "{text}");

    let config = json!({ "rootfs": { "diff_ids": [sha256(b"x")] } }).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["web"], "Layers": ["a/layer.tar"] }]).to_string();
    let mut looped = tar(&[("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]);
    looped.truncate(looped.len() - 1024); // the end mark, so that more can follow
    for (from, to) in [(&b"a/layer.tar"[..], &b"../b/layer.tar"[..]), (b"b/layer.tar", b"../a/layer.tar")] {
        looped.extend(entry(from, tar::EntryType::Symlink, to, 0));
    }
    let text = harbour.refused(&looped).await;
    assert!(text.contains("leads nowhere"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_refuse_or_are_not_there() {
    let harbour = Harbour::open().await;
    let path = harbour.write("web.tar", &docker_save(&["web"], &[&layer("x")]));
    let wrong = load(&path, None, &harbour.endpoint, "AWS", "wrong", &mut |_| {}).await;
    assert!(matches!(wrong, Err(LoadError::Unauthorized { .. })), "{wrong:?}");
    let name = load(&path, Some("NO"), &harbour.endpoint, "AWS", "secret", &mut |_| {}).await;
    assert!(matches!(name, Err(LoadError::Name { .. })), "{name:?}");

    // A port that was just free, so nobody answers.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let gone = load(&path, None, &format!("http://127.0.0.1:{port}"), "AWS", "secret", &mut |_| {}).await;
    assert!(matches!(gone, Err(LoadError::Unreachable { .. })), "{gone:?}");
}

/// A registry that hands the upload to another host does not get the password sent there.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_never_leaves_for_another_host() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let harbour = Harbour::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            let answer: &[u8] = if head[..count].starts_with(b"HEAD") {
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            } else {
                b"HTTP/1.1 202 Accepted\r\nLocation: http://192.0.2.1/v2/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            };
            stream.write_all(answer).await.unwrap();
        }
    });
    let path = harbour.write("web.tar", &docker_save(&["web"], &[&layer("x")]));
    let text = load(&path, None, &endpoint, "AWS", "secret", &mut |_| {}).await.unwrap_err().to_string();
    server.abort();
    assert!(text.contains("sends the upload elsewhere, to http://192.0.2.1"), "{text}");
}
