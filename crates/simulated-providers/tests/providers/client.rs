//! A plain HTTP client, and requests as the three vendors' clients write them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use simulated_providers::{ACCOUNT_HEADER, Account, Config, Providers, Vendor};

/// Running providers and a client for them.
pub(crate) struct World {
    pub(crate) providers: Providers,
    http1: Legacy<HttpConnector, Full<Bytes>>,
    http2: Legacy<HttpConnector, Full<Bytes>>,
}

/// A response as far as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// False if the connection broke before the end of the body.
    pub(crate) complete: bool,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        Self {
            providers: Providers::start(config).await.unwrap(),
            http1: Legacy::builder(TokioExecutor::new()).build_http(),
            http2: Legacy::builder(TokioExecutor::new()).http2_only(true).build_http(),
        }
    }

    pub(crate) fn account(&self, name: &str) -> Account {
        let account = self.providers.accounts().iter().find(|account| account.name == name);
        account.unwrap_or_else(|| panic!("no account {name}")).clone()
    }

    /// Sends a JSON body with the key of an account and expects a complete response.
    pub(crate) async fn post(&self, account: &str, path: &str, body: &Value) -> Reply {
        let reply = self.try_post(account, path, body, &[]).await.unwrap();
        assert!(reply.complete);
        reply
    }

    pub(crate) async fn try_post(
        &self,
        account: &str,
        path: &str,
        body: &Value,
        more: &[(&str, &str)],
    ) -> Result<Reply> {
        let account = self.account(account);
        let (name, value) = key_header(&account);
        let headers: Vec<_> =
            [(name, value.as_str())].into_iter().chain(more.iter().copied()).collect();
        self.send(account.vendor, Method::POST, path, &headers, body.to_string()).await
    }

    /// Sends a request by path with the key of an account; `Value::Null` is no body.
    pub(crate) async fn ask(
        &self,
        account: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Reply {
        let account = self.account(account);
        let (name, value) = key_header(&account);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [(name, value.as_str())];
        self.send(account.vendor, method, path, &headers, body).await.unwrap()
    }

    /// As [`World::ask`], for a path without a body.
    pub(crate) async fn get(&self, account: &str, path: &str) -> Reply {
        self.ask(account, Method::GET, path, &Value::Null).await
    }

    pub(crate) async fn send(
        &self,
        vendor: Vendor,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        self.send_to(self.providers.address(vendor), method, path, headers, body).await
    }

    /// As [`World::send`], to any server.
    pub(crate) async fn send_to(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        receive(&self.http1, request(address, method, path, headers, body.into())).await
    }

    pub(crate) async fn send_http2(
        &self,
        account: &str,
        path: &str,
        body: &Value,
    ) -> Result<Reply> {
        let account = self.account(account);
        let (name, value) = key_header(&account);
        let body = body.to_string().into();
        let address = self.providers.address(account.vendor);
        receive(&self.http2, request(address, Method::POST, path, &[(name, &value)], body)).await
    }

    /// Waits until the server has read the body of a first request.
    pub(crate) async fn a_body_arrived(&self) {
        while self.providers.requests().first().is_none_or(|record| record.body_length == 0) {
            tokio::task::yield_now().await;
        }
    }
}

fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Request<Full<Bytes>> {
    let uri = format!("http://{address}{path}");
    let mut request =
        Request::builder().method(method).uri(uri).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

async fn receive(
    client: &Legacy<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply> {
    let response = client.request(request).await.context("no response")?;
    let (parts, mut body) = response.into_parts();
    let (mut bytes, mut complete) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    let text = String::from_utf8(bytes).context("a response in UTF-8")?;
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, text, complete })
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn account(&self) -> &str {
        self.header(ACCOUNT_HEADER).unwrap_or_default()
    }

    /// The events of a stream: name (empty if it has none) and data.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let text = self.text.replace("\r\n", "\n");
        let events = text.split_terminator("\n\n");
        events.map(|event| (field(event, "event:"), field(event, "data:"))).collect()
    }

    /// The data of the events, without a closing `[DONE]`.
    pub(crate) fn data(&self) -> Vec<Value> {
        let data = self.events().into_iter().map(|(_, data)| data).filter(|data| data != "[DONE]");
        data.map(|data| serde_json::from_str(&data).unwrap()).collect()
    }
}

fn field(event: &str, name: &str) -> String {
    let value = event.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or_default().trim().to_owned()
}

/// The header with the key of the account, as Envoy sends it.
pub(crate) fn key_header(account: &Account) -> (&'static str, String) {
    match account.vendor {
        Vendor::Anthropic => ("x-api-key", account.key.clone()),
        Vendor::OpenAi => ("authorization", format!("Bearer {}", account.key)),
        Vendor::Gemini => ("x-goog-api-key", account.key.clone()),
    }
}

/// A text of this many tokens, as the providers count.
pub(crate) fn text(tokens: usize) -> String {
    "all ".repeat(tokens)
}

pub(crate) fn anthropic(messages: Value) -> Value {
    let system =
        json!([{"type": "text", "text": text(1500), "cache_control": {"type": "ephemeral"}}]);
    json!({"model": "claude-sonnet-5", "max_tokens": 1000, "system": system, "messages": messages})
}

pub(crate) fn chat(messages: Value) -> Value {
    json!({"model": "gpt-5.6", "messages": messages})
}

pub(crate) fn responses(input: Value) -> Value {
    json!({"model": "gpt-5.6", "instructions": text(1500), "input": input})
}

pub(crate) fn gemini(contents: Value) -> Value {
    json!({"systemInstruction": {"parts": [{"text": text(2500)}]}, "contents": contents})
}
