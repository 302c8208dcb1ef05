//! The examples: every gateway is accepted by the parser, by its schema and by a real Envoy, and
//! routes what its clients ask for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use envoy_config::check::check;
use envoy_config::{EnvoyConfig, Source, schema};
use envoy_harness::{Mode, find, module, project_root};
use serde_json::Value;
use session_affinity::target::Target;
use session_affinity::{Config, Headers, Request, Router, Seed};

fn read(path: &Path) -> Result<EnvoyConfig> {
    EnvoyConfig::read(path, Mode::Clusters, envoy_config::Target::Envoy)
}

/// The inputs in the folder of the examples.
fn gateways() -> Vec<PathBuf> {
    let entries = fs::read_dir(project_root().join("examples/gateways")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 12, "{found:?}");
    found
}

fn name(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

#[test]
fn every_gateway_is_accepted_and_lacks_nothing() -> Result<()> {
    let validator = jsonschema::validator_for(&schema::of_providers()).unwrap();
    for path in gateways() {
        let value: Value = serde_saphyr::from_str(&fs::read_to_string(&path)?)?;
        let problems: Vec<_> = validator.iter_errors(&value).map(|it| it.to_string()).collect();
        assert!(problems.is_empty(), "{}: {problems:#?}", path.display());
        let config = read(&path)?;
        let parts = config.split(&Source::Files("/etc/envoy/config".to_owned()))?;
        let parts: Vec<_> = parts.iter().map(|part| (part.name.clone(), part.yaml(""))).collect();
        let parts: Vec<_> =
            parts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        for files in [&[("envoy.yaml", config.yaml("")?.as_str())][..], &parts] {
            let found = check(files)?;
            let found: Vec<_> = found.iter().filter(|it| it.is_problem).collect();
            assert!(found.is_empty(), "{}: {found:#?}", path.display());
        }
    }
    Ok(())
}

#[test]
fn every_https_upstream_is_asked_for_its_name_and_checked_by_its_certificate() -> Result<()> {
    let mut checked = 0;
    for path in gateways() {
        let document = read(&path)?.document()?;
        for cluster in document["static_resources"]["clusters"].as_array().unwrap() {
            let Some(endpoint) = cluster.pointer("/load_assignment/endpoints/0/lb_endpoints/0")
            else {
                continue;
            };
            let address = &endpoint["endpoint"]["address"]["socket_address"];
            let tls = &cluster["transport_socket"]["typed_config"];
            assert_eq!(address["port_value"] == 443, tls.is_object(), "{}", path.display());
            if tls.is_object() {
                let validation = &tls["common_tls_context"]["validation_context"];
                let name = &validation["match_typed_subject_alt_names"][0]["matcher"]["exact"];
                assert_eq!((&tls["sni"], name), (&address["address"], &address["address"]));
                assert!(validation["trusted_ca"]["filename"].is_string());
                checked += 1;
            }
        }
    }
    assert!(checked >= 20, "{checked}");
    Ok(())
}

#[test]
#[ignore = "needs Envoy: cargo xtask test"]
fn a_real_envoy_accepts_every_gateway() -> Result<()> {
    let envoy = find(None)?;
    let mut accepted = 0;
    for path in gateways() {
        let config = read(&path)?;
        if envoy.version >= config.oldest_envoy() {
            config.validate(&envoy, &module::path())?;
            accepted += 1;
        }
    }
    assert!(accepted >= 2);
    Ok(())
}

/// The filter's configuration in a document.
fn filter(document: &Value) -> Router {
    let manager = &document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
    let filters = manager["typed_config"]["http_filters"].as_array().unwrap();
    let ours = filters.iter().find(|it| it["name"] == "envoy.filters.http.wasm").unwrap();
    let text = ours["typed_config"]["config"]["configuration"]["value"].to_string();
    let config = Config::parse_with(text.as_bytes(), &|_| Some("key".to_owned())).unwrap();
    Router::new(config, Seed::of_fleet("examples", ""))
}

/// The pool that a request is for; WebSockets are written as the method `WS`.
fn pool_of(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut all = vec![(":method", method), (":path", path), (":authority", "gateway")];
    if method == "WS" {
        all[0].1 = "GET";
        all.extend([("connection", "upgrade"), ("upgrade", "websocket")]);
    }
    all.extend(headers);
    let headers: Headers = all.into_iter().collect();
    let request = Request::new(&headers, router.read_body(body.as_bytes()));
    let target = Target::of(&request, router.config());
    target.map_or_else(|| "404".to_owned(), |target| target.pool.name.clone())
}

/// What clients ask for beside what the recorded vectors hold: client, method, path, a header, pool.
const ASKED: &str = "
Claude Code      | HEAD   | /v1/messages                                  |                   | 404
Claude Code      | POST   | /v1/messages?beta=true                        | anthropic-version | anthropic
Claude Code      | POST   | /v1/messages/count_tokens?beta=true           | anthropic-version | anthropic
Claude Code      | GET    | /v1/models?limit=1000                         | anthropic-version | anthropic
Anthropic SDKs   | GET    | /v1/models/claude-sonnet-5                    | anthropic-version | anthropic
Anthropic SDKs   | POST   | /v1/messages/batches                          | anthropic-version | anthropic
Anthropic SDKs   | GET    | /v1/messages/batches/msgbatch_1/results       | anthropic-version | anthropic
Anthropic SDKs   | POST   | /v1/messages/batches/msgbatch_1/cancel        | anthropic-version | anthropic
Anthropic SDKs   | DELETE | /v1/messages/batches/msgbatch_1               | anthropic-version | anthropic
Anthropic SDKs   | POST   | /v1/files                                     | anthropic-version | anthropic
Anthropic SDKs   | GET    | /v1/files/file_1/content                      | anthropic-version | anthropic
Anthropic SDKs   | POST   | /v1/skills                                    | anthropic-version | anthropic
Codex            | POST   | /v1/responses                                 |                   | openai
Codex            | WS     | /v1/responses                                 |                   | openai
Codex            | POST   | /v1/responses/compact                         |                   | openai
Codex            | GET    | /v1/models?client_version=0.169.0             |                   | openai
OpenAI SDKs      | POST   | /v1/chat/completions                          |                   | openai
OpenAI SDKs      | POST   | /v1/completions                               |                   | openai
OpenAI SDKs      | POST   | /v1/responses/input_tokens                    |                   | openai
OpenAI SDKs      | GET    | /v1/responses/resp_1                          |                   | openai
OpenAI SDKs      | GET    | /v1/responses/resp_1/input_items              |                   | openai
OpenAI SDKs      | POST   | /v1/responses/resp_1/cancel                   |                   | openai
OpenAI SDKs      | DELETE | /v1/responses/resp_1                          |                   | openai
OpenAI SDKs      | POST   | /v1/conversations                             |                   | openai
OpenAI SDKs      | POST   | /v1/conversations/conv_1/items                |                   | openai
OpenAI SDKs      | GET    | /v1/conversations/conv_1/items                |                   | openai
OpenAI SDKs      | GET    | /v1/models                                    | x-stainless-lang  | openai
OpenAI SDKs      | GET    | /v1/models/gpt-5.6                            | x-stainless-lang  | openai
OpenAI SDKs      | POST   | /v1/embeddings                                |                   | openai
OpenAI SDKs      | POST   | /v1/moderations                               |                   | openai
OpenAI SDKs      | POST   | /v1/images/generations                        |                   | openai
OpenAI SDKs      | POST   | /v1/audio/transcriptions                      |                   | openai
OpenAI SDKs      | POST   | /v1/files                                     |                   | openai
OpenAI SDKs      | GET    | /v1/files/file-1/content                      |                   | openai
OpenAI SDKs      | POST   | /v1/uploads/upload_1/parts                    |                   | openai
OpenAI SDKs      | POST   | /v1/batches                                   |                   | openai
OpenAI SDKs      | GET    | /v1/batches/batch_1                           |                   | openai
OpenAI SDKs      | POST   | /v1/batches/batch_1/cancel                    |                   | openai
OpenAI SDKs      | POST   | /v1/vector_stores/vs_1/search                 |                   | openai
OpenAI SDKs      | GET    | /v1/containers/cntr_1/files/cfile_1/content   |                   | openai
Aider, Qwen Code | POST   | /v1/chat/completions                          |                   | openai
opencode         | POST   | /v1/responses                                 |                   | openai
Open WebUI       | GET    | /v1/models                                    | authorization     | openai
Gemini CLI       | POST   | /v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse | x-goog-api-client | gemini
Gemini CLI       | POST   | /v1beta/models/gemini-3.8-flash:countTokens   | x-goog-api-client | gemini
Google's SDKs    | POST   | /v1/models/gemini-3-flash:generateContent     | x-goog-api-client | gemini
Google's SDKs    | POST   | /v1/models/gemini-embedding-001:batchEmbedContents | x-goog-api-client | gemini
Google's SDKs    | POST   | /v1/models/imagen-5:predict                   | x-goog-api-client | gemini
Google's SDKs    | GET    | /v1beta/models                                | x-goog-api-client | gemini
Google's SDKs    | GET    | /v1/models?pageSize=50                        | x-goog-api-client | gemini
curl             | GET    | /v1/models                                    | x-goog-api-key    | gemini
Google's SDKs    | GET    | /v1/models/gemini-3-flash                     | x-goog-api-client | gemini
Google's SDKs    | POST   | /v1/cachedContents                            | x-goog-api-client | gemini
Google's SDKs    | PATCH  | /v1beta/cachedContents/c                      | x-goog-api-client | gemini
Google's SDKs    | POST   | /upload/v1/files                              | x-goog-api-client | gemini
Google's SDKs    | POST   | /upload/v1beta/files?upload_id=u              |                   | gemini
Google's SDKs    | GET    | /v1/files/f                                   | x-goog-api-client | gemini
Google's SDKs    | DELETE | /v1beta/files/f                               | x-goog-api-client | gemini
Google's SDKs    | POST   | /v1/interactions                              | x-goog-api-client | gemini
Google's SDKs    | GET    | /v1beta/interactions/i                        | x-goog-api-client | gemini
anyone           | GET    | /v1/files                                     | anthropic-version | 404
anyone           | GET    | /v1/messages/batches                          | anthropic-version | 404
anyone           | GET    | /v1/batches                                   |                   | 404
anyone           | GET    | /v1beta/cachedContents                        | x-goog-api-client | 404
anyone           | GET    | /admin                                        |                   | 404
";

#[test]
fn the_shipped_routes_serve_what_clients_ask_for() -> Result<()> {
    let path = project_root().join("examples/providers.json");
    let router = filter(&read(&path)?.document()?);
    let mut wrong = Vec::new();
    for row in ASKED.trim().lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let headers = [(cells[3], "x")];
        let headers = if cells[3].is_empty() { &[][..] } else { &headers };
        let pool = pool_of(&router, cells[1], cells[2], headers, "");
        if pool != cells[4] {
            wrong.push(format!("{row} but: {pool}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Which pool serves what real clients have sent, recorded. Claude Code goes on without `/api/hello`.
#[test]
fn every_recorded_request_of_a_real_client_is_served() -> Result<()> {
    let path = project_root().join("examples/providers.json");
    let router = filter(&read(&path)?.document()?);
    let text = fs::read_to_string(project_root().join("tests/vectors/client_requests_real.jsonl"))?;
    let mut served = 0;
    for line in text.lines() {
        let record: Value = serde_json::from_str(line)?;
        let path = record["path"].as_str().unwrap();
        let headers = record["headers"].as_object().unwrap();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap_or_default()))
            .collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let method = record["method"].as_str().unwrap();
        let pool = pool_of(&router, method, path, &headers, &record["body"].to_string());
        assert_eq!(pool == "404", path == "/api/hello", "{method} {path}");
        served += 1;
    }
    assert!(served >= 50, "{served}");
    Ok(())
}

/// Bedrock's clients, and servers of models, have the paths of their example.
#[test]
fn other_gateways_serve_what_their_clients_ask_for() -> Result<()> {
    for path in gateways() {
        let router = filter(&read(&path)?.document()?);
        let asked: &[(&str, &str, &str)] = match name(&path) {
            "bedrock" => &[
                ("POST", "/model/us.anthropic.claude-sonnet-5-v1%3A0/invoke", ""),
                ("POST", "/model/m/invoke-with-response-stream", ""),
                ("POST", "/model/m/converse-stream", ""),
                ("POST", "/model/m/count-tokens", ""),
            ],
            "own-replicas-first" => &[
                ("POST", "/v1/chat/completions", r#"{"model": "Qwen/Qwen4"}"#),
                ("POST", "/v1/chat/completions", r#"{"model": "gpt-5.6"}"#),
                ("GET", "/v1/models", ""),
            ],
            "anthropic" | "subscriptions" | "clients-with-keys" => {
                &[("POST", "/v1/messages", ""), ("POST", "/v1/messages/count_tokens", "")]
            }
            "gemini" => &[("POST", "/v1beta/models/gemini-3.8-flash:generateContent", "")],
            _ => &[
                ("POST", "/v1/chat/completions", ""),
                ("POST", "/v1/responses", ""),
                ("WS", "/v1/responses", ""),
                ("POST", "/v1/embeddings", ""),
                ("GET", "/v1/models", ""),
            ],
        };
        for (method, asked, body) in asked {
            let pool = pool_of(&router, method, asked, &[], body);
            assert_ne!(pool, "404", "{}: {method} {asked}", name(&path));
        }
    }
    Ok(())
}

#[test]
fn every_input_in_the_page_on_migrating_is_accepted() -> Result<()> {
    let page = fs::read_to_string(project_root().join("docs/migrating.md"))?;
    let blocks: Vec<_> =
        page.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let config = EnvoyConfig::parse_yaml(block, Mode::Clusters)?;
        let found = check(&[("envoy.yaml", config.yaml("")?.as_str())])?;
        let found: Vec<_> = found.iter().filter(|it| it.is_problem).collect();
        assert!(found.is_empty(), "{block}\n{found:#?}");
    }
    Ok(())
}
