//! Cases about images: what is fetched, what is refused, what is left.

use serde_json::json;

use super::fixture::{Layer, Packing, digest};
use super::{Bench, patiently};
use crate::port::{ContainerSpec, Image, ImageObservation, PullBehavior, PullError, PullRequest, RemoveImageError, RunError};

pub(super) async fn run(bench: &Bench) {
    unchanged_costs_one_question(bench).await;
    behaviors(bench).await;
    what_is_wrong(bench).await;
    hostile_layers(bench).await;
    platforms(bench).await;
    together(bench).await;
    broken_connections(bench).await;
    images_are_listed_and_removed(bench).await;
    a_container_keeps_its_image(bench).await;
    what_is_removed_while_it_is_wanted(bench).await;
}

async fn known(bench: &Bench, image: &Image) -> Option<ImageObservation> {
    let all = bench.runtime.images().await.expect("images");
    assert!(all.is_sorted_by(|a, b| a.digest <= b.digest));
    all.into_iter().find(|seen| seen.digest == image.digest)
}

async fn images_are_listed_and_removed(bench: &Bench) {
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    let base = Layer::default().file("base", 0o644, vec![3; 200_000]).finish();
    let mut images = Vec::new();
    for name in ["first", "second"] {
        let top = Layer::default().file(name, 0o644, vec![4; 100_000]).finish();
        bench.registry.put_image(name, "1", &[(base.clone(), Packing::Gzip), (top, Packing::Zstd)], json!({}));
        images.push(pull(bench, &format!("{name}:1"), PullBehavior::Default).await.expect("pull"));
    }
    let (first, second) = (known(bench, &images[0]).await.expect("it is here"), known(bench, &images[1]).await.expect("it is here"));
    assert!(!first.is_used && first.foreign_names.is_none() && first.arrived_at > before);
    assert_eq!(first.layers[0], second.layers[0], "what they share is the same");
    assert_ne!(first.layers[1].id, second.layers[1].id);
    let sizes: Vec<u64> = first.layers.iter().map(|layer| layer.bytes).collect();
    assert!((200_000..220_000).contains(&sizes[0]) && (100_000..120_000).contains(&sizes[1]), "{sizes:?}");

    bench.runtime.remove_image(&images[0].digest).await.expect("nothing has it");
    assert!(known(bench, &images[0]).await.is_none());
    bench.runtime.remove_image(&images[0].digest).await.expect("what is not here is no error");
    // The layer that both had is still there: a container of the other sees it, and nothing is fetched for it.
    bench.registry.take_log();
    assert_eq!(pull(bench, "second:1", PullBehavior::PreferCached).await.expect("it is here"), images[1]);
    assert!(bench.registry.take_log().is_empty());
    // Gone is gone: what it had alone is fetched again, and no more.
    assert_eq!(pull(bench, "first:1", PullBehavior::Once).await.expect("pull again"), images[0]);
    let fetched: Vec<String> = bench.registry.take_log().into_iter().filter(|line| line.starts_with("GET /v2/first/blobs/")).collect();
    assert!(!fetched.is_empty());
    assert_eq!(known(bench, &images[0]).await.expect("it is here again").layers, first.layers);
    for image in images {
        bench.runtime.remove_image(&image.digest).await.expect("nothing has it");
    }
}

async fn a_container_keeps_its_image(bench: &Bench) {
    let spec = bench.script("exit 0");
    let (id, digest) = (spec.id.clone(), spec.image_digest.clone());
    bench.runtime.create(spec).await.expect("create");
    for state in ["created", "ended"] {
        let refused = bench.runtime.remove_image(&digest).await;
        assert!(matches!(refused, Err(RemoveImageError::InUse(_))), "{state}: {refused:?}");
        let image = Image { digest: digest.clone(), config_digest: String::new() };
        assert!(known(bench, &image).await.expect("it stays").is_used, "{state}");
        bench.runtime.start(&id).await.expect("its layers are all there");
        bench.end(&id).await;
    }
    bench.remove(&id).await;
    let image = Image { digest, config_digest: String::new() };
    assert!(!known(bench, &image).await.expect("it stays").is_used);
}

/// Containers of an image that is being removed all the time: each is made whole, or not at all.
async fn what_is_removed_while_it_is_wanted(bench: &Bench) {
    let layer = super::fixture::busybox().expect("the suite runs only where it is").file("etc/fleeting", 0o644, "here").finish();
    bench.registry.put_image("fleeting", "1", &[(layer, Packing::Zstd)], json!({"Env": ["PATH=/bin"]}));
    let removing = async {
        for _ in 0..40 {
            if let Ok(image) = pull(bench, "fleeting:1", PullBehavior::Always).await {
                // In use or gone: both are right, and what follows shows that nothing is half gone.
                let removed = bench.runtime.remove_image(&image.digest).await;
                assert!(matches!(removed, Ok(()) | Err(RemoveImageError::InUse(_))), "{removed:?}");
            }
        }
    };
    let running = async {
        let mut ran = 0;
        for _ in 0..20 {
            let image = pull(bench, "fleeting:1", PullBehavior::Default).await.expect("pull");
            let mut spec = bench.script("cat /etc/fleeting");
            spec.image_digest = image.digest;
            let id = spec.id.clone();
            match bench.runtime.create(spec).await {
                Ok(()) => {
                    bench.runtime.start(&id).await.expect("what was made can start");
                    assert_eq!(bench.end(&id).await.code, 0);
                    ran += 1;
                    bench.remove(&id).await;
                }
                Err(RunError::NoImage(_)) => {}
                Err(other) => panic!("half an image: {other:?}"),
            }
        }
        ran
    };
    tokio::join!(removing, running);
    let image = pull(bench, "fleeting:1", PullBehavior::Always).await.expect("pull");
    assert_eq!(bench.say(ContainerSpec { image_digest: image.digest.clone(), ..bench.script("cat /etc/fleeting") }).await, "here\n");
    bench.runtime.remove_image(&image.digest).await.expect("nothing has it");
}

/// Layers that are long enough to break off: of bytes that do not shrink.
fn long(name: &str) -> Vec<(Vec<u8>, Packing)> {
    let seed = name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let noise = std::iter::successors(Some(seed), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
    let bytes: Vec<u8> = noise.take(300_000).map(|number| (number >> 24) as u8).collect();
    vec![(Layer::default().file("long", 0o644, bytes).finish(), Packing::Plain)]
}

async fn broken_connections(bench: &Bench) {
    for (name, no_ranges) in [("broken", false), ("broken-without-ranges", true)] {
        bench.registry.put_image(name, "1", &long(name), json!({}));
        bench.registry.break_off(100_000, if no_ranges { 1 } else { 2 }, no_ranges);
        let image = pull(bench, &format!("{name}:1"), PullBehavior::Default).await.expect("it goes on");
        bench.registry.break_off(0, 0, false);
        assert_eq!(pull(bench, &format!("{name}:1"), PullBehavior::Default).await.expect("it is here"), image);
    }
    bench.registry.put_image("busy", "1", &small("busy"), json!({}));
    bench.registry.be_busy(1);
    let busy = pull(bench, "busy:1", PullBehavior::Default).await;
    bench.registry.be_busy(0);
    // Whether a runtime asks again by itself is its own affair, as long as nothing is left half done.
    assert!(matches!(busy, Ok(_) | Err(PullError::Unreachable(_))), "{busy:?}");
    pull(bench, "busy:1", PullBehavior::Default).await.expect("it is whole");
}

async fn pull(bench: &Bench, name: &str, behavior: PullBehavior) -> Result<Image, PullError> {
    let reference = format!("{}/{name}", bench.registry.host());
    patiently(bench.runtime.pull(PullRequest { reference, behavior, credentials: None, login: None })).await
}

/// A small image; its layer differs by name, so that nothing is shared.
fn small(name: &str) -> Vec<(Vec<u8>, Packing)> {
    vec![(Layer::default().file("name", 0o644, name).finish(), Packing::Gzip)]
}

async fn unchanged_costs_one_question(bench: &Bench) {
    bench.registry.put_image("same", "latest", &small("same"), json!({}));
    let first = pull(bench, "same", PullBehavior::Always).await.expect("pull");
    bench.registry.take_log();
    assert_eq!(pull(bench, "same:latest", PullBehavior::Always).await.expect("pull"), first);
    // Besides one question there may be the knock at the door by which a client learns whether it must log in.
    let asked: Vec<String> = bench.registry.take_log().into_iter().filter(|line| line != "GET /v2/").collect();
    assert_eq!(asked, ["HEAD /v2/same/manifests/latest"]);
    let by_digest = format!("same@{}", first.digest);
    assert_eq!(pull(bench, &by_digest, PullBehavior::Default).await.expect("pull"), first);
    bench.registry.take_log();
    assert_eq!(pull(bench, &by_digest, PullBehavior::Always).await.expect("pull"), first);
    assert!(bench.registry.take_log().is_empty(), "what a digest names never changes");
}

async fn behaviors(bench: &Bench) {
    bench.registry.put_image("moving", "1", &small("old"), json!({}));
    let old = pull(bench, "moving:1", PullBehavior::Once).await.expect("pull");
    bench.registry.put_image("moving", "1", &small("new"), json!({}));
    for behavior in [PullBehavior::Once, PullBehavior::PreferCached] {
        assert_eq!(pull(bench, "moving:1", behavior).await.expect("pull"), old);
    }
    let new = pull(bench, "moving:1", PullBehavior::Default).await.expect("pull");
    assert_ne!(new.digest, old.digest);
    bench.registry.forget("moving/manifests/1");
    assert_eq!(pull(bench, "moving:1", PullBehavior::Default).await.expect("the copy that is here"), new);
    assert!(matches!(pull(bench, "moving:1", PullBehavior::Always).await, Err(PullError::NotFound(_))));
}

async fn what_is_wrong(bench: &Bench) {
    let missing = pull(bench, "missing:1", PullBehavior::Default).await;
    assert!(matches!(missing, Err(PullError::NotFound(_))), "{missing:?}");
    let nonsense = pull(bench, "UPPER:1", PullBehavior::Default).await;
    assert!(matches!(nonsense, Err(PullError::InvalidReference(_))), "{nonsense:?}");
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let request = PullRequest { reference: format!("{free}/x:1"), behavior: PullBehavior::Default, credentials: None, login: None };
    let unreachable = patiently(bench.runtime.pull(request)).await;
    assert!(matches!(unreachable, Err(PullError::Unreachable(_))), "{unreachable:?}");

    let manifest = bench.registry.put_image("corrupt", "1", &small("corrupt"), json!({}));
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let size = manifest["layers"][0]["size"].as_u64().expect("a size") as usize;
    bench.registry.put(&format!("corrupt/blobs/{layer}"), "application/octet-stream", vec![0x55; size]);
    assert_invalid(pull(bench, "corrupt:1", PullBehavior::Default).await, &layer);
    let longer = vec![0x55; size + 1];
    bench.registry.put(&format!("corrupt/blobs/{layer}"), "application/octet-stream", longer);
    let refused = pull(bench, "corrupt:1", PullBehavior::Default).await;
    assert!(matches!(refused, Err(PullError::Invalid(_) | PullError::Unreachable(_))), "{refused:?}");
    bench.registry.forget(&format!("corrupt/blobs/{layer}"));
    assert!(pull(bench, "corrupt:1", PullBehavior::Default).await.is_err());
    // And a good one under the same name afterwards is no worse for it.
    bench.registry.put_image("corrupt", "1", &small("corrupt"), json!({}));
    pull(bench, "corrupt:1", PullBehavior::Default).await.expect("it is whole now");

    let mut lying = bench.registry.put_image("lying", "1", &small("lying"), json!({}));
    let other = bench.registry.put_image("other", "1", &small("other"), json!({}));
    let blob = other["layers"][0].clone();
    let bytes = super::fixture::pack(&small("other")[0].0, Packing::Gzip);
    assert_eq!(blob["digest"], digest(&bytes));
    bench.registry.put_blob("lying", bytes);
    lying["layers"][0] = blob;
    bench.registry.put_manifest("lying", "1", &lying);
    assert_invalid(pull(bench, "lying:1", PullBehavior::Default).await, "unpacks to");
}

fn assert_invalid(result: Result<Image, PullError>, part: &str) {
    match result {
        Err(PullError::Invalid(text)) if text.contains(part) => {}
        other => panic!("expected an invalid image with {part:?}, got {other:?}"),
    }
}

async fn hostile_layers(bench: &Bench) {
    let outside = bench.folder.join("outside");
    std::fs::create_dir_all(&outside).expect("the suite's folder can be written");
    let there = outside.to_str().expect("a plain path");
    let hostile: [(&str, Layer); 3] = [
        ("up", Layer::default().file("a/../../../../evil", 0o644, "x")),
        ("hard", Layer::default().hard_link("evil", "../../../../../../etc/passwd")),
        ("hard-absent", Layer::default().hard_link("evil", "not/in/the/layer")),
    ];
    for (name, layer) in hostile {
        bench.registry.put_image(name, "1", &[(layer.finish(), Packing::Plain)], json!({}));
        assert_invalid(pull(bench, &format!("{name}:1"), PullBehavior::Default).await, "evil");
    }
    // A link as parent is fine in itself, but leads to the layer's own root.
    let link =
        Layer::default().symlink("way", there).file("way/evil", 0o644, "x").symlink("passwd", "/etc/passwd").file("passwd", 0o644, "own");
    bench.registry.put_image("link", "1", &[(link.finish(), Packing::Gzip)], json!({}));
    let _ = pull(bench, "link:1", PullBehavior::Default).await;
    assert_eq!(std::fs::read_dir(&outside).expect("it is still there").count(), 0, "a layer wrote outside");
    assert_ne!(std::fs::read_to_string("/etc/passwd").expect("the machine's file"), "own");
    // A stream that ends within the tar, with honest digests.
    let mut cut = small("cut")[0].0.clone();
    cut.truncate(700);
    bench.registry.put_image("cut", "1", &[(cut, Packing::Gzip)], json!({}));
    assert!(matches!(pull(bench, "cut:1", PullBehavior::Default).await, Err(PullError::Invalid(_))));
}

async fn platforms(bench: &Bench) {
    let (here, elsewhere) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let manifest = bench.registry.put_image("many", "inner", &small("many"), json!({}));
    let entry = |architecture: &str, digest: &str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let inner = digest(manifest.to_string().as_bytes());
    let wrong = format!("sha256:{}", "1".repeat(64));
    let index = |entries: Vec<serde_json::Value>| json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    let named = bench.registry.put_manifest("many", "1", &index(vec![entry(elsewhere, &wrong), entry(here, &inner)]));
    let image = pull(bench, "many:1", PullBehavior::Default).await.expect("pull");
    assert_eq!(image.digest, named, "the digest that the tag stands for");
    bench.registry.put_manifest("many", "2", &index(vec![entry(elsewhere, &wrong)]));
    assert_invalid(pull(bench, "many:2", PullBehavior::Default).await, "no matching manifest");
}

async fn together(bench: &Bench) {
    let shared = Layer::default().file("shared", 0o644, vec![7; 300_000]).finish();
    for name in ["one", "two"] {
        let own = Layer::default().file(name, 0o644, name).finish();
        bench.registry.put_image(name, "1", &[(shared.clone(), Packing::Gzip), (own, Packing::Zstd)], json!({}));
    }
    bench.registry.take_log();
    let pulls = (0..8).map(|number| pull(bench, ["one:1", "two:1"][number % 2], PullBehavior::Always));
    let images: Vec<Image> = futures_util::future::join_all(pulls).await.into_iter().map(|image| image.expect("pull")).collect();
    assert!(images.iter().step_by(2).all(|image| *image == images[0]));
    let blobs = bench.registry.take_log().into_iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).count();
    // Two configurations, the shared layer once, two own layers.
    assert_eq!(blobs, 5, "pulls share their work");
}
