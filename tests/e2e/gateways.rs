//! The gateways of the examples, in front of simulated providers: what their clients ask for first;
//! requests that Envoy signs; certificates that are checked.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use envoy_config::EnvoyConfig;
use envoy_harness::client::{self, Protocol, WebSocket};
use envoy_harness::{Fixture, Mode, Process, module, project_root};
use serde_json::{Value, json};
use simulated_providers::{Config, Providers, Replica, RequestRecord, Vendor};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{body, envoy, message, post, served};

/// A gateway of the examples that runs here.
pub(crate) struct Example {
    pub(crate) envoy: Process,
    pub(crate) providers: Providers,
}

impl Example {
    /// Starts it on free ports in front of simulated providers, and edited; `None` if this Envoy is too
    /// old for it.
    pub(crate) async fn start(name: &str, edit: impl FnOnce(&mut Value)) -> Result<Option<Self>> {
        let replicas = Replica::demo().into_iter().map(Replica::on_free_port).collect();
        let providers = Providers::start(Config { replicas, ..Config::default() }).await?;
        let mut input = input(name)?;
        for pool in input["pools"].as_array_mut().unwrap() {
            let host = pool["upstream"].as_str().and_then(|url| url.strip_prefix("https://"));
            let vendor = match host {
                Some("api.anthropic.com") => Vendor::Anthropic,
                Some("api.openai.com") => Vendor::OpenAi,
                Some("generativelanguage.googleapis.com") => Vendor::Gemini,
                _ => continue,
            };
            pool["upstream"] = json!(format!("http://{}", providers.address(vendor)));
        }
        for (index, replica) in providers.replicas().iter().enumerate() {
            if let Some(credential) = input.pointer_mut(&format!("/pools/0/credentials/{index}"))
                && credential["upstream"].as_str().is_some_and(|url| url.contains(".vllm:"))
            {
                credential["upstream"] = json!(format!("http://{}", replica.address));
            }
        }
        edit(&mut input);
        let mut environment: Vec<_> =
            providers.accounts().iter().map(|account| account.environment()).collect();
        let third = environment.iter().find(|(name, _)| name == "OPENAI_B_AUTHORIZATION").cloned();
        environment.extend(third.map(|(_, key)| ("OPENAI_C_AUTHORIZATION".to_owned(), key)));
        let started = start(&input, &environment).await?;
        Ok(started.map(|envoy| Self { envoy, providers }))
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.envoy.stop().await?;
        self.providers.stop().await;
        Ok(())
    }
}

/// The input of an example, on free ports and with keys in the environment.
fn input(name: &str) -> Result<Value> {
    let path = project_root().join(format!("examples/gateways/{name}.yaml"));
    let mut input: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let members = input.as_object_mut().context("no object")?;
    members.remove("secrets");
    members.extend([
        ("listener".to_owned(), json!("127.0.0.1:0")),
        ("admin".to_owned(), json!("127.0.0.1:0")),
        ("module".to_owned(), json!(module::path())),
        ("show_decision".to_owned(), json!(true)),
    ]);
    Ok(input)
}

/// Starts an Envoy with what the generator makes of an input, if it is not too old.
async fn start(input: &Value, environment: &[(String, String)]) -> Result<Option<Process>> {
    let config = EnvoyConfig::parse(&input.to_string(), Mode::Clusters)?;
    let envoy = envoy()?;
    if envoy.version < config.oldest_envoy() {
        return Ok(None);
    }
    let fixture = Fixture::parse(&config.yaml("")?, project_root())?.edit(|document| {
        // A handshake of TLS waits for the worker of another Envoy, on a slow machine.
        for cluster in document["static_resources"]["clusters"].as_array_mut().into_iter().flatten()
        {
            cluster["connect_timeout"] = json!("10s");
        }
    });
    Ok(Some(Process::start(&envoy, &fixture, 1, environment).await?))
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn gateways_of_the_examples_keep_the_sessions_of_their_clients() -> Result<()> {
    let chat = json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let gemini = "/v1beta/models/gemini-3.1-pro:generateContent";
    for (name, path, sent, models) in [
        ("anthropic", "/v1/messages", &message("hi"), Some("anthropic-version")),
        ("openai", "/v1/chat/completions", &chat, Some("x-stainless-lang")),
        ("gemini", gemini, &contents, Some("x-goog-api-client")),
        ("vllm", "/v1/chat/completions", &chat, None),
    ] {
        let Some(example) = Example::start(name, |_| {}).await? else {
            continue;
        };
        let mut seen = Vec::new();
        for session in ["1", "2", "1", "2"] {
            let request = post(path).header("x-session-id", session).body(body(sent))?;
            let response = client::send(example.envoy.address(), Protocol::Http1, request).await?;
            let served = served(&response)?;
            seen.push((served.credential, served.outcome));
        }
        assert_eq!((&seen[0].0, &seen[1].0), (&seen[2].0, &seen[3].0), "{name}");
        assert_ne!(seen[0].0, seen[1].0, "{name}");
        assert_eq!((seen[2].1.as_str(), seen[3].1.as_str()), ("hit", "hit"), "{name}");
        if let Some(header) = models {
            let request = hyper::Request::get("/v1/models").header(header, "x");
            let request = request.body(client::empty())?;
            let response = client::send(example.envoy.address(), Protocol::Http1, request).await?;
            assert_eq!(response.status, 200, "{name}: {}", response.text());
        }
        if name == "openai" {
            let address = example.envoy.address();
            let mut socket = WebSocket::open(address, "/v1/responses", <_>::default()).await?;
            socket.send(r#"{"type":"response.create","model":"gpt-5.6","input":"hi"}"#).await?;
            let frame = socket.next().await?.context("no frame")?;
            assert!(frame.contains("response.created"), "{frame}");
            socket.close().await?;
        }
        example.stop().await?;
    }
    Ok(())
}

/// What a service of AWS does: it signs what it got, and compares.
async fn is_signed_by(record: &RequestRecord, sent: &str, secret: &str) -> Result<bool> {
    const VERIFY: &str = "
import hashlib, hmac, json, re, sys, urllib.parse
asked = json.load(sys.stdin)
headers, secret = asked['headers'], asked['secret']
scope, names, signature = re.fullmatch(
    r'AWS4-HMAC-SHA256 Credential=[^/]+/([^,]+), SignedHeaders=([^,]+), Signature=(.+)',
    headers['authorization']).groups()
assert 'host' in names.split(';') and 'x-amz-date' in names.split(';'), names
body = hashlib.sha256(asked['body'].encode()).hexdigest()
assert headers['x-amz-content-sha256'] == body, headers
lines = [name + ':' + ' '.join(headers[name].split()) for name in names.split(';')]
path = urllib.parse.quote(asked['path'])
request = chr(10).join(['POST', path, '', *lines, '', names, body])
digest = hashlib.sha256(request.encode()).hexdigest()
text = chr(10).join(['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, digest])
key = ('AWS4' + secret).encode()
for word in scope.split('/'):
    key = hmac.new(key, word.encode(), hashlib.sha256).digest()
print(hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == signature)
";
    let headers: serde_json::Map<String, Value> = record
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let asked = json!({"headers": headers, "path": record.path, "body": sent, "secret": secret});
    let mut python = Command::new("python3")
        .args(["-c", VERIFY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run python3")?;
    let mut stdin = python.stdin.take().context("no stdin")?;
    stdin.write_all(asked.to_string().as_bytes()).await?;
    drop(stdin);
    let output = python.wait_with_output().await?;
    ensure!(output.status.success(), "{:?}", record.headers);
    Ok(String::from_utf8(output.stdout)?.trim() == "True")
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn requests_to_bedrock_are_signed_anew_for_each_attempt() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("credentials");
    let profile = |name: &str| {
        format!("[{name}]\naws_access_key_id=AK{name}\naws_secret_access_key=secret of {name}\n\n")
    };
    std::fs::write(&file, format!("{}{}", profile("team-one"), profile("team-two")))?;
    let providers = Providers::start(Config::default()).await?;
    let port = providers.address(Vendor::Anthropic).port();
    let mut input = input("bedrock")?;
    for credential in input["pools"][0]["credentials"].as_array_mut().unwrap() {
        credential["aws"]["credentials_file"] = json!(file);
        credential["upstream"] = json!(format!("http://localhost:{port}"));
    }
    let Some(envoy) = start(&input, &[]).await? else {
        return Ok(());
    };
    // Longer than Envoy buffers by default.
    let sent = json!({"messages": [{"role": "user", "content": [{"text": "x".repeat(3 << 20)}]}]});
    let sent = sent.to_string();
    let request = post("/model/anthropic.claude/converse")
        .header("x-session-id", "1")
        .header("authorization", "Bearer key-of-the-client")
        .header("x-amz-date", "20200101T000000Z")
        .header("x-amz-security-token", "token-of-the-client")
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .body(client::whole(sent.clone()))?;
    let response = client::send(envoy.address(), Protocol::Http1, request).await?;
    // The simulated provider knows no signatures, and refuses each; so all three are asked.
    let seen = providers.requests();
    assert_eq!(seen.len(), 3, "{} {}", response.status, response.text());
    let mut signed = Vec::new();
    for record in &seen {
        let authorization = record.headers["authorization"].to_str()?;
        let profile = ["team-one", "team-two"]
            .into_iter()
            .find(|profile| authorization.contains(&format!("Credential=AK{profile}/")));
        let profile = profile.with_context(|| authorization.to_owned())?;
        let region = ["us-east-1", "us-west-2"]
            .into_iter()
            .find(|region| authorization.contains(&format!("/{region}/bedrock/aws4_request")));
        signed.push((profile, region.with_context(|| authorization.to_owned())?));
        assert_eq!(record.headers["host"], "localhost");
        assert!(!record.headers.contains_key("x-amz-security-token"), "{:?}", record.headers);
        let secret = format!("secret of {profile}");
        assert!(is_signed_by(record, &sent, &secret).await?, "{:?}", record.headers);
    }
    // The order of the others depends on the session.
    signed.sort_unstable();
    let each = [("team-one", "us-east-1"), ("team-one", "us-west-2"), ("team-two", "us-east-1")];
    assert_eq!(signed, each);
    envoy.stop().await?;
    providers.stop().await;
    Ok(())
}

/// A certificate for a name, signed by its own key, in two files.
pub(crate) async fn certificate(directory: &Path, name: &str) -> Result<(String, String)> {
    let path = |kind: &str| directory.join(format!("{name}.{kind}")).display().to_string();
    let (certificate, key) = (path("crt"), path("key"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    command.args(["-days", "2", "-subj", &format!("/CN={name}"), "-out", &certificate]);
    command.args(["-keyout", &key, "-addext", &format!("subjectAltName=DNS:{name}")]);
    let output = command.output().await.context("cannot run openssl")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((certificate, key))
}

/// An Envoy that ends TLS with a certificate, in front of a provider.
async fn with_tls(certificate: &str, key: &str, providers: &Providers) -> Result<Process> {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let target = providers.address(Vendor::Anthropic);
    let address = |port| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let document = json!({
        "admin": {"address": address(0)},
        "static_resources": {
            "listeners": [{"name": "llm", "address": address(0), "filter_chains": [{
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": {"tls_certificates": [{
                        "certificate_chain": {"filename": certificate}, "private_key": {"filename": key},
                    }]},
                }},
                "filters": [{"name": "tcp", "typed_config": {
                    "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
                    "stat_prefix": "tcp", "cluster": "provider",
                }}],
            }]}],
            "clusters": [{"name": "provider", "load_assignment": {"cluster_name": "provider", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(target.port())}}]},
            ]}}],
        },
    });
    Process::start(&envoy()?, &Fixture::without_filter(document), 1, &[]).await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_provider_is_trusted_by_its_name_and_its_certificate_only() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (certificate, key) = certificate(directory.path(), "provider.test").await?;
    let providers = Providers::start(Config::default()).await?;
    let tls = with_tls(&certificate, &key, &providers).await?;
    let environment: Vec<_> =
        providers.accounts().iter().map(|account| account.environment()).collect();
    for (name, ca, expected) in [
        ("provider.test", Some(&certificate), 200),
        ("elsewhere.test", Some(&certificate), 503),
        ("provider.test", None, 503),
    ] {
        let mut input = input("anthropic")?;
        input["pools"][0]["upstream"] =
            json!({"url": format!("https://{}", tls.address()), "sni": name});
        if let Some(ca) = ca {
            input["pools"][0]["upstream"]["ca_certificates"] = json!(ca);
        }
        let Some(envoy) = start(&input, &environment).await? else {
            return Ok(());
        };
        let request = post("/v1/messages").body(body(&message("hi")))?;
        let response = client::send(envoy.address(), Protocol::Http1, request).await?;
        assert_eq!(response.status, expected, "{name} {ca:?}: {}", response.text());
        if expected == 503 {
            // The access log says that it is not the key.
            let line = envoy.wait_for_log("POST /v1/messages 503").await?;
            assert!(line.contains("failed=anthropic-c(tls,transient)"), "{line}");
        }
        envoy.stop().await?;
    }
    let hosts: Vec<_> = providers.requests().iter().map(|it| it.headers["host"].clone()).collect();
    assert_eq!(hosts, ["provider.test"]);
    tls.stop().await?;
    providers.stop().await;
    Ok(())
}
