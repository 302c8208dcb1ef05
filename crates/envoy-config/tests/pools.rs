//! Pools that differ: another mode, an upstream for each credential, a path, keys of clients that
//! pass. And the same configuration in parts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use anyhow::{Context, Result};
use envoy_config::check::check;
use envoy_config::{EnvoyConfig, Source, Target, secret_file};
use envoy_harness::{Mode, find, module, project_root};
use serde_json::{Value, json};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

fn example() -> Result<EnvoyConfig> {
    EnvoyConfig::read(&project_root().join("examples/mixed.yaml"), Mode::Clusters, Target::Envoy)
}

fn config(pools: Value) -> Result<EnvoyConfig> {
    EnvoyConfig::parse(&json!({"pools": pools}).to_string(), Mode::Clusters)
}

fn problems(pools: Value) -> String {
    config(pools).unwrap_err().to_string()
}

fn routes(document: &Value) -> &Vec<Value> {
    let manager = document.pointer(MANAGER).unwrap();
    manager["route_config"]["virtual_hosts"][0]["routes"].as_array().unwrap()
}

fn route_to<'d>(document: &'d Value, cluster: &str) -> &'d Value {
    let regex = |route: &&Value| {
        let names = &route["match"]["headers"][0]["string_match"]["safe_regex"]["regex"];
        names.as_str().is_some_and(|names| names.split('|').any(|name| name == cluster))
    };
    routes(document).iter().find(regex).unwrap_or_else(|| panic!("no route to {cluster}"))
}

fn cluster<'d>(document: &'d Value, name: &str) -> &'d Value {
    let mut clusters = document["static_resources"]["clusters"].as_array().unwrap().iter();
    clusters.find(|cluster| cluster["name"] == name).unwrap()
}

/// The names of the filters of a cluster, the last parts of their types.
fn filters(cluster: &Value) -> Vec<&str> {
    let options = cluster["typed_extension_protocol_options"].as_object().unwrap();
    let filters = options.values().flat_map(|it| it["http_filters"].as_array().unwrap());
    let types = filters.map(|filter| filter["typed_config"]["@type"].as_str().unwrap());
    types.map(|name| name.rsplit('.').next().unwrap()).collect()
}

#[test]
fn pools_of_several_modes_share_a_gateway() -> Result<()> {
    let document = example()?.document()?;
    assert_eq!(
        routes(&document).len(),
        4 + 1,
        "one for each way to treat requests, and for the rest"
    );
    for (name, expected) in [
        ("anthropic_a", &["Wasm", "CredentialInjector", "UpstreamCodec"][..]),
        ("llama_0", &["Wasm", "UpstreamCodec"]),
        (
            "openrouter",
            &[
                "CredentialInjector",
                "CredentialInjector",
                "Wasm",
                "HeaderMutation",
                "UpstreamCodec",
            ],
        ),
    ] {
        assert_eq!(filters(cluster(&document, name)), expected, "{name}");
    }
    let removed = |name: &str| {
        let removed = route_to(&document, name)["request_headers_to_remove"].as_array().unwrap();
        removed.contains(&json!("authorization"))
    };
    assert!(removed("anthropic_a") && removed("azure_east") && removed("openrouter"));
    assert!(!removed("llama_0"), "replicas get what the client sent");
    for (name, rewrite) in [
        ("azure_west", json!({"pattern": {"regex": "^/v1/"}, "substitution": "/openai/v1/"})),
        ("openrouter", json!({"pattern": {"regex": "^/v1/"}, "substitution": "/api/v1/"})),
        ("anthropic_a", Value::Null),
    ] {
        assert_eq!(route_to(&document, name)["route"]["regex_rewrite"], rewrite, "{name}");
    }
    let matched = |name: &str| route_to(&document, name)["route"]["cluster_header"].is_null();
    assert!(matched("azure_east") && matched("llama_1") && !matched("openrouter"));
    Ok(())
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn a_real_envoy_accepts_pools_of_several_modes() -> Result<()> {
    let (config, envoy) = (example()?, find(None)?);
    if envoy.version >= config.oldest_envoy() {
        config.validate(&envoy, &module::path())?;
    }
    Ok(())
}

#[test]
fn nothing_is_missing_in_what_is_printed_whole_or_in_parts() -> Result<()> {
    let config = example()?;
    let whole = config.yaml("")?;
    let parts = config.split(&Source::Files("/etc/envoy/config".to_owned()))?;
    let parts: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.yaml(""))).collect();
    let parts: Vec<_> = parts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    for files in [&[("envoy.yaml", whole.as_str())][..], &parts] {
        let found = check(files)?;
        let found: Vec<_> = found.iter().filter(|it| it.is_problem).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
    Ok(())
}

/// Envoy refuses a file of routes with two of them, and then the listener of all clients has none.
#[test]
fn the_operators_page_adds_no_routes_to_the_parts_and_follows_the_same_configuration() -> Result<()>
{
    let input = json!({"operator": "127.0.0.1:9902", "pools": [{
        "name": "p", "upstream": "http://a", "key_header": "x-api-key",
        "credentials": [{"id": "a", "key": "A"}],
    }]});
    for mode in [Mode::Clusters, Mode::Keys, Mode::NextRequest] {
        let config = EnvoyConfig::parse(&input.to_string(), mode)?;
        let parts = config.split(&Source::Files("/srv".to_owned()))?;
        let part = |name| &parts.iter().find(|part| part.name == name).expect(name).content;
        let names = |name| -> Vec<_> {
            let resources = part(name)["resources"].as_array().expect(name);
            resources.iter().map(|it| it["name"].as_str().expect(name)).collect()
        };
        assert_eq!(names("listeners.yaml"), ["llm", "operator"]);
        assert_eq!(names("routes.yaml"), ["llm"]);
        let configuration =
            |name| &part(name)["resources"][0]["typed_config"]["config"]["configuration"];
        let operators = configuration("session_affinity_operator.yaml");
        assert_eq!(operators, configuration("session_affinity.yaml"));
    }
    Ok(())
}

#[test]
fn parts_have_no_anchors_and_name_where_they_come_from() -> Result<()> {
    for (source, expected) in
        [(Source::Files("/srv".to_owned()), "path_config_source"), (Source::ControlPlane, "ads")]
    {
        let files = config(json!([{
            "name": "p", "upstream": "http://a", "key_header": "x-api-key",
            "credentials": [{"id": "a", "key": "A"}, {"id": "b", "key": "B"}],
        }]))?
        .split(&source)?;
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        let expected_names = [
            "bootstrap.yaml",
            "session_affinity.yaml",
            "session_affinity_upstream.yaml",
            "listeners.yaml",
            "routes.yaml",
            "clusters.yaml",
            "secrets/a_key.yaml",
            "secrets/b_key.yaml",
        ];
        assert_eq!(names, expected_names);
        let bootstrap = &files[0].content;
        assert!(bootstrap["static_resources"].is_null() && bootstrap["node"]["id"].is_string());
        assert!(!bootstrap["dynamic_resources"]["lds_config"][expected].is_null());
        for file in &files {
            let text = file.yaml("a comment");
            for anchor in [": &", ": *", "- &", "- *"] {
                assert!(!text.contains(anchor), "{text}");
            }
            assert_eq!(serde_saphyr::from_str::<Value>(&text)?, file.content, "{}", file.name);
        }
        let sds = "\"sds_config\":";
        let clusters = files[5].content.to_string();
        assert_eq!(
            clusters.matches(sds).count(),
            2,
            "an inline one: a static secret might be missing"
        );
        assert!(
            clusters.contains(&format!("{sds}{{\"resource_api_version\":\"V3\",\"{expected}\""))
        );
    }
    Ok(())
}

#[test]
fn many_credentials_are_no_burden() -> Result<()> {
    let credentials: Vec<_> =
        (0..200).map(|n| json!({"id": format!("c-{n}"), "key": format!("K_{n}")})).collect();
    let pools = json!([{"name": "p", "upstream": "https://a.example", "key_header": "x-api-key", "credentials": credentials}]);
    let config = config(pools)?;
    assert_eq!(config.split(&Source::Files("/srv".to_owned()))?.len(), 6 + 200);
    let found = check(&[("envoy.yaml", &config.yaml("")?)])?;
    assert!(!found.iter().any(|it| it.is_problem), "{found:#?}");
    Ok(())
}

#[test]
fn a_secret_is_any_text() -> Result<()> {
    let text = secret_file("a_key", "Bearer \"x\": #y").yaml("");
    let value: Value = serde_saphyr::from_str(&text)?;
    let secret = &value["resources"][0];
    assert_eq!(secret["name"], "a_key");
    assert_eq!(secret["generic_secret"]["secret"]["inline_string"], "Bearer \"x\": #y");
    Ok(())
}

#[test]
fn yaml_and_json_with_comments_mean_the_same() -> Result<()> {
    let path = project_root().join("examples/providers.json");
    let json = fs::read_to_string(path)?;
    let value: Value = serde_json::from_str(&json)?;
    let commented = json.replacen('{', "{ // for persons\n \"$schema\": \"../schema.json\",", 1);
    let expected = EnvoyConfig::parse(&json, Mode::Keys)?.yaml("")?;
    assert_eq!(EnvoyConfig::parse(&commented, Mode::Keys)?.yaml("")?, expected);
    let yaml = serde_saphyr::to_string(&value).context("no YAML")?;
    assert_eq!(EnvoyConfig::parse_yaml(&yaml, Mode::Keys)?.yaml("")?, expected);
    Ok(())
}

#[test]
fn what_does_not_fit_together_is_a_problem() {
    let credential = json!({"id": "a", "key": "A"});
    for (pool, problem) in [
        (json!({"credentials": [credential]}), "pools[0].upstream: required"),
        (
            json!({"upstream": "http://a", "credentials": [credential]}),
            "pools[0].credentials[0].key: has no meaning with --mode clusters: the pool has no `key_header`",
        ),
        (
            json!({"mode": "keys", "upstream": "http://a", "key_header": "x", "credentials": [{"id": "a", "key": "A", "upstream": "http://b"}]}),
            "pools[0].credentials[0].upstream: has no meaning with --mode keys",
        ),
        (
            json!({"mode": "replicas", "credentials": [{"id": "a", "upstream": "http://b"}]}),
            "a replica that has a name, or TLS, needs the mode clusters",
        ),
        (
            json!({"credentials": [{"id": "a", "upstream": "http://a/x"}, {"id": "b", "upstream": "http://b/y"}]}),
            "pools[0].credentials[1].upstream: expected the path of the pool's other upstreams",
        ),
        (
            json!({"mode": "key", "credentials": []}),
            "expected clusters, keys, replicas or next-request",
        ),
    ] {
        let mut pool = pool;
        pool["name"] = json!("p");
        let found = problems(json!([pool]));
        assert!(found.contains(problem), "{found}");
    }
}

/// Of an issuer without a name Envoy takes every token that its keys have signed.
#[test]
fn tokens_have_an_issuer_and_a_claim_with_a_name() {
    let jwt = json!({"issuer": "i", "audiences": ["a"], "jwks": "/k", "claim": "team"});
    let input = |jwt: &Value| {
        let pool = json!({"name": "p", "upstream": "http://a", "credentials": [{"id": "a"}]});
        let input = json!({"clients": {"jwt": jwt}, "pools": [pool]});
        EnvoyConfig::parse(&input.to_string(), Mode::Clusters)
    };
    assert!(input(&jwt).is_ok());
    for name in ["issuer", "claim", "audiences"] {
        for blank in ["", " "] {
            let mut jwt = jwt.clone();
            jwt[name] = if name == "audiences" { json!([blank]) } else { json!(blank) };
            let problem = input(&jwt).unwrap_err().to_string();
            assert!(problem.contains("expected a name that is not empty"), "{name}: {problem}");
        }
    }
}
