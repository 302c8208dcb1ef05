//! The linter: shipped files pass, every mistake of a merge is reported at its place, and what is
//! written otherwise but means the same is accepted.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use envoy_config::check::{Finding, check};
use envoy_harness::{Mode, project_root};
use serde_json::{Value, json};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const ROUTES: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
const PLUGIN: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config";
const ON_CLUSTER: &str = "/static_resources/clusters/1/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters";

fn shipped(mode: Mode) -> Value {
    let text = fs::read_to_string(project_root().join(mode.shipped_file())).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn at<'d>(document: &'d mut Value, pointer: &str) -> &'d mut Value {
    document.pointer_mut(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"))
}

fn set(document: &mut Value, parent: &str, name: &str, value: Value) {
    at(document, parent)[name] = value;
}

fn remove(document: &mut Value, parent: &str, name: &str) {
    assert!(
        at(document, parent).as_object_mut().unwrap().remove(name).is_some(),
        "{parent} {name}"
    );
}

fn problems(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|finding| finding.is_problem).map(Finding::to_string).collect()
}

/// What the linter says of a shipped file after an edit: exactly one problem, with these words and
/// at a path with this end.
fn one_problem(mode: Mode, path: &str, words: &str, edit: impl FnOnce(&mut Value)) {
    let mut document = shipped(mode);
    edit(&mut document);
    let findings = check(&[("merged.json", &document.to_string())]).unwrap();
    let found = problems(&findings);
    assert_eq!(found.len(), 1, "{found:#?}");
    let finding = findings.iter().find(|finding| finding.is_problem).unwrap();
    assert!(finding.path.ends_with(path), "{found:#?} is not at {path}");
    assert!(found[0].contains(words), "{found:#?} does not say {words}");
}

fn advice(mode: Mode, words: &str, edit: impl FnOnce(&mut Value)) {
    let mut document = shipped(mode);
    edit(&mut document);
    let findings = check(&[("merged.json", &document.to_string())]).unwrap();
    assert_eq!(problems(&findings), [""; 0]);
    assert!(findings.iter().any(|finding| finding.to_string().contains(words)), "{findings:#?}");
}

#[test]
fn every_shipped_file_passes() {
    for mode in Mode::ALL {
        let name = mode.shipped_file();
        let text = fs::read_to_string(project_root().join(name)).unwrap();
        let findings = check(&[(name, &text)]).unwrap();
        assert_eq!(problems(&findings), [""; 0], "{name}");
        let advice: Vec<_> = findings.iter().map(Finding::to_string).collect();
        assert!(advice.iter().all(|it| it.contains("a static secret is read once")), "{advice:#?}");
    }
}

#[test]
fn the_operators_page_is_on_the_loopback_interface_and_shows_the_same_filter() {
    const LISTENER: &str = "/static_resources/listeners/1";
    const PAGE: &str = "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config";
    let address = format!("{LISTENER}/address/socket_address");
    for open in ["0.0.0.0", "::", "10.0.0.1"] {
        let words = "whoever reaches the operator's page";
        one_problem(Mode::Clusters, "socket_address.address", words, |document| {
            set(document, &address, "address", json!(open));
        });
    }
    one_problem(Mode::Clusters, "vm_config.vm_id", "shows something else", |document| {
        set(document, &format!("{PAGE}/vm_config"), "vm_id", json!("session_affinity_page"));
    });
    one_problem(Mode::Clusters, "failure_policy", "after a trap", |document| {
        remove(document, PAGE, "failure_policy");
    });
}

#[test]
fn a_finding_names_its_line_its_path_and_what_to_write() {
    let text = fs::read_to_string(project_root().join("envoy.yaml")).unwrap();
    let (before, _) = text.split_once("failure_policy: FAIL_RELOAD").unwrap();
    let line = before.lines().count();
    let text = text.replacen("failure_policy: FAIL_RELOAD", "failure_policy: FAIL_OPEN", 1);
    let found = problems(&check(&[("my.yaml", &text)]).unwrap());
    let start = format!("my.yaml:{line}: problem: static_resources.listeners[0].");
    assert!(found[0].starts_with(&start), "{found:?}, not {start}");
    assert!(found[0].ends_with("\n    failure_policy: FAIL_RELOAD"), "{found:?}");
}

#[test]
fn the_filter_is_configured_as_it_needs() {
    one_problem(Mode::Clusters, "root_id", "no role \"session-affinity\"", |document| {
        set(document, PLUGIN, "root_id", json!("session-affinity"));
    });
    one_problem(Mode::Clusters, "root_id", "another role", |document| {
        let plugin = format!("{ON_CLUSTER}/0/typed_config/config");
        set(document, &plugin, "root_id", json!("session_affinity"));
    });
    one_problem(Mode::Keys, "allow_on_headers_stop_iteration", "requests hang", |document| {
        remove(document, PLUGIN, "allow_on_headers_stop_iteration");
    });
    one_problem(Mode::Replicas, "failure_policy", "after a trap", |document| {
        remove(document, PLUGIN, "failure_policy");
    });
    one_problem(Mode::NextRequest, "configuration.value", "weight: expected", |document| {
        let credential = format!("{PLUGIN}/configuration/value/pools/0/credentials/0");
        set(document, &credential, "weight", json!("many"));
    });
    one_problem(Mode::NextRequest, "configuration.value", "not JSON", |document| {
        set(document, &format!("{PLUGIN}/configuration"), "value", json!("{\"pools\": ["));
    });
}

#[test]
fn both_roles_are_there_and_share_what_they_know() {
    one_problem(Mode::Clusters, "vm_config.vm_id", "differs from", |document| {
        let plugin = format!("{ON_CLUSTER}/0/typed_config/config/vm_config");
        set(document, &plugin, "vm_id", json!("other"));
    });
    one_problem(Mode::Clusters, "configuration.value", "differs from", |document| {
        let value = format!("{ON_CLUSTER}/0/typed_config/config/configuration/value");
        set(document, &value, "failover", json!({"max_attempts": 2}));
    });
    one_problem(Mode::Clusters, "http_filters", "does not have the filter", |document| {
        at(document, ON_CLUSTER).as_array_mut().unwrap().remove(0);
    });
    one_problem(Mode::Clusters, "", "no listener in these files has the filter", |document| {
        let filters = format!("{MANAGER}/http_filters");
        at(document, &filters).as_array_mut().unwrap().remove(0);
    });
}

#[test]
fn the_filter_comes_after_authentication_and_before_the_router() {
    let authentication = json!({"name": "jwt", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"}});
    let filters = format!("{MANAGER}/http_filters");
    one_problem(Mode::Clusters, "http_filters[1]", "comes after the filter", |document| {
        at(document, &filters).as_array_mut().unwrap().insert(1, authentication.clone());
    });
    let mut document = shipped(Mode::Clusters);
    at(&mut document, &filters).as_array_mut().unwrap().insert(0, authentication);
    assert_eq!(problems(&check(&[("f", &document.to_string())]).unwrap()), [""; 0]);
    one_problem(Mode::Clusters, "http_filters[0]", "router comes before", |document| {
        at(document, &filters).as_array_mut().unwrap().reverse();
    });
}

#[test]
fn the_connection_manager_leaves_requests_as_the_filter_needs_them() {
    let options = format!("{MANAGER}/common_http_protocol_options");
    one_problem(Mode::Keys, "headers_with_underscores_action", "`session_id`", |document| {
        set(document, &options, "headers_with_underscores_action", json!("REJECT_REQUEST"));
    });
    one_problem(Mode::Keys, "max_stream_duration", "ends long responses", |document| {
        set(document, &options, "max_stream_duration", json!("60s"));
    });
    advice(Mode::Keys, "normalize_path: true", |it| remove(it, MANAGER, "normalize_path"));
    advice(Mode::Keys, "`x-forwarded-for`", |it| remove(it, MANAGER, "use_remote_address"));
    advice(Mode::Keys, "Envoy 1.36 applies this limit", |document| {
        let listener = "/static_resources/listeners/0";
        remove(document, listener, "per_connection_buffer_limit_bytes");
    });
    advice(Mode::Keys, "initial_stream_window_size: 41943040", |document| {
        let http2 = format!("{MANAGER}/http2_protocol_options");
        set(document, &http2, "initial_stream_window_size", json!(1 << 20));
    });
}

#[test]
fn the_route_on_the_routing_header_comes_first() {
    let other = json!({"match": {"prefix": "/v1"}, "route": {"cluster": "legacy"}});
    one_problem(Mode::Clusters, "routes[0]", "move it behind", |document| {
        at(document, ROUTES).as_array_mut().unwrap().insert(0, other.clone());
    });
    let health = json!({"match": {"path": "/healthz"}, "direct_response": {"status": 200}});
    let mut document = shipped(Mode::Clusters);
    at(&mut document, ROUTES).as_array_mut().unwrap().insert(0, health);
    assert_eq!(problems(&check(&[("f", &document.to_string())]).unwrap()), [""; 0]);
    one_problem(Mode::Clusters, "virtual_hosts", "no route matches the header", |document| {
        at(document, ROUTES).as_array_mut().unwrap().remove(0);
    });
    one_problem(Mode::Replicas, "routes", "chooses the cluster \"replicas\"", |document| {
        let header = format!("{ROUTES}/0/match/headers/0");
        remove(document, &header, "present_match");
        set(document, &header, "string_match", json!({"exact": "other"}));
    });
    one_problem(Mode::Clusters, "direct_response", "413", |document| {
        remove(document, &format!("{ROUTES}/1"), "route");
        set(document, &format!("{ROUTES}/1"), "direct_response", json!({"status": 404}));
    });
}

#[test]
fn the_routing_header_and_keys_of_clients_do_not_go_upstream() {
    one_problem(Mode::Keys, "request_headers_to_remove", "routing header goes", |document| {
        let route = format!("{ROUTES}/0/request_headers_to_remove");
        at(document, &route).as_array_mut().unwrap().remove(0);
    });
    advice(Mode::Keys, "request_headers_to_remove: [authorization]", |document| {
        let route = format!("{ROUTES}/0/request_headers_to_remove");
        at(document, &route).as_array_mut().unwrap().retain(|name| name != "authorization");
    });
}

#[test]
fn every_attempt_goes_to_the_cluster_that_the_filter_names() {
    let matcher = format!(
        "{ROUTES}/0/route/inline_cluster_specifier_plugin/extension/typed_config/cluster_matcher/matcher_tree"
    );
    one_problem(Mode::Clusters, "typed_config.key", "another filter state", |document| {
        set(document, &format!("{matcher}/input/typed_config"), "key", json!("wasm.cluster"));
    });
    let map = format!("{matcher}/exact_match_map/map");
    one_problem(Mode::Clusters, "exact_match_map.map", "\"openai_b\"", |document| {
        remove(document, &map, "openai_b");
    });
    one_problem(Mode::Clusters, "typed_config.cluster", "go to another one", |document| {
        let action = format!("{map}/openai_b/action/typed_config");
        set(document, &action, "cluster", json!("openai_a"));
    });
    let policy = format!("{ROUTES}/0/route/retry_policy");
    one_problem(Mode::Clusters, "refresh_cluster_on_retry", "same credential again", |document| {
        remove(document, &policy, "refresh_cluster_on_retry");
    });
    let route = format!("{ROUTES}/0/route");
    one_problem(Mode::Clusters, "[0].route", "would ask the same credential again", |document| {
        remove(document, &route, "inline_cluster_specifier_plugin");
        set(document, &route, "cluster_header", json!("x-session-affinity-cluster"));
        remove(document, &policy, "refresh_cluster_on_retry");
    });
    one_problem(Mode::NextRequest, "[0].route", "does not lead to the cluster", |document| {
        remove(document, &route, "cluster_header");
        set(document, &route, "cluster", json!("openai_a"));
    });
}

#[test]
fn failures_are_retried_as_the_filter_asks() {
    let policy = format!("{ROUTES}/0/route/retry_policy");
    one_problem(Mode::Clusters, "retry_on", "`5xx` retries", |document| {
        set(document, &policy, "retry_on", json!("connect-failure,5xx"));
    });
    one_problem(Mode::Keys, "http_filters", "does not have the filter", |document| {
        at(document, ON_CLUSTER).as_array_mut().unwrap().remove(0);
    });
    for mode in [Mode::Keys, Mode::Replicas] {
        let mut document = shipped(mode);
        remove(&mut document, &format!("{ROUTES}/0/route"), "retry_policy");
        let findings = check(&[("merged.json", &document.to_string())]).unwrap();
        assert_eq!(problems(&findings), [""; 0], "{mode:?}");
    }
    let cluster = "/static_resources/clusters/2";
    one_problem(Mode::Clusters, "circuit_breakers.thresholds", "max_retries", |document| {
        remove(document, cluster, "circuit_breakers");
    });
}

#[test]
fn long_responses_and_long_bodies_pass() {
    let route = format!("{ROUTES}/0/route");
    one_problem(Mode::NextRequest, "route.timeout", "after 15 s", |document| {
        remove(document, &route, "timeout");
    });
    one_problem(Mode::Keys, "per_try_timeout", "ends long responses", |document| {
        set(document, &format!("{route}/retry_policy"), "per_try_timeout", json!("30s"));
    });
    one_problem(
        Mode::Keys,
        "route.max_stream_duration.max_stream_duration",
        "ends long",
        |document| {
            set(document, &route, "max_stream_duration", json!({"max_stream_duration": "60s"}));
        },
    );
    one_problem(Mode::Keys, "idle_timeout", "before its first attempt", |document| {
        set(document, &route, "idle_timeout", json!("300s"));
    });
    let host = format!("{MANAGER}/route_config/virtual_hosts/0");
    one_problem(Mode::Clusters, "request_body_buffer_limit", "413", |document| {
        set(document, &host, "request_body_buffer_limit", json!(8_388_608));
    });
    one_problem(Mode::Clusters, "request_body_buffer_limit", "413", |document| {
        remove(document, &host, "request_body_buffer_limit");
    });
}

#[test]
fn every_cluster_exists_and_has_its_key() {
    one_problem(Mode::NextRequest, "value.pools", "\"anthropic_a\" does not exist", |document| {
        at(document, "/static_resources/clusters").as_array_mut().unwrap().remove(0);
    });
    one_problem(Mode::Clusters, "credential.name", "no secret of these files", |document| {
        at(document, "/static_resources/secrets").as_array_mut().unwrap().remove(0);
    });
    let injector = format!("{ON_CLUSTER}/1/typed_config");
    one_problem(Mode::Clusters, "overwrite", "stays in the request", |document| {
        remove(document, &injector, "overwrite");
    });
    let vm = format!("{PLUGIN}/vm_config/environment_variables/host_env_keys");
    let found = {
        let mut document = shipped(Mode::Keys);
        at(&mut document, &vm).as_array_mut().unwrap().remove(0);
        problems(&check(&[("f", &document.to_string())]).unwrap())
    };
    assert!(
        found.iter().any(|it| it.contains("cannot see the variable ANTHROPIC_A_KEY")),
        "{found:#?}"
    );
    one_problem(Mode::Replicas, "clusters[0].type", "ignores it", |document| {
        set(document, "/static_resources/clusters/0", "type", json!("STATIC"));
    });
    one_problem(Mode::Keys, "clusters[0].type", "no `endpoint`", |document| {
        set(document, "/static_resources/clusters/0", "type", json!("ORIGINAL_DST"));
    });
    advice(Mode::Clusters, "closed", |document| {
        let options = ON_CLUSTER.trim_end_matches("/http_filters");
        remove(document, options, "common_http_protocol_options");
    });
}

#[test]
fn secrets_by_discovery_need_no_definition() {
    let mut document = shipped(Mode::Clusters);
    remove(&mut document, "/static_resources", "secrets");
    for cluster in 0..7 {
        let pointer = ON_CLUSTER.replace("clusters/1", &format!("clusters/{cluster}"));
        let secret = format!("{pointer}/1/typed_config/credential/typed_config/credential");
        set(
            &mut document,
            &secret,
            "sds_config",
            json!({"path_config_source": {"path": "/keys.yaml"}}),
        );
    }
    let findings = check(&[("f", &document.to_string())]).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn logs_and_traces_print_no_key() {
    let format = format!("{MANAGER}/access_log/0/typed_config/log_format/text_format_source");
    for operator in ["%REQ(X-API-KEY)%", "%REQ(X-A?AUTHORIZATION):9%", "%REQ(cookie)%"] {
        one_problem(Mode::Keys, "inline_string", "prints a key", |document| {
            set(document, &format, "inline_string", json!(operator));
        });
    }
    one_problem(Mode::Keys, "json_format.key", "prints a key", |document| {
        let log = format!("{MANAGER}/access_log/0/typed_config/log_format");
        *at(document, &log) = json!({"json_format": {"key": "%REQ(x-goog-api-key)%"}});
    });
    one_problem(Mode::Keys, "request_header.name", "traces a header", |document| {
        let tags =
            json!({"custom_tags": [{"tag": "key", "request_header": {"name": "Authorization"}}]});
        set(document, MANAGER, "tracing", tags);
    });
    advice(Mode::Keys, "%PATH(NQ:PATH)%", |document| {
        set(document, &format, "inline_string", json!("%REQ(:PATH)%"));
    });
}

#[test]
fn listeners_and_clusters_may_come_in_files_of_their_own() {
    let mut document = shipped(Mode::Clusters);
    let resources = ["listeners", "clusters", "secrets"].map(|kind| {
        let mut resources = document["static_resources"][kind].take();
        let name = match kind {
            "listeners" => "envoy.config.listener.v3.Listener",
            "clusters" => "envoy.config.cluster.v3.Cluster",
            _ => "envoy.extensions.transport_sockets.tls.v3.Secret",
        };
        for resource in resources.as_array_mut().unwrap() {
            resource["@type"] = json!(format!("type.googleapis.com/{name}"));
        }
        json!({"resources": resources}).to_string()
    });
    let [listeners, clusters, secrets] = &resources;
    let all = [("lds", listeners.as_str()), ("cds", clusters.as_str()), ("sds", secrets.as_str())];
    assert_eq!(problems(&check(&all).unwrap()), [""; 0]);
    let found: Vec<_> = check(&all[..1]).unwrap().iter().map(Finding::to_string).collect();
    assert!(found.iter().any(|it| it.contains("name the file with the clusters too")), "{found:?}");
    let found: Vec<_> = check(&all[1..]).unwrap().iter().map(Finding::to_string).collect();
    assert!(
        found.iter().any(|it| it.contains("name the file with the listeners too")),
        "{found:?}"
    );
}

#[test]
fn routes_and_filters_may_be_discovered() {
    let mut document = shipped(Mode::Keys);
    let routes =
        at(&mut document, MANAGER).as_object_mut().unwrap().remove("route_config").unwrap();
    set(&mut document, MANAGER, "rds", json!({"route_config_name": "llm"}));
    let filters = format!("{MANAGER}/http_filters/0");
    let filter = at(&mut document, &filters).take();
    *at(&mut document, &filters) = json!({"name": "affinity", "config_discovery": {}});
    let filter = json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "affinity",
        "typed_config": {
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
            "type_url": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "value": filter["typed_config"],
        },
    });
    let (bootstrap, routes, filter) =
        (document.to_string(), routes.to_string(), filter.to_string());
    let all = [("b", bootstrap.as_str()), ("r", routes.as_str()), ("e", filter.as_str())];
    let findings = check(&all).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
    let findings = check(&[all[0], all[2]]).unwrap();
    assert!(findings[0].to_string().contains("name the file with the routes too"), "{findings:#?}");
}

#[test]
fn what_is_not_yaml_is_an_error_with_the_name_of_the_file() {
    let error = check(&[("broken.yaml", "a: [")]).unwrap_err().to_string();
    assert!(error.starts_with("broken.yaml: "), "{error}");
}
