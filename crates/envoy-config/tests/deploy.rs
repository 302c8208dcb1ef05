//! What `deploy/` ships is what the generator prints.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use envoy_config::check::check;
use envoy_config::{EnvoyConfig, Source, Target};
use envoy_harness::{Mode, project_root};
use serde_json::Value;

/// The files of a folder, without the comments at their heads.
fn shipped(folder: &str) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(project_root().join(folder)).unwrap();
    let files = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    });
    files.collect()
}

#[test]
fn the_configuration_for_kubernetes_is_that_of_its_pools() -> Result<()> {
    let pools = project_root().join("deploy/kubernetes/pools.yaml");
    let config = EnvoyConfig::read(&pools, Mode::Clusters, Target::Kubernetes)?;
    let files = config.split(&Source::Files("/etc/envoy/config".to_owned()))?;
    let printed: BTreeMap<_, _> =
        files.iter().map(|file| (file.name.clone(), file.content.clone())).collect();
    assert_eq!(
        shipped("deploy/kubernetes/config"),
        printed,
        "session-affinity-config deploy/kubernetes/pools.yaml --target kubernetes --split deploy/kubernetes/config"
    );
    let texts: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.yaml(""))).collect();
    let texts: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let found = check(&texts)?;
    assert!(!found.iter().any(|finding| finding.is_problem), "{found:#?}");
    let kustomization =
        fs::read_to_string(project_root().join("deploy/kubernetes/kustomization.yaml"))?;
    for name in printed.keys() {
        assert!(kustomization.contains(&format!("- config/{name}\n")), "{name} is not mounted");
    }
    Ok(())
}
