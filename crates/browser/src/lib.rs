//! A headless Chromium that a test drives: the operator's page is a program too, and only a browser
//! runs it.
//!
//! It speaks WebDriver to Debian's `chromium-driver`, by the client of the other tests: the protocol
//! is JSON over HTTP, and the test needs ten commands of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_harness::client::{self, Protocol};
use envoy_harness::wait_until;
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The program that drives Chromium.
pub const DRIVER: &str = "chromedriver";

/// Whether Chromium and its driver are here.
pub fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let has = |program| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    has("chromium") && has(DRIVER)
}

/// A window with one page. It ends with the value, or with [`Browser::close`], which also waits.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    /// The path of the session.
    session: String,
}

impl Browser {
    /// Opens an empty window.
    ///
    /// # Errors
    /// If Chromium or its driver is missing or does not start.
    pub async fn open() -> Result<Self> {
        ensure!(is_installed(), "there is no chromium with a chromedriver on PATH");
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run chromedriver")?;
        let mut lines = BufReader::new(driver.stdout.take().context("no stdout")?).lines();
        let port = loop {
            let line = lines.next_line().await?.context("chromedriver ended")?;
            if let Some((_, port)) = line.rsplit_once("started successfully on port ") {
                break port.trim_end_matches('.').parse()?;
            }
        };
        // It must be able to write on.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, address, session: String::new() };
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
            "--no-first-run", "--disable-background-networking",
        ]});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let opened = browser.send(Method::POST, "/session", &wanted).await?;
        let id = opened.get("sessionId").and_then(Value::as_str).context("no session")?;
        browser.session = format!("/session/{id}");
        Ok(browser)
    }

    /// Goes to a page.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub async fn go(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({"url": url})).await.map(drop)
    }

    /// The value of an expression of JavaScript in the page.
    ///
    /// # Errors
    /// If it throws.
    pub async fn evaluate(&self, expression: &str) -> Result<Value> {
        let script = json!({"script": format!("return ({expression})"), "args": []});
        self.post("/execute/sync", &script).await
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// If it stays false, with the text of the page.
    pub async fn wait_for(&self, expression: &str) -> Result<()> {
        let what = format!("waiting for {expression}");
        let waited = wait_until(&what, async || {
            Ok((self.evaluate(expression).await? == json!(true)).then_some(()))
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let page = self.evaluate("document.body.innerText").await?;
                Err(error.context(format!("the page shows {page}")))
            }
        }
    }

    /// Clicks on the element with this selector, as a pointer would: it must be there and visible.
    ///
    /// # Errors
    /// If it is not, or something covers it.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector).await?;
        self.post(&format!("/element/{element}/click"), &json!({})).await.map(drop)
    }

    /// Types into the element with this selector.
    ///
    /// # Errors
    /// If it takes no text.
    pub async fn write(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.find(selector).await?;
        self.post(&format!("/element/{element}/value"), &json!({"text": text})).await.map(drop)
    }

    /// Presses and releases a key, which the element with the focus gets.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn press(&self, key: char) -> Result<()> {
        let actions = ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key}));
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", &json!({"actions": [keyboard]})).await.map(drop)
    }

    /// Gives the page a width, and the colours that its user prefers.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn show_as(&self, width: u32, colours: &str) -> Result<()> {
        let metrics = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics).await?;
        let features = json!([{"name": "prefers-color-scheme", "value": colours}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features})).await.map(drop)
    }

    /// Whatever Chromium's developer tools can do.
    ///
    /// # Errors
    /// If they refuse.
    pub async fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters})).await
    }

    /// Writes a picture of the whole page, as PNG.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn screenshot(&self, file: &Path) -> Result<()> {
        let whole = json!({"captureBeyondViewport": true});
        let shot = self.devtools("Page.captureScreenshot", &whole).await?;
        let data = shot.get("data").and_then(Value::as_str).context("no picture")?;
        fs::write(file, STANDARD.decode(data)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// The warnings and errors of the page's console since the last call.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let lines = self.post("/se/log", &json!({"type": "browser"})).await?;
        let lines = lines.as_array().cloned().unwrap_or_default();
        let text = |line: &Value| Some(line.get("message")?.as_str()?.to_owned());
        Ok(lines.iter().filter_map(text).collect())
    }

    /// Closes the window, and ends the driver.
    ///
    /// # Errors
    /// If either does not end.
    pub async fn close(mut self) -> Result<()> {
        self.send(Method::DELETE, &self.session, &Value::Null).await?;
        self.driver.kill().await.context("cannot end chromedriver")
    }

    async fn find(&self, selector: &str) -> Result<String> {
        let by = json!({"using": "css selector", "value": selector});
        let found = self.post("/element", &by).await?;
        let id = found.as_object().and_then(|it| it.values().next()?.as_str().map(str::to_owned));
        id.with_context(|| format!("no element {selector}"))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, &format!("{}{path}", self.session), body).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path);
        let request =
            request.header("content-type", "application/json").body(client::whole(body))?;
        let response = client::send(self.address, Protocol::Http1, request).await?;
        let mut reply = response.json()?;
        let value = reply.get_mut("value").map(Value::take).unwrap_or_default();
        if !response.status.is_success() {
            bail!("WebDriver {path}: {}", value.get("message").unwrap_or(&value));
        }
        Ok(value)
    }
}
