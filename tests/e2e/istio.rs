//! The objects of `deploy/istio`, run by applying them as istiod's sources do it (1.31): clusters from
//! services and subsets, patches merged, lists appended, entries of maps replaced. It proves that the
//! result runs, not that istiod produces it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use envoy_config::{EnvoyConfig, File, Target, secret_file};
use envoy_harness::client::{self, Protocol};
use envoy_harness::{Fixture, Mode, Process, module, project_root};
use serde_json::{Value, json};
use simulated_providers::{Config, Fault, Providers, Vendor};

use crate::discovery::write;
use crate::support::{body, chat, envoy, message, post, served};

const TYPES: &str = "type.googleapis.com";

/// The objects, for the providers and the places of this machine.
fn objects(mode: Mode, providers: &Providers, root: &Path) -> Result<Vec<File>> {
    let mut text = fs::read_to_string(project_root().join("deploy/istio/pools.yaml"))?;
    for (url, vendor) in [
        ("https://api.anthropic.com", Vendor::Anthropic),
        ("https://api.openai.com", Vendor::OpenAi),
        ("https://generativelanguage.googleapis.com", Vendor::Gemini),
    ] {
        assert!(text.contains(url));
        let port = providers.address(vendor).port();
        text = text.replace(url, &format!("http://localhost:{port}"));
    }
    text = text.replace("strategy: consistent", "strategy: fill-first");
    text.push_str(&format!(
        "module: {}\nsecrets: {}/secrets\n",
        module::path().display(),
        root.display()
    ));
    let path = root.join("pools.yaml");
    fs::write(&path, text)?;
    EnvoyConfig::read(&path, mode, Target::Istio)?.for_istio()
}

/// A gateway of Istio before any patch: what istiod makes of services, gateway and virtual service.
fn gateway(objects: &[File]) -> Value {
    let mut clusters = Vec::new();
    for rule in of_kind(objects, "DestinationRule") {
        let host = rule["spec"]["host"].as_str().unwrap();
        let port = &rule["spec"]["trafficPolicy"]["portLevelSettings"][0]["port"]["number"];
        let subsets = rule["spec"]["subsets"].as_array().into_iter().flatten();
        let names = subsets.map(|subset| subset["name"].as_str().unwrap()).chain([""]);
        for name in names.map(|subset| format!("outbound|{port}|{subset}|{host}")) {
            clusters.push(json!({
                "name": name,
                "type": "STRICT_DNS",
                "dns_lookup_family": "V4_ONLY",
                "connect_timeout": "10s",
                "circuit_breakers": {"thresholds": [{"max_retries": 4_294_967_295_u32}]},
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": {"socket_address": {"address": host, "port_value": port}},
                }}]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{TYPES}/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {"http_protocol_options": {}},
                    "upstream_http_protocol_options": {"auto_sni": true, "auto_san_validation": true},
                }},
            }));
        }
    }
    let filter = |name: &str, kind: &str| json!({"name": name, "typed_config": {"@type": format!("{TYPES}/envoy.extensions.filters.http.{kind}")}});
    json!({
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [{
                "name": "llm",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "per_connection_buffer_limit_bytes": 32768,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": format!("{TYPES}/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "outbound_0.0.0.0_80",
                        "use_remote_address": true,
                        "upgrade_configs": [{"upgrade_type": "websocket"}],
                        "http_filters": [
                            filter("envoy.filters.http.fault", "fault.v3.HTTPFault"),
                            filter("envoy.filters.http.cors", "cors.v3.Cors"),
                            filter("envoy.filters.http.router", "router.v3.Router"),
                        ],
                        "route_config": {"name": "http.80", "virtual_hosts": [{
                            "name": "*:80",
                            "domains": ["*"],
                            "response_headers_to_add": [{"header": {
                                "key": "x-session-affinity-decision",
                                "value": "%FILTER_STATE(wasm.session_affinity.decision:PLAIN)%",
                            }}],
                            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 404}}],
                        }]},
                    },
                }]}],
            }],
            "clusters": clusters,
        },
    })
}

fn of_kind<'o>(objects: &'o [File], kind: &str) -> Vec<&'o Value> {
    objects.iter().map(|file| &file.content).filter(|object| object["kind"] == kind).collect()
}

/// Applies the patches, in their order; returns what the agent would serve as ECDS.
fn apply(document: &mut Value, objects: &[File]) -> Result<Vec<Value>> {
    let mut extensions = Vec::new();
    for filter in of_kind(objects, "EnvoyFilter") {
        for patch in filter["spec"]["configPatches"].as_array().context("no patches")? {
            let (value, operation) = (&patch["patch"]["value"], &patch["patch"]["operation"]);
            let listener = &mut document["static_resources"]["listeners"][0];
            if patch["applyTo"] == "EXTENSION_CONFIG" {
                extensions.push(value.clone());
                continue;
            }
            if patch["applyTo"] == "LISTENER" {
                merge(listener, value);
                continue;
            }
            let chain = &mut listener["filter_chains"][0]["filters"][0];
            match patch["applyTo"].as_str().context("no place")? {
                "NETWORK_FILTER" => merge(chain, value),
                "HTTP_FILTER" => {
                    assert_eq!(operation, "INSERT_BEFORE");
                    let filters = chain["typed_config"]["http_filters"].as_array_mut().unwrap();
                    filters.insert(filters.len() - 1, value.clone());
                }
                "CLUSTER" => {
                    let wanted = &patch["match"]["cluster"];
                    let subset = wanted["subset"].as_str().unwrap_or_default();
                    let host = wanted["service"].as_str().context("no service")?;
                    let name = format!("outbound|{}|{subset}|{host}", wanted["portNumber"]);
                    let clusters = document["static_resources"]["clusters"].as_array_mut();
                    let cluster = clusters.unwrap().iter_mut().find(|it| it["name"] == name);
                    merge(cluster.with_context(|| format!("istiod makes no {name}"))?, value);
                }
                place => {
                    let host = &mut chain["typed_config"]["route_config"]["virtual_hosts"][0];
                    assert_eq!(patch["match"]["routeConfiguration"]["vhost"]["name"], host["name"]);
                    match (place, operation.as_str()) {
                        ("VIRTUAL_HOST", Some("MERGE")) => merge(host, value),
                        ("HTTP_ROUTE", Some("INSERT_FIRST")) => {
                            host["routes"].as_array_mut().unwrap().insert(0, value.clone());
                        }
                        other => anyhow::bail!("the emulation does not know {other:?}"),
                    }
                }
            }
        }
    }
    Ok(extensions)
}

/// A merge of messages: lists are appended, scalars and the entries of maps replaced.
fn merge(into: &mut Value, value: &Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (name, value) in value {
                match into.get_mut(name) {
                    Some(into) if name == "typed_extension_protocol_options" => {
                        let entries = value.as_object().into_iter().flatten();
                        entries.for_each(|(key, value)| into[key] = value.clone());
                    }
                    Some(into) => merge(into, value),
                    None => drop(into.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(into), Value::Array(value)) => into.extend(value.iter().cloned()),
        (into, value) => *into = value.clone(),
    }
}

/// Files in the place of istiod's ADS.
fn read_from_files(value: &mut Value, root: &Path) {
    if let Some(name) = value.get("name").and_then(Value::as_str).map(str::to_owned)
        && let Some(source) = value.pointer_mut("/config_discovery/config_source")
    {
        assert!(source["ads"].is_object());
        *source = json!({"path_config_source": {"path": root.join(format!("{name}.yaml"))}});
    }
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|it| read_from_files(it, root)),
        Value::Object(members) => members.values_mut().for_each(|it| read_from_files(it, root)),
        _ => {}
    }
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_gateway_of_istio_fails_over_within_a_request() -> Result<()> {
    let envoy = envoy()?;
    for mode in [Mode::Clusters, Mode::Keys] {
        if !mode.runs_on(envoy.version) {
            continue;
        }
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        let providers = Providers::start(Config::default()).await?;
        let objects = objects(mode, &providers, root)?;
        let mut document = gateway(&objects);
        for mut extension in apply(&mut document, &objects)? {
            let name = extension["name"].as_str().context("no name")?.to_owned();
            extension["@type"] =
                json!(format!("{TYPES}/envoy.config.core.v3.TypedExtensionConfig"));
            let content = json!({"resources": [extension]});
            write(root, &File { name: format!("{name}.yaml"), content })?;
        }
        read_from_files(&mut document, root);
        for account in providers.accounts() {
            let (_, value) = account.environment();
            let id = account.name.replace('-', "_");
            let pool = id.split('_').next().unwrap_or_default();
            let name =
                if mode == Mode::Keys { format!("{pool}_{id}_key") } else { format!("{id}_key") };
            write(root, &secret_file(&name, &value))?;
        }
        let process = Process::start(&envoy, &Fixture::without_filter(document), 1, &[]).await?;
        let send = async |request| client::send(process.address(), Protocol::Http1, request).await;

        providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
        let first = send(post("/v1/messages").body(body(&message("hi")))?).await?;
        assert_eq!(served(&first)?.credential, "anthropic-b", "{mode:?}");
        let long = served(&send(chat(3 << 20, false)?).await?)?;
        assert_eq!(long.credential, "openai-a", "{mode:?}");
        let elsewhere = send(post("/elsewhere").body(body(&json!({})))?).await?;
        assert_eq!(elsewhere.status, 404, "{mode:?}");
        let hosts = providers.requests().into_iter().map(|it| it.headers["host"].clone());
        assert!(hosts.into_iter().all(|host| host == "localhost"), "{mode:?}");
        process.stop().await?;
        providers.stop().await;
    }
    Ok(())
}
