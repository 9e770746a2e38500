//! An independent client, `oci-client`, pushes and pulls.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod serve;

use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use serve::{Served, noise};

#[tokio::test(flavor = "multi_thread")]
async fn oci_client_pushes_and_pulls() {
    let served = Served::fresh().await;
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let image: Reference = format!("{}/team/web:v1", served.address).parse().unwrap();
    let auth = RegistryAuth::Basic("user".into(), "password".into());
    // More than the client's chunk, so that it comes in several PATCHes.
    let layers: Vec<ImageLayer> =
        [5 << 20, 1000].map(|size| ImageLayer::new(noise(size, size as u64), IMAGE_LAYER_GZIP_MEDIA_TYPE.into(), None)).into();
    let config = Config::new(b"{}".to_vec(), IMAGE_CONFIG_MEDIA_TYPE.into(), None);
    let manifest = OciImageManifest::build(&layers, &config, None);
    client.push(&image, &layers, config, &auth, Some(manifest)).await.expect("push");

    let pulled = client.pull(&image, &auth, vec![IMAGE_LAYER_GZIP_MEDIA_TYPE]).await.expect("pull");
    // The client fetches layers side by side and answers them in the order in which they were done.
    assert_eq!(pulled.layers.len(), 2);
    for pushed in &layers {
        let same = |layer: &&ImageLayer| layer.data == pushed.data;
        assert_eq!(pulled.layers.iter().filter(same).count(), 1, "the layer of {} bytes came back", pushed.data.len());
    }
    let tags = client.list_tags(&image, &auth, None, None).await.expect("tags");
    assert_eq!(tags.tags, ["v1"]);
    let digest = client.fetch_manifest_digest(&image, &auth).await.expect("digest");
    assert_eq!(Some(digest), pulled.digest);
}
