//! The objects of `deploy/envoy-gateway`, run by applying them as Envoy Gateway's sources do it (1.9):
//! its listener with its defaults, what its policies change, and the patches. It proves that the result
//! runs, not that Envoy Gateway produces it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use envoy_config::{EnvoyConfig, File, Target, secret_file};
use envoy_harness::client::{self, Protocol};
use envoy_harness::{Fixture, Mode, Process, module, project_root};
use serde_json::{Value, json};
use simulated_providers::{Config, Fault, Providers, Vendor};

use crate::discovery::write;
use crate::support::{body, chat, envoy, message, post, served};

const TYPES: &str = "type.googleapis.com";
const FILTER: &str = "/etc/envoy/filter";

fn shipped(name: &str) -> Result<String> {
    let path = project_root().join("deploy/envoy-gateway").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files, for the providers and the places of this machine.
fn objects(mode: Mode, providers: &Providers, root: &Path) -> Result<Vec<File>> {
    let mut text = shipped("pools.yaml")?;
    for (url, vendor) in [
        ("https://api.anthropic.com", Vendor::Anthropic),
        ("https://api.openai.com", Vendor::OpenAi),
        ("https://generativelanguage.googleapis.com", Vendor::Gemini),
    ] {
        assert!(text.contains(url));
        text = text.replace(url, &format!("http://{}", providers.address(vendor)));
    }
    text = text.replace("strategy: consistent", "strategy: fill-first");
    let (module, root_name) = (module::path(), root.display());
    text.push_str(&format!("module: {}\nsecrets: {root_name}/secrets\n", module.display()));
    fs::write(root.join("pools.yaml"), text)?;
    let config = EnvoyConfig::read(&root.join("pools.yaml"), mode, Target::EnvoyGateway)?;
    let mut files = config.for_envoy_gateway()?;
    for file in &mut files {
        let here = file.content.to_string().replace(FILTER, &root_name.to_string());
        file.content = serde_json::from_str(&here)?;
    }
    Ok(files)
}

/// A gateway before any patch: what Envoy Gateway makes of Gateway and HTTPRoute, with what the
/// ClientTrafficPolicy changes.
fn gateway() -> Result<Value> {
    let policy: Value = serde_saphyr::from_str(&shipped("base/client-traffic-policy.yaml")?)?;
    let limit = policy["spec"]["connection"]["bufferLimit"].as_str().context("no limit")?;
    let megabytes: u64 = limit.strip_suffix("Mi").context("not in Mi")?.parse()?;
    let underscores = match policy["spec"]["headers"]["withUnderscoresAction"].as_str() {
        Some("Allow") => "ALLOW",
        _ => "REJECT_REQUEST",
    };
    let name = "llm/session-affinity/http";
    let router = json!({"@type": format!("{TYPES}/envoy.extensions.filters.http.router.v3.Router"), "suppress_envoy_headers": true});
    Ok(json!({
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"clusters": [], "listeners": [{
            // The harness knows it by this name.
            "name": "llm",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "per_connection_buffer_limit_bytes": megabytes << 20,
            "default_filter_chain": {"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": format!("{TYPES}/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "http-80",
                    "use_remote_address": true,
                    "normalize_path": true,
                    "merge_slashes": true,
                    "common_http_protocol_options": {"headers_with_underscores_action": underscores},
                    "http2_protocol_options": {"initial_stream_window_size": 65_536, "initial_connection_window_size": 1_048_576},
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "http_filters": [
                        {"name": "envoy.filters.http.cors", "typed_config": {"@type": format!("{TYPES}/envoy.extensions.filters.http.cors.v3.Cors")}},
                        {"name": "envoy.filters.http.router", "typed_config": router},
                    ],
                    "route_config": {"name": name, "virtual_hosts": [{
                        "name": format!("{name}/*"),
                        "domains": ["*"],
                        "response_headers_to_add": [{"header": {
                            "key": "x-session-affinity-decision",
                            "value": "%FILTER_STATE(wasm.session_affinity.decision:PLAIN)%",
                        }}],
                        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 404}}],
                    }]},
                },
            }]},
        }]},
    }))
}

/// Applies the patches, in their order.
fn apply(document: &mut Value, policy: &Value) -> Result<()> {
    let resources = &mut document["static_resources"];
    for patch in policy["spec"]["jsonPatches"].as_array().context("no patches")? {
        let (operation, value) = (&patch["operation"], patch["operation"]["value"].clone());
        assert_eq!(operation["op"], "add");
        let kind = patch["type"].as_str().and_then(|kind| kind.rsplit('.').next());
        let manager =
            &mut resources["listeners"][0]["default_filter_chain"]["filters"][0]["typed_config"];
        match (kind, operation["path"].as_str()) {
            (Some("Cluster"), Some("")) => {
                assert_eq!(patch["name"], value["name"]);
                resources["clusters"].as_array_mut().unwrap().push(value);
            }
            (Some("Listener"), Some("")) => {
                let path = "..http_filters[?(@.name=='envoy.filters.http.router')]";
                assert_eq!(operation["jsonPath"], path);
                let filters = manager["http_filters"].as_array_mut().unwrap();
                let is_router = |it: &Value| it["name"] == "envoy.filters.http.router";
                let router = filters.iter().position(is_router).context("no router")?;
                filters.insert(router, value);
            }
            (Some("RouteConfiguration"), Some(path)) => {
                assert_eq!(patch["name"], manager["route_config"]["name"]);
                add(&mut manager["route_config"], path, value)?;
            }
            other => bail!("the emulation does not know {other:?}"),
        }
    }
    Ok(())
}

/// `add` of RFC 6902: into a list in front of what is there, else as a member.
fn add(document: &mut Value, path: &str, value: Value) -> Result<()> {
    let (parent, name) = path.rsplit_once('/').context("no path")?;
    match document.pointer_mut(parent).with_context(|| format!("there is no {parent}"))? {
        Value::Array(elements) => elements.insert(name.parse()?, value),
        parent => parent[name] = value,
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_gateway_of_envoy_gateway_fails_over_within_a_request() -> Result<()> {
    let envoy = envoy()?;
    for mode in [Mode::Clusters, Mode::Keys] {
        if !mode.runs_on(envoy.version) {
            continue;
        }
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        let providers = Providers::start(Config::default()).await?;
        let files = objects(mode, &providers, root)?;
        let mut document = gateway()?;
        for file in &files {
            match file.content["kind"].as_str() {
                Some("EnvoyPatchPolicy") => apply(&mut document, &file.content)?,
                Some(_) => {}
                None => write(root, file)?,
            }
        }
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
        let first = post("/v1/messages").header("session_id", "1").body(body(&message("hi")))?;
        assert_eq!(served(&send(first).await?)?.credential, "anthropic-b", "{mode:?}");
        let long = served(&send(chat(3 << 20, false)?).await?)?;
        assert_eq!(long.credential, "openai-a", "{mode:?}");
        let elsewhere = send(post("/elsewhere").body(body(&json!({})))?).await?;
        assert_eq!(elsewhere.status, 404, "{mode:?}");
        process.stop().await?;
        providers.stop().await;
    }
    Ok(())
}
