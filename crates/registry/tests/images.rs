//! Images over real HTTP: manifests by tag and digest, what a manifest may refer to, lists and their pages, referrers.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod serve;

use berth_registry::{Digest, Image};
use reqwest::StatusCode;
use serde_json::{Value, json};
use serve::{INDEX, MANIFEST, Served, contents, header, json_of, noise, refused};

#[tokio::test(flavor = "multi_thread")]
async fn push_and_pull_of_an_image() {
    let served = Served::fresh().await;
    assert_eq!(served.get("/v2/").await.status(), StatusCode::OK);
    let layer = noise(200_000, 1);
    let manifest = served.image("team/web", &layer).await;
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = Digest::sha256(&bytes);
    let put = served.put_manifest("team/web", "v1", MANIFEST, &manifest).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(header(&put, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&put, "location"), format!("/v2/team/web/manifests/{digest}"));

    for reference in ["v1", &digest.to_string()] {
        let path = format!("/v2/team/web/manifests/{reference}");
        let head = served.head(&path).await;
        assert_eq!(header(&head, "content-length"), bytes.len().to_string());
        assert_eq!(header(&head, "content-type"), MANIFEST);
        let get = served.get(&path).await;
        assert_eq!(header(&get, "docker-content-digest"), digest.to_string());
        assert_eq!(get.bytes().await.unwrap(), bytes, "kept byte for byte");
    }
    let layer_digest = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(served.get(&format!("/v2/team/web/blobs/{layer_digest}")).await.bytes().await.unwrap(), layer);

    let name = "team/web".parse().unwrap();
    let images = served.registry.images(&name).unwrap();
    assert!(matches!(&images[..], [Image { tags, media_type, .. }] if tags == &["v1"] && media_type == MANIFEST));
    assert_eq!(served.registry.resolve(&name, &"v1".parse().unwrap()), Some(digest));
    assert_eq!(served.registry.repositories(), ["team/web"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_refers_to_must_be_there() {
    let served = Served::fresh().await;
    let manifest = served.image("a", b"layer").await;
    // The blobs are in `a`, so `b` has none of them.
    let elsewhere = served.put_manifest("b", "v1", MANIFEST, &manifest).await;
    assert_eq!(refused(elsewhere, 400).await, "MANIFEST_BLOB_UNKNOWN");
    let mut missing = manifest.clone();
    missing["layers"][0]["digest"] = json!(Digest::sha256(b"never pushed").to_string());
    assert_eq!(refused(served.put_manifest("a", "v1", MANIFEST, &missing).await, 400).await, "MANIFEST_BLOB_UNKNOWN");
    let mut short = manifest.clone();
    short["layers"][0]["size"] = json!(1);
    assert_eq!(refused(served.put_manifest("a", "v1", MANIFEST, &short).await, 400).await, "MANIFEST_INVALID");
    // A foreign layer is somebody else's to keep.
    let mut foreign = missing.clone();
    foreign["layers"][0]["urls"] = json!(["https://layers.example/x"]);
    assert_eq!(served.put_manifest("a", "foreign", MANIFEST, &foreign).await.status(), StatusCode::CREATED);

    let digest = Digest::sha256(&serde_json::to_vec(&manifest).unwrap());
    let size = serde_json::to_vec(&manifest).unwrap().len();
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": MANIFEST, "digest": digest.to_string(), "size": size }],
    });
    assert_eq!(refused(served.put_manifest("a", "all", INDEX, &index).await, 400).await, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(served.put_manifest("a", &digest.to_string(), MANIFEST, &manifest).await.status(), StatusCode::CREATED);
    assert_eq!(served.put_manifest("a", "all", INDEX, &index).await.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_manifests_are_refused() {
    let served = Served::fresh().await;
    let manifest = served.image("a", b"layer").await;
    let with = |key: &str, value: Value| {
        let mut changed = manifest.clone();
        changed[key] = value;
        changed
    };
    let cases = [
        (json!([]), "not an object"),
        (with("schemaVersion", json!(1)), "schema 1"),
        (with("mediaType", json!(INDEX)), "two media types"),
        (with("manifests", json!([])), "image and index at once"),
        (with("config", json!({ "digest": "sha256:00", "size": 1 })), "bad digest"),
    ];
    for (body, why) in cases {
        let put = served.put_manifest("a", "v1", MANIFEST, &body).await;
        assert_eq!(refused(put, 400).await, "MANIFEST_INVALID", "{why}");
    }
    let wrong = served.put_manifest("a", &Digest::sha256(b"other").to_string(), MANIFEST, &manifest).await;
    assert_eq!(refused(wrong, 400).await, "DIGEST_INVALID");
    assert_eq!(refused(served.put_manifest("a", ".bad", MANIFEST, &manifest).await, 400).await, "TAG_INVALID");
    let huge = with("annotations", json!({ "x": "y".repeat(4 << 20) }));
    assert_eq!(refused(served.put_manifest("a", "v1", MANIFEST, &huge).await, 413).await, "MANIFEST_INVALID");

    assert_eq!(refused(served.get("/v2/a/manifests/v1").await, 404).await, "MANIFEST_UNKNOWN");
    assert_eq!(refused(served.get("/v2/a/manifests/.bad").await, 404).await, "MANIFEST_UNKNOWN");
    assert_eq!(refused(served.get("/v2/nobody/manifests/v1").await, 404).await, "NAME_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_move_and_manifests_go() {
    let served = Served::fresh().await;
    let one = served.image("a", b"one").await;
    let two = served.image("a", b"two").await;
    let digest = |m: &Value| Digest::sha256(&serde_json::to_vec(m).unwrap()).to_string();
    for (tag, manifest) in [("v1", &one), ("latest", &one), ("v2", &two), ("latest", &two)] {
        assert_eq!(served.put_manifest("a", tag, MANIFEST, manifest).await.status(), StatusCode::CREATED);
    }
    let latest = served.head("/v2/a/manifests/latest").await;
    assert_eq!(header(&latest, "docker-content-digest"), digest(&two));

    // By tag only the tag goes.
    assert_eq!(served.delete("/v2/a/manifests/latest").await.status(), StatusCode::ACCEPTED);
    assert_eq!(refused(served.delete("/v2/a/manifests/latest").await, 404).await, "MANIFEST_UNKNOWN");
    let by_digest = format!("/v2/a/manifests/{}", digest(&two));
    assert_eq!(served.head(&by_digest).await.status(), StatusCode::OK);
    // By digest all its tags go with it.
    assert_eq!(served.delete(&by_digest).await.status(), StatusCode::ACCEPTED);
    assert_eq!(served.head("/v2/a/manifests/v2").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(json_of(served.get("/v2/a/tags/list").await).await, json!({ "name": "a", "tags": ["v1"] }));
    assert_eq!(contents(&served.dir), 4, "a config, two layers, one manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let served = Served::fresh().await;
    let manifest = served.image("a", b"layer").await;
    for tag in ["t3", "t1", "T9", "t2", "t5", "t4"] {
        served.put_manifest("a", tag, MANIFEST, &manifest).await;
    }
    let mut path = "/v2/a/tags/list?n=4".to_owned();
    let mut pages = Vec::new();
    loop {
        let response = served.get(&path).await;
        let link = response.headers().get("link").map(|l| l.to_str().unwrap().to_owned());
        let body = json_of(response).await;
        pages.push(body["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect::<Vec<_>>());
        let Some(link) = link else { break };
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(pages, [vec!["T9", "t1", "t2", "t3"], vec!["t4", "t5"]]);
    let exact = served.get("/v2/a/tags/list?n=6").await;
    assert!(exact.headers().get("link").is_none(), "no page after the last tag");
    let none = served.get("/v2/a/tags/list?n=0").await;
    assert!(none.headers().get("link").is_none());
    assert_eq!(json_of(none).await["tags"], json!([]));
    assert_eq!(refused(served.get("/v2/a/tags/list?n=x").await, 400).await, "PAGINATION_NUMBER_INVALID");
    assert_eq!(refused(served.get("/v2/z/tags/list").await, 404).await, "NAME_UNKNOWN");

    for name in ["c/d", "b", "c"] {
        served.push_blob(name, b"x").await;
    }
    let page = served.get("/v2/_catalog?n=2&last=a").await;
    assert_eq!(header(&page, "link"), "</v2/_catalog?n=2&last=c>; rel=\"next\"");
    assert_eq!(json_of(page).await, json!({ "repositories": ["b", "c"] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_of_an_image() {
    let served = Served::fresh().await;
    let image = served.image("a", b"layer").await;
    let image_bytes = serde_json::to_vec(&image).unwrap();
    let subject = Digest::sha256(&image_bytes);
    let path = format!("/v2/a/referrers/{subject}");
    assert_eq!(json_of(served.get(&path).await).await["manifests"], json!([]), "empty, never 404");

    let empty = served.push_blob("a", b"{}").await;
    let signature = |kind: &str| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.to_string(), "size": 2 },
            "layers": [],
            // The subject need not be there yet.
            "subject": { "mediaType": MANIFEST, "digest": subject.to_string(), "size": image_bytes.len() },
            "annotations": { "by": kind },
        })
    };
    for kind in ["example/signature", "example/sbom"] {
        let body = signature(kind);
        let digest = Digest::sha256(&serde_json::to_vec(&body).unwrap());
        let put = served.put_manifest("a", &digest.to_string(), MANIFEST, &body).await;
        assert_eq!(put.status(), StatusCode::CREATED);
        assert_eq!(header(&put, "oci-subject"), subject.to_string());
    }
    let all = json_of(served.get(&path).await).await;
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    let filtered = served.get(&format!("{path}?artifactType=example%2Fsbom")).await;
    assert_eq!(header(&filtered, "content-type"), INDEX);
    assert_eq!(header(&filtered, "oci-filters-applied"), "artifactType");
    let filtered = json_of(filtered).await;
    let found = filtered["manifests"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["artifactType"], "example/sbom");
    assert_eq!(found[0]["annotations"], json!({ "by": "example/sbom" }));

    served.delete(&format!("/v2/a/manifests/{}", found[0]["digest"].as_str().unwrap())).await;
    assert_eq!(json_of(served.get(&path).await).await["manifests"].as_array().unwrap().len(), 1);
}
