//! `launch/cold-*` and `launch/pull-512-s`: RunTask of an image that is not here, from a registry on loopback, to RUNNING seen; beside it
//! `docker run -d` of the same from a registry of the same kind on its own loopback, in turn with ours.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::docker::Docker;
use super::image::{Filling, Image, Layer, hello};
use super::launch::launch;
use super::registry::{Images, Registry};
use super::scratch::Folder;
use super::server::Berth;
use super::{Peer, quantile, row_noted};

/// Layers of the large image, a half of each kind.
const LAYERS: u64 = 8;
const LAYER_BYTES: u64 = 64 << 20;
/// Each needs a Berth of its own, with nothing pulled yet.
const MOST_PULLS: usize = 5;
/// How long 512 MiB may take.
const PATIENCE: Duration = Duration::from_secs(600);

fn registries(images: &Images, docker: Option<&Docker>) -> Result<(Registry, Option<Registry>), Box<dyn Error>> {
    let theirs =
        docker.map(|docker| Ok::<_, Box<dyn Error>>(Registry::serve(Arc::clone(images), Some(&docker.network()?))?)).transpose()?;
    Ok((Registry::serve(Arc::clone(images), None)?, theirs))
}

fn define(client: &mut Client, family: &str, image: &str) -> Result<(), Box<dyn Error>> {
    let container = json!({"name": "app", "image": image, "memory": 64, "stopTimeout": 2, "environment": [{"name": "PORT", "value": "0"}]});
    client.call("RegisterTaskDefinition", &json!({"family": family, "networkMode": "host", "containerDefinitions": [container]}))?;
    Ok(())
}

/// A small image. Each measurement pulls one that was never there.
pub(super) fn cold(berth: &Berth, docker: Option<&Docker>, archive: &Path, runs: usize) -> Result<(), Box<dyn Error>> {
    let program = hello(archive)?;
    let images: Images = Arc::default();
    let (own, foreign) = registries(&images, docker)?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let tag = format!("cold-{run}");
        let image = Image::new(&[Layer::program(&program, &tag)?]);
        images.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.clone(), image);
        define(&mut client, &tag, &own.reference(&tag))?;
        let millis = launch(&mut client, &tag, 1, PATIENCE)?;
        let peer = docker.zip(foreign.as_ref()).map(|(docker, registry)| docker.run_cold(&registry.reference(&tag))).transpose()?;
        if run > 0 {
            ours.push(millis);
            theirs.extend(peer);
        }
    }
    for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
        let peer = docker.map(|_| Peer { name: "docker run -d, pulled", value: quantile(&theirs, share) });
        let note = "1.3 MB, host network, from a registry on loopback";
        row_noted(&format!("launch/cold-{label}"), quantile(&ours, share), "ms", peer.as_ref(), note);
    }
    Ok(())
}

/// The large image. Ours is pulled by a Berth that is new each time: nothing of the last one is here.
pub(super) fn large(docker: Option<&Docker>, archive: &Path, runs: usize) -> Result<(), Box<dyn Error>> {
    let runs = runs.clamp(1, MOST_PULLS);
    let folder = Folder::make("large-image")?;
    let mut layers = vec![Layer::program(&hello(archive)?, "large")?];
    for number in 0..LAYERS {
        eprintln!("making layer {} of {LAYERS}", number + 1);
        let filling = if number % 2 == 0 { Filling::Noise } else { Filling::Text };
        layers.push(Layer::large(&folder.path().join(format!("layer-{number}")), LAYER_BYTES, filling, number + 1)?);
    }
    let images: Images = Arc::default();
    images.lock().unwrap_or_else(PoisonError::into_inner).insert("large".to_owned(), Image::new(&layers));
    let (own, foreign) = registries(&images, docker)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let berth = Berth::start("up", &[])?;
        let mut client = Client::connect(&berth.authority, &berth.key)?;
        define(&mut client, "large", &own.reference("large"))?;
        settle();
        ours.push(launch(&mut client, "large", 1, PATIENCE)? / 1000.0);
        drop(berth);
        settle();
        if let (Some(docker), Some(registry)) = (docker, &foreign) {
            theirs.push(docker.run_cold(&registry.reference("large"))? / 1000.0);
        }
    }
    let peer = docker.map(|_| Peer { name: "docker run -d, pulled", value: quantile(&theirs, 0.5) });
    let note = format!("median of {runs}; {LAYERS} layers of {} MiB, half of them incompressible", LAYER_BYTES >> 20);
    row_noted("launch/pull-512-s", quantile(&ours, 0.5), "s", peer.as_ref(), &note);
    Ok(())
}

/// What one has written is on the disk before the other is measured.
fn settle() {
    rustix::fs::sync();
}
