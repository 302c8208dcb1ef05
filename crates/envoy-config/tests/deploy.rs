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

#[test]
fn the_objects_for_istio_are_those_of_its_pools() -> Result<()> {
    let pools = project_root().join("deploy/istio/pools.yaml");
    for mode in [Mode::Clusters, Mode::Keys] {
        let files = EnvoyConfig::read(&pools, mode, Target::Istio)?.for_istio()?;
        let printed: BTreeMap<_, _> =
            files.iter().map(|file| (file.name.clone(), file.content.clone())).collect();
        let name = mode.as_str();
        assert_eq!(
            shipped(&format!("deploy/istio/{name}")),
            printed,
            "session-affinity-config deploy/istio/pools.yaml --target istio --mode {name} --split deploy/istio/{name}"
        );
    }
    Ok(())
}

#[test]
fn the_patches_for_envoy_gateway_are_those_of_its_pools() -> Result<()> {
    let pools = project_root().join("deploy/envoy-gateway/pools.yaml");
    for mode in [Mode::Clusters, Mode::Keys] {
        let files = EnvoyConfig::read(&pools, mode, Target::EnvoyGateway)?.for_envoy_gateway()?;
        let printed: BTreeMap<_, _> =
            files.iter().map(|file| (file.name.clone(), file.content.clone())).collect();
        let name = mode.as_str();
        assert_eq!(
            shipped(&format!("deploy/envoy-gateway/{name}")),
            printed,
            "session-affinity-config deploy/envoy-gateway/pools.yaml --target envoy-gateway --mode {name} --split deploy/envoy-gateway/{name}"
        );
    }
    Ok(())
}

#[test]
fn a_version_of_istio_that_would_drop_a_field_gets_no_patch() -> Result<()> {
    let pools = project_root().join("deploy/istio/pools.yaml");
    for (mode, expected) in [
        (Mode::Clusters, r"^1\.(3[1-9]|[4-9][0-9])\..*"),
        (Mode::Keys, r"^1\.(2[89]|[3-9][0-9])\..*"),
    ] {
        let files = EnvoyConfig::read(&pools, mode, Target::Istio)?.for_istio()?;
        let filter = files.iter().find(|file| file.name == "envoy-filter.yaml").unwrap();
        let patches = filter.content["spec"]["configPatches"].as_array().unwrap();
        for patch in patches.iter().filter(|patch| patch["applyTo"] != "EXTENSION_CONFIG") {
            assert_eq!(patch["match"]["proxy"]["proxyVersion"], expected, "{patch}");
        }
        let text = filter.content.to_string();
        assert_eq!(text.contains("refresh_cluster_on_retry"), mode == Mode::Clusters);
    }
    Ok(())
}

#[test]
fn what_istio_cannot_express_is_a_problem() {
    let pools = project_root().join("examples/replicas.json");
    let problem = EnvoyConfig::read(&pools, Mode::Replicas, Target::Istio).unwrap_err();
    assert!(problem.to_string().contains("Istio has no cluster for replicas"), "{problem}");
    let pools = project_root().join("examples/providers.json");
    let problem = EnvoyConfig::read(&pools, Mode::Keys, Target::Istio).unwrap_err();
    assert!(problem.to_string().contains("pools[0]: a ServiceEntry needs a host"), "{problem}");
}

#[test]
fn the_labels_of_counters_are_known_to_istio() -> Result<()> {
    let envoy: Value =
        serde_saphyr::from_str(&fs::read_to_string(project_root().join("envoy.yaml"))?)?;
    let tags = envoy["stats_config"]["stats_tags"].as_array().unwrap().iter();
    let tags: Vec<_> = tags.map(|tag| tag["tag_name"].as_str().unwrap()).collect();
    let values = fs::read_to_string(project_root().join("deploy/istio/values.yaml"))?;
    assert!(values.contains(&format!("extraStatTags: {}\n", tags.join(","))), "{tags:?}");
    Ok(())
}
