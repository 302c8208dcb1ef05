//! The module as an image, in the layout of OCI on disk.
//!
//! Istio's agent and Envoy Gateway take an image whose last layer is a tar with gzip that holds a
//! file named `plugin.wasm`; Kubernetes mounts the same image as a volume. They refuse zstd, and an
//! index is resolved for linux/amd64: so there is one manifest and no index of platforms, and the
//! architecture is amd64 also for others, since WebAssembly has none.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Context, Result};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, RootFsBuilder,
    SCHEMA_VERSION, Sha256Digest,
};

use crate::archive::{gzip, tar};
use crate::digest::sha256;

/// The file in the image.
const FILE: &str = "plugin.wasm";

/// The annotation of the index, the version, by which tools find an image in a layout.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// The files of the layout, with their paths in it.
pub(crate) fn layout(module: &[u8], version: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let archive = tar([(FILE, module)])?;
    let layer = gzip(&archive)?;
    let config = config(&archive, version)?;
    let layer_blob = Blob::new(MediaType::ImageLayerGzip, layer)?;
    let config_blob = Blob::new(MediaType::ImageConfig, config)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config_blob.descriptor.clone())
        .layers(vec![layer_blob.descriptor.clone()])
        .annotations(annotations(version))
        .build()
        .context("the manifest lacks something")?;
    let manifest = manifest.to_string().context("the manifest is no JSON")?;
    let manifest_blob = Blob::new(MediaType::ImageManifest, manifest.into_bytes())?;
    let mut named = manifest_blob.descriptor.clone();
    named.set_annotations(Some(HashMap::from([(REFERENCE.to_owned(), version.to_owned())])));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![named])
        .build()
        .context("the index lacks something")?;
    let marker = OciLayoutBuilder::default()
        .image_layout_version("1.0.0")
        .build()
        .context("the marker of the layout lacks something")?;
    let mut files = vec![
        ("oci-layout".to_owned(), marker.to_string().context("no JSON")?.into_bytes()),
        ("index.json".to_owned(), index.to_string().context("no JSON")?.into_bytes()),
    ];
    files.extend([config_blob, layer_blob, manifest_blob].map(Blob::into_file));
    Ok(files)
}

fn config(archive: &[u8], version: &str) -> Result<Vec<u8>> {
    let root = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(vec![format!("sha256:{}", sha256(archive))])
        .build()
        .context("the file system lacks something")?;
    let settings = ConfigBuilder::default()
        .labels(annotations(version))
        .build()
        .context("the settings lack something")?;
    let configuration = ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .created("1970-01-01T00:00:00Z")
        .config(settings)
        .rootfs(root)
        .build()
        .context("the configuration lacks something")?;
    Ok(configuration.to_string().context("the configuration is no JSON")?.into_bytes())
}

/// One of each: a map of several would be written in any order.
fn annotations(version: &str) -> HashMap<String, String> {
    HashMap::from([("org.opencontainers.image.version".to_owned(), version.to_owned())])
}

/// A file that is named by its digest.
struct Blob {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: MediaType, bytes: Vec<u8>) -> Result<Self> {
        let digest = Sha256Digest::from_str(&sha256(&bytes)).context("a digest is none")?;
        let descriptor = DescriptorBuilder::default()
            .media_type(media_type)
            .size(bytes.len() as u64)
            .digest(digest)
            .build()
            .context("a descriptor lacks something")?;
        Ok(Self { descriptor, bytes })
    }

    fn into_file(self) -> (String, Vec<u8>) {
        (format!("blobs/sha256/{}", sha256(&self.bytes)), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::*;

    fn files() -> BTreeMap<String, Vec<u8>> {
        layout(b"\0asm-module", "1.2.3").unwrap().into_iter().collect()
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn blob<'f>(files: &'f BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'f [u8] {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn the_last_layer_is_a_tar_with_gzip_that_holds_the_module() {
        let files = files();
        let index = json(&files["index.json"]);
        assert_eq!(index["manifests"][0]["annotations"][REFERENCE], "1.2.3");
        let manifest = json(blob(&files, &index["manifests"][0]));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let mut archive = tar::Archive::new(GzDecoder::new(blob(&files, &layers[0])));
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("plugin.wasm"));
        let mut module = Vec::new();
        entry.read_to_end(&mut module).unwrap();
        assert_eq!(module, b"\0asm-module");
    }

    #[test]
    fn the_configuration_names_the_layer_as_it_is_uncompressed() {
        let files = files();
        let index = json(&files["index.json"]);
        let manifest = json(blob(&files, &index["manifests"][0]));
        let config = json(blob(&files, &manifest["config"]));
        let mut archive = Vec::new();
        let layer = blob(&files, &manifest["layers"][0]);
        GzDecoder::new(layer).read_to_end(&mut archive).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&archive)));
        assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
    }

    #[test]
    fn the_same_module_is_the_same_image() {
        assert_eq!(files(), files());
    }
}
