//! Who may use a gateway: clients with keys of one's own, and with tokens. Run from the examples.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use envoy_config::clients_file;
use envoy_harness::client::{self, Protocol, Response};
use envoy_harness::wait_until;
use hyper::http::request::Builder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::gateways::Example;
use crate::support::{body, message, post, served};

/// Sends a message in a session; `sign` adds what shows who the client is.
async fn ask(
    example: &Example,
    session: &str,
    sign: impl FnOnce(Builder) -> Builder,
) -> Result<Response> {
    let request = sign(post("/v1/messages").header("x-session-id", session));
    let request = request.body(body(&message("hello")))?;
    client::send(example.envoy.address(), Protocol::Http1, request).await
}

/// The same for OpenAI's API, with a token.
async fn chat(example: &Example, session: &str, header: &str, token: &str) -> Result<Response> {
    let text = json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]});
    let request = post("/v1/chat/completions").header("x-session-id", session);
    let request = request.header(header, token).body(body(&text))?;
    client::send(example.envoy.address(), Protocol::Http1, request).await
}

fn outcome(response: &Response) -> Result<(String, String)> {
    served(response).map(|it| (it.credential, it.outcome))
}

/// Nothing of a client's proof is in any header of any request that an upstream saw.
fn expect_no_trace(example: &Example, proofs: &[&str]) {
    let requests = example.providers.requests();
    assert!(!requests.is_empty());
    for (name, value) in requests.iter().flat_map(|request| &request.headers) {
        let value = String::from_utf8_lossy(value.as_bytes());
        assert!(!proofs.iter().any(|proof| value.contains(proof)), "{name}: {value}");
        assert_ne!(name, "x-gateway-client");
    }
}

fn write_clients(directory: &Path, clients: &[(&str, &str)]) -> Result<()> {
    let path = directory.join("clients.yaml");
    let new = directory.join("clients.new");
    fs::write(&new, clients_file(clients.iter().copied()).yaml(""))?;
    Ok(fs::rename(new, path)?)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn clients_with_keys_of_ones_own_are_served_apart_and_others_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    write_clients(directory.path(), &[("alice", "key-of-alice"), ("bob", "key-of-bob")])?;
    let Some(example) = Example::start("clients-with-keys", |input| {
        input["clients"]["api_keys"] = json!(directory.path().join("clients.yaml"));
    })
    .await?
    else {
        return Ok(());
    };
    for sign in [|it: Builder| it, |it: Builder| it.header("x-api-key", "key-of-nobody")] {
        assert_eq!(ask(&example, "1", sign).await?.status, 401);
    }
    assert!(example.providers.requests().is_empty());

    let alice = |it: Builder| it.header("x-api-key", "key-of-alice");
    let bob = |it: Builder| it.header("authorization", "Bearer key-of-bob");
    let forger = |it: Builder| bob(it).header("x-gateway-client", "alice");
    let first = outcome(&ask(&example, "1", alice).await?)?;
    assert_eq!(first, ("anthropic-a".to_owned(), "miss".to_owned()));
    let other = outcome(&ask(&example, "1", bob).await?)?;
    assert_eq!(
        other,
        ("anthropic-b".to_owned(), "miss".to_owned()),
        "the same id is another session"
    );
    let forged = outcome(&ask(&example, "1", forger).await?)?;
    assert_eq!(forged, ("anthropic-b".to_owned(), "hit".to_owned()), "a client has one name");
    assert_eq!(outcome(&ask(&example, "1", alice).await?)?.1, "hit");

    // Taken from one, and a second one for the other, without a restart.
    write_clients(directory.path(), &[("alice", "key-of-alice"), ("alice", "second-of-alice")])?;
    wait_until("the new file", async || {
        let status = ask(&example, "1", bob).await?.status;
        Ok((status == 401).then_some(()))
    })
    .await?;
    let second = |it: Builder| it.header("x-api-key", "second-of-alice");
    assert_eq!(
        outcome(&ask(&example, "1", second).await?)?,
        ("anthropic-a".to_owned(), "hit".to_owned())
    );

    let dump = example.envoy.get_admin("/config_dump?include_eds").await?;
    assert!(!dump.contains("key-of-alice"), "the key is in the configuration dump");
    expect_no_trace(&example, &["-of-alice", "-of-bob", "of-nobody"]);
    example.stop().await
}

/// Signs claims with a secret, as the issuer does.
async fn token(secret: &str, claims: &Value) -> Result<String> {
    const SIGN: &str = "
import base64, hashlib, hmac, json, sys
def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()
head = text(json.dumps({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k'}).encode())
signed = head + '.' + text(sys.argv[2].encode())
print(signed + '.' + text(hmac.new(sys.argv[1].encode(), signed.encode(), hashlib.sha256).digest()))
";
    let mut command = Command::new("python3");
    command.args(["-c", SIGN, secret, &claims.to_string()]).stderr(Stdio::inherit());
    let output = command.output().await.context("cannot run python3")?;
    ensure!(output.status.success(), "no token was made");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Serves the keys of the issuer, whatever is asked for, until the test ends.
async fn issuer(secret: &str) -> Result<String> {
    // Base64 of URLs, of a secret of 32 letters.
    let mut key = String::new();
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    for group in secret.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        let letters = (0..=group.len()).map(|at| alphabet[(bits >> (18 - 6 * at) & 63) as usize]);
        key.extend(letters);
    }
    let jwks = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": key}]}).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/jwks.json", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                jwks.len()
            );
            let _ = stream.write_all((head + &jwks).as_bytes()).await;
        }
    });
    Ok(url)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn tenants_of_different_claims_are_served_apart_and_bad_tokens_refused() -> Result<()> {
    let secret = "a secret of thirty two letters!!";
    let jwks = issuer(secret).await?;
    let Some(example) = Example::start("clients-with-tokens", |input| {
        input["clients"]["jwt"]["jwks"] = json!(jwks)
    })
    .await?
    else {
        return Ok(());
    };
    let claims = |team: &str| json!({"iss": "https://login.example.com/", "aud": "llm-gateway", "exp": 4_000_000_000_u64, "team": team});
    let changed = |name: &str, value: Value| {
        let mut claims = claims("red");
        claims[name] = value;
        claims
    };
    let (red, blue) = (token(secret, &claims("red")).await?, token(secret, &claims("blue")).await?);
    wait_until("the keys of the issuer", async || {
        let status = chat(&example, "0", "authorization", &format!("Bearer {red}")).await?.status;
        Ok((status == 200).then_some(()))
    })
    .await?;
    for (why, refused) in [
        ("another secret", token("another secret", &claims("red")).await?),
        ("another issuer", token(secret, &changed("iss", json!("https://evil.example"))).await?),
        ("another audience", token(secret, &changed("aud", json!("mail"))).await?),
        ("expired", token(secret, &changed("exp", json!(1))).await?),
        ("no team", token(secret, &changed("team", Value::Null)).await?),
        ("no token", "x".to_owned()),
    ] {
        let seen = example.providers.requests().len();
        let response = chat(&example, "1", "authorization", &format!("Bearer {refused}")).await?;
        let is_refused =
            response.status == 401 || (why == "another audience" && response.status == 403);
        assert!(is_refused, "{why}: {} {}", response.status, response.text());
        assert_eq!(example.providers.requests().len(), seen, "{why}");
    }
    let first = outcome(&chat(&example, "1", "authorization", &format!("Bearer {red}")).await?)?;
    let other = outcome(&chat(&example, "1", "x-api-key", &blue).await?)?;
    assert_eq!(
        (first.1.as_str(), other.1.as_str()),
        ("miss", "miss"),
        "the same id is another session"
    );
    assert_ne!(first.0, other.0);
    let again = outcome(&chat(&example, "1", "authorization", &format!("Bearer {blue}")).await?)?;
    assert_eq!(again, (other.0, "hit".to_owned()));
    expect_no_trace(&example, &[&red, &blue]);
    example.stop().await
}
