//! A patch for a Gateway of Envoy Gateway.
//!
//! Its own way to run a module (EnvoyExtensionPolicy) cannot hold headers until a body is read, and
//! runs no filter where the first route that matches is none of a policy. So the filter, the clusters
//! and the routes come as they are, by an EnvoyPatchPolicy; Envoy Gateway makes the listener.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::split::{self, File, Source};
use super::{EnvoyConfig, parse, templates};

const NAME: &str = "session-affinity";
const NAMESPACE: &str = "llm";
/// Where `deploy/envoy-gateway/base` mounts the configuration of the filter.
const FILTER: &str = "/etc/envoy/filter";
const TYPES: &str = "type.googleapis.com";

impl EnvoyConfig {
    /// The policy, the configuration of the filter that it refers to, and what binds both to the
    /// objects that do not depend on pools.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn for_envoy_gateway(&self) -> Result<Vec<File>> {
        let mut document = parse(&templates::render_for_parts(&self.wiring)?)?;
        let mut files = split::take_filter(&mut document, &Source::Files(FILTER.to_owned()));
        let names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
        let patches = patches(&document)?;
        let gateway =
            json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": NAME});
        let policy = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyPatchPolicy",
            "metadata": {"name": NAME},
            "spec": {"type": "JSONPatch", "targetRef": gateway, "jsonPatches": patches},
        });
        files.push(File::new("envoy-patch-policy.yaml", policy));
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": NAMESPACE,
            "resources": ["../base", "envoy-patch-policy.yaml"],
            "generatorOptions": {"disableNameSuffixHash": true},
            "configMapGenerator": [{"name": "session-affinity-filter", "files": names}],
        });
        files.push(File::new("kustomization.yaml", kustomization));
        Ok(files)
    }
}

fn patches(document: &Value) -> Result<Vec<Value>> {
    let manager = document
        .pointer("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config")
        .context("no connection manager")?;
    let host = manager.pointer("/route_config/virtual_hosts/0").context("no virtual host")?;
    let filter = manager.pointer("/http_filters/0").context("no filter")?;
    // Envoy Gateway names the listener and its routes alike.
    let name = format!("{NAMESPACE}/{NAME}/http");
    let patch = |kind: &str, name: &str, operation: Value| json!({"type": format!("{TYPES}/envoy.config.{kind}"), "name": name, "operation": operation});
    let clusters = document.pointer("/static_resources/clusters").and_then(Value::as_array);
    let mut patches: Vec<_> = clusters
        .into_iter()
        .flatten()
        .map(|cluster| {
            let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
            patch("cluster.v3.Cluster", name, json!({"op": "add", "path": "", "value": cluster}))
        })
        .collect();
    // In front of the router, so behind authentication.
    let router = "..http_filters[?(@.name=='envoy.filters.http.router')]";
    let before = json!({"op": "add", "jsonPath": router, "path": "", "value": filter});
    patches.push(patch("listener.v3.Listener", &name, before));
    let limit = host.get("request_body_buffer_limit").context("no limit")?;
    let path = "/virtual_hosts/0/request_body_buffer_limit";
    let limit = json!({"op": "add", "path": path, "value": limit});
    patches.push(patch("route.v3.RouteConfiguration", &name, limit));
    // Each goes in front of those that are there, so the last is the first.
    for route in host.get("routes").and_then(Value::as_array).into_iter().flatten().rev() {
        let first = json!({"op": "add", "path": "/virtual_hosts/0/routes/0", "value": route});
        patches.push(patch("route.v3.RouteConfiguration", &name, first));
    }
    Ok(patches)
}
