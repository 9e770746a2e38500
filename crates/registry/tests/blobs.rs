//! Blobs over real HTTP: pushing in every way, reading in every way, and every refusal on the path.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod serve;

use std::time::{Duration, SystemTime};

use berth_registry::{Algorithm, Digest, Settings, unauthorized};
use reqwest::StatusCode;
use serve::{Served, contents, count, header, noise, refused};

#[tokio::test(flavor = "multi_thread")]
async fn push_in_one_request_and_read_back() {
    let served = Served::fresh().await;
    let bytes = noise(3 << 20, 1);
    let digest = Digest::sha256(&bytes);
    let url = served.url(&format!("/v2/team/web/blobs/uploads/?digest={digest}"));
    let response = served.client.post(url).body(bytes.clone()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let path = header(&response, "location");
    assert_eq!(path, format!("/v2/team/web/blobs/{digest}"));

    let head = served.head(&path).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    assert_eq!(header(&head, "docker-content-digest"), digest.to_string());
    let get = served.get(&path).await;
    assert_eq!(header(&get, "etag"), format!("\"{digest}\""));
    assert!(header(&get, "cache-control").contains("immutable"));
    assert_eq!(get.bytes().await.unwrap(), bytes);

    let cached = served.client.get(served.url(&path)).header("if-none-match", format!("\"{digest}\""));
    assert_eq!(cached.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    assert_eq!(count(served.dir.join("uploads")), 0, "a finished upload leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn sha512_and_empty_blobs() {
    let served = Served::fresh().await;
    let bytes = noise(100_000, 2);
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let path = served.start("a").await;
    let response = served.client.put(served.url(&format!("{path}?digest={digest}"))).body(bytes.clone()).send().await;
    assert_eq!(response.unwrap().status(), StatusCode::CREATED);
    assert_eq!(served.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), bytes);

    let empty = served.push_blob("a", b"").await;
    let response = served.get(&format!("/v2/a/blobs/{empty}")).await;
    assert_eq!((response.status(), response.bytes().await.unwrap().len()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn resumable_upload() {
    let served = Served::fresh().await;
    let bytes = noise(300_000, 3);
    let path = served.start("a/b").await;
    let url = served.url(&path);
    let patch = |range: &'static str, part: &[u8]| {
        let request = served.client.patch(&url).header("content-range", range).body(part.to_vec());
        async move { request.send().await.unwrap() }
    };
    let first = patch("0-99999", &bytes[..100_000]).await;
    assert_eq!((first.status(), header(&first, "range")), (StatusCode::ACCEPTED, "0-99999".into()));

    let wrong = patch("150000-199999", &bytes[150_000..200_000]).await;
    assert_eq!(header(&wrong, "range"), "0-99999", "the refusal says where to go on");
    assert_eq!(refused(wrong, 416).await, "BLOB_UPLOAD_INVALID");
    let garbled = patch("x", b"x").await;
    assert_eq!(refused(garbled, 416).await, "BLOB_UPLOAD_INVALID");
    let lying = patch("100000-100009", b"x").await;
    assert_eq!(refused(lying, 400).await, "BLOB_UPLOAD_INVALID");

    let status = served.get(&path).await;
    assert_eq!((status.status(), header(&status, "range")), (StatusCode::NO_CONTENT, "0-99999".into()));
    let second = patch("100000-199999", &bytes[100_000..200_000]).await;
    assert_eq!(second.status(), StatusCode::ACCEPTED);

    let digest = Digest::sha256(&bytes);
    let finish = served.client.put(format!("{url}?digest={digest}")).header("content-range", "200000-299999");
    let finish = finish.body(bytes[200_000..].to_vec()).send().await.unwrap();
    assert_eq!(finish.status(), StatusCode::CREATED);
    assert_eq!(served.get(&format!("/v2/a/b/blobs/{digest}")).await.bytes().await.unwrap(), bytes);
    assert_eq!(refused(served.get(&path).await, 404).await, "BLOB_UPLOAD_UNKNOWN");
}

/// A chunked body without a length that is shorter than its range is taken back, and the upload still comes out right.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_too_short_is_taken_back() {
    let served = Served::fresh().await;
    let bytes = noise(5_000, 4);
    let path = served.start("a").await;
    let url = served.url(&path);
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes[..1000].to_vec())]);
    let request = served.client.patch(&url).header("content-range", "0-4999");
    let short = request.body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
    assert_eq!(refused(short, 400).await, "BLOB_UPLOAD_INVALID");
    let other = served.client.patch(&url).body(bytes[..500].to_vec()).send().await.unwrap();
    assert_eq!(header(&other, "range"), "0-499");
    let digest = Digest::sha256(&bytes[..500]);
    let finish = served.client.put(format!("{url}?digest={digest}")).send().await.unwrap();
    assert_eq!(finish.status(), StatusCode::CREATED);
    assert_eq!(served.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), &bytes[..500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_blob() {
    let served = Served::fresh().await;
    let bytes = noise(1 << 20, 5);
    let digest = served.push_blob("a", &bytes).await;
    let url = served.url(&format!("/v2/a/blobs/{digest}"));
    let part = served.client.get(&url).header("range", "bytes=300000-700000").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 300000-700000/1048576");
    assert_eq!(part.bytes().await.unwrap(), &bytes[300_000..=700_000]);
    let beyond = served.client.get(&url).header("range", "bytes=1048576-").send().await.unwrap();
    assert_eq!(header(&beyond, "content-range"), "bytes */1048576");
    assert_eq!(refused(beyond, 416).await, "RANGE_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_digests_and_names_are_refused() {
    let served = Served::fresh().await;
    let wrong = Digest::sha256(b"something else");
    let path = served.start("a").await;
    let put = served.client.put(served.url(&format!("{path}?digest={wrong}"))).body("x").send().await.unwrap();
    assert_eq!(refused(put, 400).await, "DIGEST_INVALID");
    let post = served.url(&format!("/v2/a/blobs/uploads/?digest={wrong}"));
    assert_eq!(refused(served.client.post(post).body("x").send().await.unwrap(), 400).await, "DIGEST_INVALID");
    let path = served.start("a").await;
    let none = served.client.put(served.url(&path)).body("x").send().await.unwrap();
    assert_eq!(refused(none, 400).await, "DIGEST_INVALID");
    assert_eq!(refused(served.head_as_get(&wrong).await, 404).await, "BLOB_UNKNOWN");

    for name in ["UPPER", "a//b", "a/..%2Fb", "-a"] {
        let start = served.client.post(served.url(&format!("/v2/{name}/blobs/uploads/"))).send().await.unwrap();
        assert_eq!(refused(start, 400).await, "NAME_INVALID", "{name}");
    }
    assert_eq!(contents(&served.dir), 0);
    // An upload belongs to the repository it was started in.
    let elsewhere = path.replacen("/a/", "/b/", 1);
    assert_eq!(refused(served.get(&elsewhere).await, 404).await, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(served.delete(&path).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(refused(served.delete(&path).await, 404).await, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(count(served.dir.join("uploads")), 0);
    let method = served.client.post(served.url("/v2/_catalog")).send().await.unwrap();
    assert_eq!(refused(method, 405).await, "UNSUPPORTED");
}

impl Served {
    async fn head_as_get(&self, digest: &Digest) -> reqwest::Response {
        self.get(&format!("/v2/a/blobs/{digest}")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_serves_only_what_was_pushed_or_mounted() {
    let served = Served::fresh().await;
    let digest = served.push_blob("a", b"shared").await;
    let in_b = format!("/v2/b/blobs/{digest}");
    assert_eq!(refused(served.get(&in_b).await, 404).await, "BLOB_UNKNOWN");
    // From a repository that lacks it, or from nowhere, a mount becomes an upload.
    for from in ["&from=c", ""] {
        let url = served.url(&format!("/v2/b/blobs/uploads/?mount={digest}{from}"));
        assert_eq!(served.client.post(url).send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
    let url = served.url(&format!("/v2/b/blobs/uploads/?mount={digest}&from=a"));
    let mounted = served.client.post(url).send().await.unwrap();
    assert_eq!((mounted.status(), header(&mounted, "location")), (StatusCode::CREATED, in_b.clone()));
    assert_eq!(contents(&served.dir), 1);

    assert_eq!(served.delete(&format!("/v2/a/blobs/{digest}")).await.status(), StatusCode::ACCEPTED);
    assert_eq!(served.get(&in_b).await.bytes().await.unwrap(), "shared");
    assert_eq!(served.delete(&in_b).await.status(), StatusCode::ACCEPTED);
    assert_eq!(contents(&served.dir), 0, "the last link takes the content with it");
    assert_eq!(refused(served.delete(&in_b).await, 404).await, "BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pushes_of_one_blob() {
    let served = Served::fresh().await;
    let bytes = noise(1 << 20, 6);
    let pushes = (0..16).map(|i| {
        let (served, bytes) = (&served, &bytes);
        async move { served.push_blob(&format!("repo{}", i % 4), bytes).await }
    });
    let digests = futures_util::future::join_all(pushes).await;
    assert_eq!(contents(&served.dir), 1);
    assert_eq!(count(served.dir.join("uploads")), 0);
    for name in ["repo0", "repo1", "repo2", "repo3"] {
        assert_eq!(served.get(&format!("/v2/{name}/blobs/{}", digests[0])).await.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_deletions_of_one_blob_never_leave_a_broken_link() {
    let served = Served::fresh().await;
    let bytes = noise(10_000, 7);
    let digest = Digest::sha256(&bytes);
    let path = format!("/v2/a/blobs/{digest}");
    for _ in 0..10 {
        tokio::join!(served.push_blob("a", &bytes), served.delete(&path), served.push_blob("b", &bytes));
        let response = served.get(&path).await;
        if response.status() == StatusCode::OK {
            assert_eq!(response.bytes().await.unwrap(), bytes);
        }
        assert_eq!(served.get(&format!("/v2/b/blobs/{digest}")).await.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_counts_are_bounded() {
    let settings = Settings { max_blob_bytes: 1000, max_open_uploads: 2, ..Settings::default() };
    let served = Served::with(settings).await;
    let path = served.start("a").await;
    let big = served.client.patch(served.url(&path)).body(vec![0; 1001]).send().await.unwrap();
    assert_eq!(refused(big, 413).await, "SIZE_INVALID");
    assert_eq!(refused(served.get(&path).await, 404).await, "BLOB_UPLOAD_UNKNOWN");

    // Without a length the limit is met on the way.
    let path = served.start("a").await;
    let stream = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![0; 100])));
    let patch = served.client.patch(served.url(&path)).body(reqwest::Body::wrap_stream(stream));
    assert_eq!(refused(patch.send().await.unwrap(), 413).await, "SIZE_INVALID");

    served.start("a").await;
    served.start("a").await;
    let third = served.client.post(served.url("/v2/a/blobs/uploads/")).send().await.unwrap();
    assert_eq!(refused(third, 429).await, "TOOMANYREQUESTS");
    assert_eq!(served.registry.expire_uploads(SystemTime::now()), 0, "fresh ones stay");
    assert_eq!(served.registry.expire_uploads(SystemTime::now() + Duration::from_secs(2 * 86_400)), 2);
    assert_eq!(count(served.dir.join("uploads")), 0);
    served.start("a").await;
}

#[tokio::test]
async fn the_401_answer() {
    let response = unauthorized();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"berth\"");
    assert_eq!(response.headers()["docker-distribution-api-version"], "registry/2.0");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["errors"][0]["code"], "UNAUTHORIZED");
}
