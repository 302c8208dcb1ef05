//! Manifests for a gateway of Istio.
//!
//! Istio makes clusters and TLS from services; what it has no word for comes by an EnvoyFilter. Its
//! patches are parts of the same configuration that runs on an Envoy of one's own: the filter, the
//! filters of the clusters, and whole routes, put in front of all others.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::split::{self, File, Source, for_each_object};
use super::{EnvoyConfig, parse, templates};
use envoy_harness::Mode;

const NAME: &str = "session-affinity";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// The port of the gateway, and the name that istiod gives to its routes for any host.
const PORT: u16 = 80;
const HOST: &str = "*:80";

impl EnvoyConfig {
    /// The objects to apply, a file each.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn for_istio(&self) -> Result<Vec<File>> {
        let mut document = parse(&templates::render_for_parts(&self.wiring)?)?;
        let extensions = split::take_filter(&mut document, &Source::ControlPlane);
        for_each_object(&mut document, &mut |object| {
            if let Some(ads) = object.get_mut("config_source").and_then(Value::as_object_mut) {
                // As istiod does it for its own.
                ads.insert("initial_fetch_timeout".to_owned(), json!("0s"));
            }
        });
        let mut files = self.services();
        files.push(File::new("gateway.yaml", object("Gateway", NAME, gateway())));
        files.push(File::new("virtual-service.yaml", object("VirtualService", NAME, nothing())));
        let patches = self.patches(&document, &extensions)?;
        let selector = json!({"labels": labels()});
        let filter = json!({"workloadSelector": selector, "configPatches": patches});
        let mut filter = object("EnvoyFilter", NAME, filter);
        if let Some(members) = filter.as_object_mut() {
            // The API of EnvoyFilter is older than that of the others.
            members.insert("apiVersion".to_owned(), json!("networking.istio.io/v1alpha3"));
        }
        files.push(File::new("envoy-filter.yaml", filter));
        Ok(files)
    }

    /// A ServiceEntry and a DestinationRule for each host.
    fn services(&self) -> Vec<File> {
        let mut hosts: Vec<(&str, u16)> = Vec::new();
        for service in self.wiring.services() {
            if !hosts.contains(&(&service.host, service.port)) {
                hosts.push((&service.host, service.port));
            }
        }
        let mut files = Vec::new();
        for (host, port) in hosts {
            let own: Vec<_> =
                self.wiring.services().filter(|it| it.host == host && it.port == port).collect();
            let tls = own.iter().find_map(|service| service.tls_name.as_ref());
            let name = format!("{NAME}-{}-{port}", host.replace('.', "-"));
            let protocol = if tls.is_some() { "HTTPS" } else { "HTTP" };
            // For the namespace of the gateway alone: elsewhere in the mesh, workloads that speak TLS to
            // these hosts themselves would speak it twice.
            let entry = json!({
                "exportTo": ["."],
                "hosts": [host],
                "location": "MESH_EXTERNAL",
                "resolution": "DNS",
                "ports": [{"number": port, "name": protocol.to_ascii_lowercase(), "protocol": protocol}],
            });
            let mut policy = json!({"port": {"number": port}});
            if let (Some(tls_name), Some(policy)) = (tls, policy.as_object_mut()) {
                let tls = json!({"mode": "SIMPLE", "sni": tls_name, "subjectAltNames": [tls_name]});
                policy.insert("tls".to_owned(), tls);
            }
            let policy = json!({"portLevelSettings": [policy]});
            let mut rule = json!({"exportTo": ["."], "host": host, "trafficPolicy": policy});
            let subsets: Vec<_> =
                own.iter().filter_map(|service| service.subset.as_ref()).collect();
            if let Some(rule) = rule.as_object_mut().filter(|_| !subsets.is_empty()) {
                // Without labels: one cluster for each credential of the same host.
                let subsets = subsets.iter().map(|name| json!({"name": name}));
                rule.insert("subsets".to_owned(), subsets.collect());
            }
            files.push(File::new(
                format!("{name}-entry.yaml"),
                object("ServiceEntry", &name, entry),
            ));
            files.push(File::new(
                format!("{name}-rule.yaml"),
                object("DestinationRule", &name, rule),
            ));
        }
        files
    }

    fn patches(&self, document: &Value, extensions: &[File]) -> Result<Vec<Value>> {
        let listener = document.pointer("/static_resources/listeners/0").context("no listener")?;
        let manager = listener
            .pointer("/filter_chains/0/filters/0/typed_config")
            .context("no connection manager")?;
        let host = manager.pointer("/route_config/virtual_hosts/0").context("no virtual host")?;
        let limit = &host.get("request_body_buffer_limit").context("no limit")?;
        let mut patches = vec![
            // Envoy 1.36 takes it for the limit of bodies; with Istio's default long ones get 413.
            self.patch("LISTENER", listener_of(json!({})), "MERGE", json!({"per_connection_buffer_limit_bytes": limit})),
            self.patch("NETWORK_FILTER", listener_of(json!({"filter": {"name": MANAGER}})), "MERGE", hardening(manager)),
            self.patch(
                "HTTP_FILTER",
                listener_of(json!({"filter": {"name": MANAGER, "subFilter": {"name": "envoy.filters.http.router"}}})),
                "INSERT_BEFORE",
                manager.pointer("/http_filters/0").context("no filter")?.clone(),
            ),
        ];
        for extension in extensions {
            let resource = extension.content.pointer("/resources/0").context("no extension")?;
            let value =
                json!({"name": resource.get("name"), "typed_config": resource.get("typed_config")});
            patches.push(self.patch("EXTENSION_CONFIG", json!({}), "ADD", value));
        }
        let clusters = document.pointer("/static_resources/clusters").and_then(Value::as_array);
        for (cluster, service) in clusters.into_iter().flatten().zip(self.wiring.services()) {
            let mut matching = json!({"service": service.host, "portNumber": service.port});
            if let (Some(subset), Some(matching)) = (&service.subset, matching.as_object_mut()) {
                matching.insert("subset".to_owned(), json!(subset));
            }
            let options = options(cluster);
            let value = json!({"typed_extension_protocol_options": {OPTIONS: options}});
            patches.push(self.patch("CLUSTER", json!({"cluster": matching}), "MERGE", value));
        }
        let value = json!({"request_body_buffer_limit": limit});
        patches.push(self.patch("VIRTUAL_HOST", virtual_host(), "MERGE", value));
        // Each goes in front of those that are there, so the last is the first.
        for route in host.get("routes").and_then(Value::as_array).into_iter().flatten().rev() {
            patches.push(self.patch("HTTP_ROUTE", virtual_host(), "INSERT_FIRST", route.clone()));
        }
        Ok(patches)
    }

    /// A patch, for gateways that know all of it: istiod drops what it does not know, in silence.
    fn patch(&self, place: &str, matching: Value, operation: &str, value: Value) -> Value {
        let mut all = json!({"context": "GATEWAY"});
        if place == "EXTENSION_CONFIG" {
            return json!({"applyTo": place, "match": all, "patch": {"operation": operation, "value": value}});
        }
        if let (Some(all), Value::Object(matching)) = (all.as_object_mut(), matching) {
            let has_matcher = self.wiring.services().next().is_some()
                && self.wiring.oldest_envoy() >= Mode::Clusters.oldest_envoy();
            let versions = if has_matcher {
                r"^1\.(3[1-9]|[4-9][0-9])\."
            } else {
                r"^1\.(2[89]|[3-9][0-9])\."
            };
            all.insert("proxy".to_owned(), json!({"proxyVersion": format!("{versions}.*")}));
            all.extend(matching);
        }
        json!({"applyTo": place, "match": all, "patch": {"operation": operation, "value": value}})
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// As Istio's chart `gateway` names the pods of a release `session-affinity`.
fn labels() -> Value {
    json!({"istio": NAME})
}

fn gateway() -> Value {
    let server =
        json!({"port": {"number": PORT, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]});
    json!({"selector": labels(), "servers": [server]})
}

/// Without a VirtualService there is no virtual host. Nothing reaches its route: that which the
/// generator makes for what no pool serves comes before.
fn nothing() -> Value {
    json!({"hosts": ["*"], "gateways": [NAME], "http": [{"directResponse": {"status": 404}}]})
}

fn listener_of(filter: Value) -> Value {
    let mut listener = json!({"portNumber": PORT});
    if let (Some(members), Some(_)) = (listener.as_object_mut(), filter.get("filter")) {
        members.insert("filterChain".to_owned(), filter);
    }
    json!({"listener": listener})
}

fn virtual_host() -> Value {
    json!({"routeConfiguration": {"portNumber": PORT, "vhost": {"name": HOST}}})
}

/// What of the connection manager Istio does not set, or sets for other traffic.
fn hardening(manager: &Value) -> Value {
    const NAMES: [&str; 6] = [
        "merge_slashes",
        "path_with_escaped_slashes_action",
        "max_request_headers_kb",
        "request_headers_timeout",
        "request_timeout",
        "stream_idle_timeout",
    ];
    let kept =
        NAMES.iter().filter_map(|name| Some(((*name).to_owned(), manager.get(*name)?.clone())));
    let kind = ("@type".to_owned(), manager.get("@type").cloned().unwrap_or_default());
    let config = Map::from_iter(std::iter::once(kind).chain(kept));
    json!({"name": MANAGER, "typed_config": config})
}

/// The options of a cluster. A patch replaces all of them, also Istio's `auto_sni`, which would take
/// the name from the host that the client named: the DestinationRule has it.
fn options(cluster: &Value) -> Value {
    let pointer = format!("/typed_extension_protocol_options/{OPTIONS}");
    cluster.pointer(&pointer).cloned().unwrap_or_default()
}
