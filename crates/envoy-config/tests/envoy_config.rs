//! The generator of configurations: the shipped files are its output, Envoy accepts it, and its
//! errors name what is wrong.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use anyhow::{Context, Result, ensure};
use envoy_config::EnvoyConfig;
use envoy_harness::{Fixture, Mode, find, module, project_root};
use serde_json::{Value, json};
use session_affinity::client_headers::is_control;

fn example(mode: Mode) -> Result<EnvoyConfig> {
    let input = mode.shipped_input();
    let json = fs::read_to_string(project_root().join(input)).with_context(|| input.to_owned())?;
    EnvoyConfig::parse(&json, mode)
}

/// An input with everything: names, weights, TLS, several pools.
fn elaborate() -> Value {
    json!({
        "listener": "[::1]:8080",
        "admin": "127.0.0.2:9902",
        "module": "/etc/envoy/a module.wasm",
        "filter": {"routing": {"header": "x-cluster", "filter-state": "cluster"}, "body": {"max_bytes": 67_108_864}},
        "pools": [
            {
                "name": "claude-api",
                "provider": "claude",
                "match": {"hosts": ["*.example.com"]},
                "session": {"strict": true},
                "cache_lifetime": "1h",
                "upstream": "https://api.anthropic.com",
                "key_header": "X-Api-Key",
                "credentials": [
                    {"id": "a-1", "key": "A_1", "weight": 3, "priority": 1, "parent": "org: 1"},
                    {"id": "a-2", "key": "A_2", "state": "drain", "websockets": true, "disable_cooling": true},
                ],
            },
            {
                "name": "house",
                "upstream": "http://llm.internal:8000",
                "key_header": "x-house-key",
                "credentials": [{"id": "yes", "key": "A_1"}],
            },
        ],
    })
}

fn problems(mode: Mode, edit: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut input = elaborate();
    edit(&mut input);
    let problem = EnvoyConfig::parse(&input.to_string(), mode).unwrap_err();
    problem.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn only_where_models_may_be_arns_slashes_in_paths_may_be_escaped() {
    let action = |api: &str| {
        let mut input = elaborate();
        input["pools"][0]["match"] = Value::Null;
        input["pools"][0]["api"] = json!(api);
        let document = EnvoyConfig::parse(&input.to_string(), Mode::Clusters)?.document()?;
        let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let action = document.pointer(&format!("{manager}/path_with_escaped_slashes_action"));
        anyhow::Ok(action.cloned().unwrap_or_default())
    };
    assert_eq!(action("bedrock").unwrap(), "KEEP_UNCHANGED");
    assert_eq!(action("openai").unwrap(), "REJECT_REQUEST");
}

#[test]
fn an_operators_page_is_there_if_it_is_asked_for_and_only_on_the_loopback_interface() {
    for mode in [Mode::Clusters, Mode::Keys, Mode::NextRequest] {
        let without = EnvoyConfig::parse(&elaborate().to_string(), mode).unwrap();
        assert!(!without.yaml("x").unwrap().contains("session_affinity_operator"));
        let mut input = elaborate();
        input["operator"] = json!("[::1]:9903");
        let with = EnvoyConfig::parse(&input.to_string(), mode).unwrap().yaml("x").unwrap();
        let document: Value = serde_saphyr::from_str(&with).unwrap();
        let listener = &document["static_resources"]["listeners"][1];
        assert_eq!(
            listener["address"]["socket_address"],
            json!({"address": "::1", "port_value": 9903})
        );
    }
    let found = problems(Mode::Clusters, |input| input["operator"] = json!("0.0.0.0:9902"));
    assert!(found[0].starts_with("operator: expected an address of the loopback interface"));
}

#[test]
fn what_is_shipped_is_what_the_generator_prints() -> Result<()> {
    for mode in Mode::ALL {
        let shipped = fs::read_to_string(project_root().join(mode.shipped_file()))?;
        ensure!(
            example(mode)?.yaml(&mode.shipped_command())? == shipped,
            "{} differs: {} prints it",
            mode.shipped_file(),
            mode.shipped_command()
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn a_real_envoy_accepts_the_modes_of_its_version_and_no_other() -> Result<()> {
    let envoy = find(None)?;
    for mode in Mode::ALL {
        let verdict = example(mode)?.validate(&envoy, &module::path());
        assert_eq!(verdict.is_ok(), mode.runs_on(envoy.version), "{} {verdict:?}", mode.as_str());
    }
    Ok(())
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn a_real_envoy_accepts_an_input_with_everything() -> Result<()> {
    let envoy = find(None)?;
    for mode in [Mode::Clusters, Mode::Keys, Mode::NextRequest]
        .into_iter()
        .filter(|mode| mode.runs_on(envoy.version))
    {
        EnvoyConfig::parse(&elaborate().to_string(), mode)?.validate(&envoy, &module::path())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn an_error_of_envoy_is_passed_on() -> Result<()> {
    let mut input = elaborate();
    input["ca_certificates"] = json!("/nowhere/certificates.pem");
    let config = EnvoyConfig::parse(&input.to_string(), Mode::NextRequest)?;
    let problem = config.validate(&find(None)?, &module::path()).unwrap_err().to_string();
    assert!(
        problem.contains("refuses this configuration")
            && problem.contains("/nowhere/certificates.pem"),
        "{problem}"
    );
    Ok(())
}

#[test]
fn a_provider_with_a_name_is_reached_by_tls_and_checked_by_its_certificate() -> Result<()> {
    let document = document(Mode::Clusters)?;
    let cluster = &document["static_resources"]["clusters"][0];
    assert_eq!((&cluster["name"], &cluster["type"]), (&json!("a_1"), &json!("LOGICAL_DNS")));
    let tls = &cluster["transport_socket"]["typed_config"];
    assert_eq!(tls["sni"], "api.anthropic.com");
    let validation = &tls["common_tls_context"]["validation_context"];
    assert_eq!(validation["trusted_ca"]["filename"], "/etc/ssl/certs/ca-certificates.crt");
    assert_eq!(
        validation["match_typed_subject_alt_names"][0]["matcher"]["exact"],
        "api.anthropic.com"
    );
    assert_eq!(route(&document)["route"]["auto_host_rewrite"], true);

    let own = &document["static_resources"]["clusters"][2];
    assert_eq!((&own["name"], &own["type"]), (&json!("yes"), &json!("STRICT_DNS")));
    assert!(own["transport_socket"].is_null());
    Ok(())
}

#[test]
fn names_limits_and_headers_are_the_same_on_both_sides() -> Result<()> {
    let document = document(Mode::Clusters)?;
    let route = route(&document);
    assert_eq!(route["match"]["headers"][0]["name"], "x-cluster");
    let removed: Vec<_> =
        route["request_headers_to_remove"].as_array().context("none")?.iter().collect();
    for header in [
        "x-cluster",
        "authorization",
        "x-api-key",
        "x_api_key",
        "x-house-key",
        "x_house_key",
        "cookie",
    ] {
        assert!(removed.contains(&&json!(header)), "{header}: {removed:?}");
    }
    assert_eq!(removed.iter().filter(|header| **header == "x-api-key").count(), 1);
    let matcher = &route["route"]["inline_cluster_specifier_plugin"]["extension"]["typed_config"]["cluster_matcher"];
    assert_eq!(matcher["matcher_tree"]["input"]["typed_config"]["key"], "wasm.cluster");
    let clusters =
        matcher["matcher_tree"]["exact_match_map"]["map"].as_object().context("no map")?;
    assert_eq!(clusters.keys().collect::<Vec<_>>(), ["a_1", "a_2", "yes"]);

    let listener = &document["static_resources"]["listeners"][0];
    assert_eq!(listener["address"]["socket_address"]["address"], "::1");
    assert!(listener["per_connection_buffer_limit_bytes"].is_null(), "only Envoy 1.36 needs it");
    let host = &manager_of(&document)["route_config"]["virtual_hosts"][0];
    assert_eq!(host["request_body_buffer_limit"], 67_108_864 + (8 << 20));

    let document = self::document(Mode::Keys)?;
    let listener = &document["static_resources"]["listeners"][0];
    assert_eq!(listener["per_connection_buffer_limit_bytes"], 67_108_864 + (8 << 20));
    let http2 = &manager_of(&document)["http2_protocol_options"];
    assert_eq!(http2["initial_stream_window_size"], 67_108_864 + (8 << 20), "Envoy 1.36 needs it");
    Ok(())
}

#[test]
fn clients_see_decisions_and_accounts_only_if_the_input_says_so() -> Result<()> {
    for (decision, hidden) in [(None, None), (Some(true), Some(false)), (Some(false), Some(true))] {
        let mut input = elaborate();
        input["show_decision"] = json!(decision.unwrap_or_default());
        if let Some(hidden) = hidden {
            input["filter"]["privacy"] = json!({"hide_account_headers": hidden});
        }
        let yaml = EnvoyConfig::parse(&input.to_string(), Mode::Keys)?.yaml("")?;
        let shown = yaml.contains("key: x-session-affinity-decision");
        assert_eq!(shown, decision == Some(true), "{decision:?}");
        let line = format!("privacy: {{hide_account_headers: {}}}", hidden.unwrap_or(true));
        assert!(yaml.contains(&line), "{hidden:?}");
    }
    Ok(())
}

#[test]
fn limits_of_connections_and_memory_can_be_set() -> Result<()> {
    let mut input = elaborate();
    input["max_connections"] = json!(77);
    input["max_heap_bytes"] = json!(1 << 30);
    let yaml = EnvoyConfig::parse(&input.to_string(), Mode::Clusters)?.yaml("")?;
    assert_eq!(yaml.matches(": 77").count(), 2, "of this listener, and of all");
    assert!(yaml.contains("max_heap_size_bytes: 1073741824"));
    let found = problems(Mode::Clusters, |input| input["max_heap_bytes"] = json!(0));
    assert!(found[0].starts_with("max_heap_bytes: "), "{found:?}");
    Ok(())
}

#[test]
fn replicas_get_the_headers_of_the_client() -> Result<()> {
    let yaml = example(Mode::Replicas)?.yaml("")?;
    let document = Fixture::parse(&yaml, project_root())?;
    let mut removed = Value::Null;
    let _ = document.edit(|all| removed = route(all)["request_headers_to_remove"].clone());
    assert_eq!(removed, json!(["x-session-affinity-cluster"]));
    Ok(())
}

#[test]
fn the_fields_of_pools_and_credentials_pass_through() -> Result<()> {
    let mut filter = Value::Null;
    parsed(Mode::Keys)?.edit_filter(|object| filter = object.clone())?;
    let pool = &filter["pools"][0];
    assert_eq!((&pool["cache_lifetime"], &pool["session"]["strict"]), (&json!("1h"), &json!(true)));
    let headers = json!([{"name": "x-api-key", "environment": "A_1"}]);
    let credential = json!({
        "id": "a-1", "cluster": "claude_api", "priority": 1, "weight": 3, "parent": "org: 1", "headers": headers,
    });
    assert_eq!(pool["credentials"][0], credential);
    Ok(())
}

#[test]
fn a_header_that_is_filled_with_a_key_is_no_clients_and_goes_no_further() -> Result<()> {
    let mut input = elaborate();
    input["secrets"] = json!("/etc/envoy/secrets");
    let yaml = EnvoyConfig::parse(&input.to_string(), Mode::Keys)?.yaml("")?;
    let mut document = Value::Null;
    let _ = Fixture::parse(&yaml, project_root())?.edit(|all| document = all.clone());
    let options = &document["static_resources"]["clusters"][0]["typed_extension_protocol_options"];
    let options = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    let filters = options["http_filters"].as_array().context("no filters")?;
    let named = |name: &str| {
        let name = format!("envoy.filters.http.{name}");
        filters.iter().enumerate().filter(move |(_, filter)| filter["name"] == name)
    };
    let (filter, _) = named("wasm").next().context("no filter")?;
    let (last, removing) = named("header_mutation").next().context("nothing is removed")?;
    let mut filled = Vec::new();
    for (at, injector) in named("credential_injector") {
        let header = &injector["typed_config"]["credential"]["typed_config"]["header"];
        assert!(at < filter && filter < last);
        assert!(
            is_control(header.as_str().unwrap().as_bytes()),
            "{header}: a client could fill it"
        );
        filled.push(json!({"remove": header}));
    }
    assert_eq!(filled.len(), 2);
    assert_eq!(removing["typed_config"]["mutations"]["request_mutations"], json!(filled));
    Ok(())
}

#[test]
fn the_filter_may_see_each_variable_once() -> Result<()> {
    let document = document(Mode::Keys)?;
    let cluster = &document["static_resources"]["clusters"][0];
    let options = &cluster["typed_extension_protocol_options"];
    let options = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    let plugin = &options["http_filters"][0]["typed_config"]["config"];
    let environment = &plugin["vm_config"]["environment_variables"];
    assert_eq!(*environment, json!({"host_env_keys": ["A_1", "A_2"]}), "{plugin}");
    Ok(())
}

#[test]
fn all_problems_have_their_paths() {
    let found = problems(Mode::Clusters, |input| {
        input["filter"]["routing"]["strategy"] = json!("random");
        input["filter"]["typo"] = json!(1);
        input["pools"][0]["credentials"][1]["weight"] = json!("many");
        input["pools"][0]["credentials"][1].as_object_mut().unwrap().remove("key");
        input["pools"][1].as_object_mut().unwrap().remove("upstream");
    });
    let expected = [
        "pools[0].credentials[1].key: required with --mode clusters",
        "pools[1].upstream: required with --mode clusters",
        r#"filter.routing.strategy: expected round-robin, fill-first, consistent or headroom, found "random""#,
        "pools[0].credentials[1].weight: expected an integer, found a string",
        "filter.typo: unknown key",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_belongs_to_another_mode_is_a_problem() {
    let found = problems(Mode::Replicas, |_| {});
    assert!(found.contains(
        &"pools[0].upstream: has no meaning with --mode replicas: every replica has its own `endpoint`".to_owned()
    ));
    assert!(
        found.contains(
            &"pools[1].credentials[0].endpoint: required with --mode replicas".to_owned()
        )
    );
    let found = problems(Mode::Keys, |input| {
        input["pools"][0]["credentials"][0]["endpoint"] = json!("10.0.0.1:80")
    });
    assert_eq!(
        found,
        [
            "pools[0].credentials[0].endpoint: has no meaning with --mode keys: the pool has an `upstream`"
        ]
    );
}

#[test]
fn two_credentials_that_would_share_a_cluster_are_a_problem() {
    let found =
        problems(Mode::Clusters, |input| input["pools"][1]["credentials"][0]["id"] = json!("a_2"));
    assert_eq!(found, [r#"pools[1].credentials[0].id: another one has the cluster "a_2" already"#]);
}

#[test]
fn keys_of_two_credentials_never_share_a_name_whatever_their_modes() {
    let found = problems(Mode::Clusters, |input| {
        let pool = |name: &str, mode: &str, id: &str| {
            json!({
                "name": name, "mode": mode, "upstream": "https://api.example.com",
                "match": {"path_prefixes": [format!("/{name}")]}, "key_header": "x-api-key",
                "credentials": [{"id": id, "key": "KEY"}],
            })
        };
        input["pools"] =
            json!([pool("azure", "keys", "east"), pool("other", "clusters", "azure-east"),]);
        input["secrets"] = json!("/etc/envoy/secrets");
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("the key of another credential would have the same name"));
}

#[test]
fn no_id_leads_out_of_a_directory_or_takes_a_name_of_envoys_own() {
    for id in ["../../evil", "a/b", ".hidden", "a b", "admin"] {
        let found = problems(Mode::Clusters, |input| {
            input["pools"][1]["credentials"][0]["id"] = json!(id);
        });
        assert!(!found.is_empty(), "{id}");
    }
}

#[test]
fn envoys_admin_interface_stays_on_loopback() {
    let found = problems(Mode::Clusters, |input| input["admin"] = json!("0.0.0.0:9901"));
    assert!(found[0].starts_with("admin: expected an address of the loopback interface"));
}

#[test]
fn anything_else_is_a_problem_with_its_path() {
    let found =
        problems(Mode::Clusters, |input| input["pools"][1]["credentials"][0]["keys"] = json!("x"));
    assert!(
        found[0].starts_with("pools[1].credentials[0].keys: unknown field `keys`, expected one of"),
        "{found:?}"
    );
    let found = problems(Mode::Clusters, |input| {
        input["pools"][0]["upstream"] = json!("api.anthropic.com")
    });
    assert!(found[0].starts_with("pools[0].upstream: expected http or https"), "{found:?}");
    let found = problems(Mode::Clusters, |input| {
        input["pools"][0]["credentials"][0]["key"] = json!("sk-ant-secret")
    });
    assert!(
        found[0].starts_with("pools[0].credentials[0].key: expected the name of an"),
        "{found:?}"
    );
    assert!(!found[0].contains("secret"), "{found:?}");
}

fn parsed(mode: Mode) -> Result<Fixture> {
    let yaml = EnvoyConfig::parse(&elaborate().to_string(), mode)?.yaml("")?;
    Fixture::parse(&yaml, project_root())
}

fn document(mode: Mode) -> Result<Value> {
    let mut document = Value::Null;
    let _ = parsed(mode)?.edit(|all| document = all.clone());
    Ok(document)
}

fn manager_of(document: &Value) -> &Value {
    &document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}

fn route(document: &Value) -> &Value {
    &manager_of(document)["route_config"]["virtual_hosts"][0]["routes"][0]
}
