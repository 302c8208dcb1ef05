//! The configuration of Envoy for each contender.
//!
//! All are made from the shipped files, without what costs time but is not the filter's: access
//! log, overload manager, injection of keys, removal of headers. So they differ in the filter and
//! in what the filter needs: the choice of a cluster by header or, where the filter is on the
//! clusters, by filter state, and the retry policy.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use envoy_harness::{Fixture, Mode};
use serde_json::{Value, json};

use crate::contender::Contender;

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters.http";
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
/// The header by which our filter names the cluster.
const CLUSTER_HEADER: &str = "x-session-affinity-cluster";
/// The cluster that serves what no filter routes.
const CLUSTER: &str = "anthropic_a";
/// The ports of the providers in the shipped files.
const PROVIDERS: [u16; 3] = [18001, 18002, 18003];

/// The configuration of a contender, in front of an upstream with these addresses; `None` if it has
/// no Envoy.
///
/// # Errors
/// If a shipped file has not the shape that is expected here.
pub fn fixture(
    contender: Contender,
    upstream: &[SocketAddr],
    noop: &Path,
) -> Result<Option<Fixture>> {
    let first = *upstream.first().context("the upstream has no address")?;
    let mode = match contender {
        Contender::Direct => return Ok(None),
        Contender::HeaderOnClusters | Contender::BodyOnClusters => Mode::Clusters,
        _ => Mode::NextRequest,
    };
    let fixture = Fixture::shipped(mode)?
        .on_free_ports()
        .with_providers(&PROVIDERS.map(|port| (port, first)).into())?;
    let mut changed = Ok(());
    let fixture = fixture.edit(|document| {
        changed = strip(document).and_then(|()| match contender {
            Contender::Continues => pass_through(document, &[plugin(noop, "continue"), router()]),
            Contender::Holds => pass_through(document, &[plugin(noop, "hold"), router()]),
            Contender::Stock => stock(document, upstream),
            _ if contender.is_ours() => Ok(()),
            _ => pass_through(document, &[router()]),
        });
    });
    changed.with_context(|| format!("{} has another shape", mode.shipped_file()))?;
    Ok(Some(fixture))
}

/// Removes what is not the filter's.
fn strip(document: &mut Value) -> Result<()> {
    let root = document.as_object_mut().context("it is no object")?;
    for key in ["overload_manager", "layered_runtime", "stats_config"] {
        root.remove(key);
    }
    remove(document, "/static_resources", "secrets")?;
    // For Envoy 1.36 only, as the file says.
    remove(document, "/static_resources/listeners/0", "per_connection_buffer_limit_bytes")?;
    remove(document, MANAGER, "access_log")?;
    let host = format!("{MANAGER}/route_config/virtual_hosts/0");
    remove(document, &host, "response_headers_to_add")?;
    let removed = at(document, &format!("{host}/routes/0/request_headers_to_remove"))?;
    *removed = json!([CLUSTER_HEADER]);
    for cluster in at(document, "/static_resources/clusters")?.as_array_mut().into_iter().flatten()
    {
        let options = at(cluster, "/typed_extension_protocol_options")?.as_object_mut();
        for options in options.into_iter().flat_map(serde_json::Map::values_mut) {
            let filters = at(options, "/http_filters")?.as_array_mut();
            filters
                .context("the filters of a cluster are no list")?
                .retain(|filter| filter["name"] != "envoy.filters.http.credential_injector");
        }
    }
    Ok(())
}

/// Replaces our filter by these, and sends everything to one cluster.
fn pass_through(document: &mut Value, filters: &[Value]) -> Result<()> {
    *at(document, &format!("{MANAGER}/http_filters"))? = json!(filters);
    let route = json!({"cluster": CLUSTER, "timeout": "0s", "idle_timeout": "1800s"});
    *at(document, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))? =
        json!([{"match": {"prefix": "/"}, "route": route}]);
    Ok(())
}

/// What Envoy has itself: `metadata.user_id` of the body becomes a header, which is hashed over as
/// many endpoints as our pool has credentials.
fn stock(document: &mut Value, upstream: &[SocketAddr]) -> Result<()> {
    const HEADER: &str = "x-session";
    let extract = json!({
        "name": "envoy.filters.http.json_to_metadata",
        "typed_config": {
            "@type": format!("{TYPES}.json_to_metadata.v3.JsonToMetadata"),
            "request_rules": {"rules": [{
                "selectors": [{"key": "metadata"}, {"key": "user_id"}],
                "on_present": {"metadata_namespace": "session", "key": "id"},
            }]},
        },
    });
    let header = json!({"key": HEADER, "value": "%DYNAMIC_METADATA(session:id)%"});
    let set = json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": format!("{TYPES}.header_mutation.v3.HeaderMutation"),
            "mutations": {"request_mutations": [
                {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
            ]},
        },
    });
    pass_through(document, &[extract, set, router()])?;
    // The header stays in the request: Envoy hashes what is left after headers are removed.
    let route = at(document, &format!("{MANAGER}/route_config/virtual_hosts/0/routes/0/route"))?;
    insert(route, "hash_policy", json!([{"header": {"header_name": HEADER}}]))?;
    let cluster = at(document, "/static_resources/clusters/0")?;
    insert(cluster, "lb_policy", json!("MAGLEV"))?;
    let endpoints = upstream.iter().map(|address| {
        let address = json!({"address": address.ip(), "port_value": address.port()});
        json!({"endpoint": {"address": {"socket_address": address}}})
    });
    *at(cluster, "/load_assignment/endpoints/0/lb_endpoints")? = endpoints.collect();
    Ok(())
}

fn plugin(module: &Path, configuration: &str) -> Value {
    json!({
        "name": "envoy.filters.http.wasm",
        "typed_config": {
            "@type": format!("{TYPES}.wasm.v3.Wasm"),
            "config": {
                "name": "noop",
                "root_id": "noop",
                "allow_on_headers_stop_iteration": true,
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": "noop",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration,
                },
            },
        },
    })
}

fn router() -> Value {
    let router = json!({"@type": format!("{TYPES}.router.v3.Router")});
    json!({"name": "envoy.filters.http.router", "typed_config": router})
}

fn at<'value>(document: &'value mut Value, pointer: &str) -> Result<&'value mut Value> {
    document.pointer_mut(pointer).with_context(|| format!("there is no {pointer}"))
}

fn insert(object: &mut Value, key: &str, value: Value) -> Result<()> {
    let object = object.as_object_mut().with_context(|| format!("{key} belongs to no object"))?;
    object.insert(key.to_owned(), value);
    Ok(())
}

/// Removes a member, which may be missing, of an object, which may not.
fn remove(document: &mut Value, pointer: &str, key: &str) -> Result<()> {
    let object = at(document, pointer)?.as_object_mut();
    object.with_context(|| format!("{pointer} is no object"))?.remove(key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(contender: Contender) -> Option<Value> {
        let upstream = [1, 2, 3].map(|last| SocketAddr::from(([127, 0, 0, last], 7)));
        let fixture = fixture(contender, &upstream, Path::new("/run/noop.wasm")).unwrap()?;
        let mut document = Value::Null;
        fixture.edit(|edited| document = edited.clone());
        Some(document)
    }

    /// The names of the filters in the listener, and how many clusters have ours.
    fn filters(contender: Contender) -> (Vec<String>, usize) {
        let document = document(contender).unwrap();
        let filters = document.pointer(&format!("{MANAGER}/http_filters")).unwrap();
        let names = filters.as_array().unwrap().iter().map(|filter| {
            let plugin = &filter["typed_config"]["config"]["name"];
            let name = plugin.as_str().or(filter["name"].as_str()).unwrap();
            name.trim_start_matches("envoy.filters.http.").to_owned()
        });
        let clusters = document["static_resources"]["clusters"].to_string();
        (names.collect(), clusters.matches(r#""root_id":"session_affinity_upstream""#).count())
    }

    #[test]
    fn contenders_differ_in_their_filters() {
        for (contender, listener, clusters) in [
            (Contender::Bare, &["router"][..], 0),
            (Contender::BareAgain, &["router"], 0),
            (Contender::Continues, &["noop", "router"], 0),
            (Contender::Holds, &["noop", "router"], 0),
            (Contender::Stock, &["json_to_metadata", "header_mutation", "router"], 0),
            (Contender::Header, &["session_affinity", "router"], 0),
            (Contender::HeaderOnClusters, &["session_affinity", "router"], 7),
            (Contender::Body, &["session_affinity", "router"], 0),
            (Contender::BodyOnClusters, &["session_affinity", "router"], 7),
        ] {
            let (names, count) = filters(contender);
            assert_eq!((names.as_slice(), count), (&*owned(listener), clusters), "{contender:?}");
        }
        assert!(document(Contender::Direct).is_none());
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn nothing_is_left_that_costs_time_and_is_not_the_filters() {
        for contender in Contender::ALL {
            let text = document(contender).unwrap_or_default().to_string();
            for absent in ["access_log", "credential_injector", "overload_actions", "x-api-key"] {
                assert!(!text.contains(absent), "{contender:?}: {absent}");
            }
        }
    }

    #[test]
    fn stock_envoy_hashes_over_as_many_endpoints_as_we_have_credentials() {
        let document = document(Contender::Stock).unwrap();
        let cluster = &document["static_resources"]["clusters"][0];
        let endpoints = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
        assert_eq!(cluster["name"], CLUSTER);
        assert_eq!(endpoints.as_array().unwrap().len(), 3);
    }
}
