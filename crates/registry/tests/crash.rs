//! What a crash leaves: a process killed in the middle of a push, and every kind of half-done step laid out by hand.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod serve;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use berth_registry::{Digest, Registry, Settings};
use reqwest::StatusCode;
use serde_json::json;
use serve::{MANIFEST, Served, contents, count, header, json_of, noise};

const CHILD: &str = "BERTH_REGISTRY_TEST_DIR";

/// Not a test of its own: the process that `killed_in_the_middle_of_a_push` starts and kills.
#[test]
fn child_serves_until_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let served = Served::open(dir.into(), Settings::default()).await;
        println!("\nlistening {}", served.address);
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_push() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("registry");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_serves_until_killed", "--nocapture"])
        .env(CHILD, &dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.map_while(Result::ok).find_map(|l| l.strip_prefix("listening ").map(str::to_owned)).unwrap();
    let client = serve::client();

    // A whole blob, then half an upload whose second half is still on its way when the process dies.
    let whole = noise(100_000, 1);
    let digest = Digest::sha256(&whole);
    let url = format!("http://{address}/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(client.post(url).body(whole.clone()).send().await.unwrap().status(), StatusCode::CREATED);
    let half = noise(2 << 20, 2);
    let start = client.post(format!("http://{address}/v2/a/blobs/uploads/")).send().await.unwrap();
    let path = header(&start, "location");
    let first = client.patch(format!("http://{address}{path}")).body(half[..1 << 20].to_vec()).send().await.unwrap();
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let mut broken = TcpStream::connect(&address).unwrap();
    write!(broken, "PATCH {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 1 << 20).unwrap();
    broken.write_all(&half[1 << 20..(1 << 20) + 50_000]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    let served = Served::open(dir.clone(), Settings::default()).await;
    assert_eq!(contents(&dir), 1);
    assert_eq!(served.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), whole);
    // The client asks how far it got and goes on.
    let status = served.get(&path).await;
    assert_eq!(status.status(), StatusCode::NO_CONTENT);
    let last: usize = header(&status, "range").strip_prefix("0-").unwrap().parse().unwrap();
    assert!(last + 1 >= 1 << 20, "acknowledged bytes are still there");
    let digest = Digest::sha256(&half);
    let finish = served.client.put(served.url(&format!("{path}?digest={digest}"))).body(half[last + 1..].to_vec());
    assert_eq!(finish.send().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(served.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), half);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_registry_has_everything() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("registry");
    let served = Served::open(dir.clone(), Settings::default()).await;
    let manifest = served.image("team/web", b"layer").await;
    served.put_manifest("team/web", "v1", MANIFEST, &manifest).await;
    let before = served.registry.images(&"team/web".parse().unwrap());
    let text = Registry::open(dir.clone()).err().map(|e| e.to_string()).unwrap();
    assert!(text.contains("another process has this registry open"), "{text}");
    close(served).await;

    let served = Served::open(dir, Settings::default()).await;
    assert_eq!(served.registry.images(&"team/web".parse().unwrap()), before);
    let body = served.get("/v2/team/web/manifests/v1").await.bytes().await.unwrap();
    assert_eq!(body, serde_json::to_vec(&manifest).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_done_steps_are_cleaned_up() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("registry");
    let served = Served::open(dir.clone(), Settings::default()).await;
    let manifest = served.image("a", b"layer").await;
    served.put_manifest("a", "v1", MANIFEST, &manifest).await;
    close(served).await;

    let stray = Digest::sha256(b"stray");
    let shard = dir.join("blobs/sha256").join(&stray.hex()[..2]);
    fs::create_dir_all(&shard).unwrap();
    fs::write(shard.join(stray.hex()), b"stray").unwrap(); // content renamed, link not written
    let gone = Digest::sha256(b"gone");
    fs::write(dir.join("repositories/a/_blobs/sha256").join(gone.hex()), b"").unwrap(); // link without content
    fs::write(dir.join("repositories/a/_tags/ghost"), gone.to_string()).unwrap(); // tag without manifest
    fs::write(dir.join("tmp/7"), b"half a manifest").unwrap();
    for (id, repository) in [("1", Some("a")), ("2", None), ("3", Some("Bad Name"))] {
        fs::create_dir(dir.join("uploads").join(id)).unwrap();
        fs::write(dir.join("uploads").join(id).join("bytes"), b"old").unwrap();
        if let Some(repository) = repository {
            fs::write(dir.join("uploads").join(id).join("repository"), repository).unwrap();
        }
    }

    // Opened two days later: what was left of the uploads has expired as well.
    let settings = Settings { clock: || SystemTime::now() + Duration::from_secs(2 * 86_400), ..Settings::default() };
    let served = Served::open(dir.clone(), settings).await;
    assert_eq!(contents(&dir), 3, "config, layer and manifest");
    assert_eq!(count(dir.join("uploads")), 0);
    assert_eq!(count(dir.join("tmp")), 0);
    assert_eq!(json_of(served.get("/v2/a/tags/list").await).await, json!({ "name": "a", "tags": ["v1"] }));
    assert_eq!(count(dir.join("repositories/a/_blobs/sha256")), 2);
    assert_eq!(count(dir.join("repositories/a/_tags")), 1);
    // What was cleaned can be pushed again.
    served.push_blob("a", b"stray").await;
}

/// Ends a server and waits until the last clone of its registry, and with it the folder's lock, is gone.
async fn close(served: Served) {
    let dir = served.dir.clone();
    drop(served);
    for _ in 0..1000 {
        match Registry::open(dir.clone()) {
            Ok(_) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the registry was never closed");
}
