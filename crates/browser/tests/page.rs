//! The operator's page in a browser, in front of a real Envoy with the filter. Pictures of it are
//! left in `target/operator`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use browser::Browser;
use envoy_harness::client::{self, Protocol};
use envoy_harness::gateway::Gateway;
use envoy_harness::{find, project_root};
use hyper::Request;
use serde_json::{Value, json};
use simulated_providers::Fault;

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

/// The text of the card of a credential.
fn card(id: &str) -> String {
    format!(
        "[...document.querySelectorAll('article')].find(it => it.querySelector('h3').textContent == '{id}')"
    )
}

fn state(id: &str) -> String {
    format!("{}?.querySelector('.state').textContent", card(id))
}

async fn message(gateway: &Gateway, session: &str) -> Result<String> {
    let body = json!({
        "model": "claude-sonnet-4-5", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}],
    });
    let request = Request::post("/v1/messages")
        .header("content-type", "application/json")
        .header("x-session-id", session)
        .body(client::whole(body.to_string()))?;
    let response = client::send(gateway.envoy.address(), Protocol::Http1, request).await?;
    Ok(response.header("x-simulated-account").unwrap_or_default().to_owned())
}

fn picture(name: &str) -> Result<PathBuf> {
    let folder = project_root().join("target/operator");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{name}.png")))
}

/// Elements whose text is hard to read: with a contrast below 4.5, as WCAG 2.2 computes it.
const UNREADABLE: &str = "(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(it => it / 255)
    .map(it => it <= .04045 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4)
    .reduce((sum, it, at) => sum + it * [.2126, .7152, .0722][at], 0);
  const paper = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].filter(element =>
    element.offsetWidth && [...element.childNodes].some(it => it.nodeType == 3 && it.data.trim()))
    .filter(element => {
      const [one, other] = [parse(getComputedStyle(element).color), paper(element)].map(light);
      return (Math.max(one, other) + .05) / (Math.min(one, other) + .05) < 4.5;
    }).map(element => `${element.tagName} ${element.textContent}`);
})()";

/// What can be operated and is less than 24 pixels high or wide.
const TINY: &str = "[...document.querySelectorAll('button:not([hidden]), input, select')]
  .filter(it => it.offsetHeight < 24 || it.offsetWidth < 24).map(it => it.outerHTML)";

async fn check_looks(browser: &Browser, name: &str) -> Result<()> {
    for (width, colours) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        browser.show_as(width, colours).await?;
        let shown = format!("{name}, {width}, {colours}");
        let overflow =
            "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.evaluate(overflow).await?, json!(0), "{shown}");
        assert_eq!(browser.evaluate(UNREADABLE).await?, json!([]), "{shown}");
        assert_eq!(browser.evaluate(TINY).await?, json!([]), "{shown}");
        browser.screenshot(&picture(&format!("{name}-{width}-{colours}"))?).await?;
    }
    browser.show_as(1280, "light").await
}

/// The names by which a screen reader knows what can be operated, with their roles.
async fn names(browser: &Browser) -> Result<Vec<(String, String)>> {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({})).await?;
    let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
    let nodes = tree["nodes"].as_array().context("no tree")?;
    let nodes = nodes.iter().filter(|node| node["ignored"] == false);
    Ok(nodes.map(|node| (text(node, "role"), text(node, "name"))).collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy and Chromium: cargo xtask ci"]
async fn an_operator_sees_a_block_and_clears_it_and_drains_a_credential() -> Result<()> {
    let gateway = Gateway::start(&find(None)?, 2, |fixture| {
        fixture.edit_filter(|filter| filter["routing"]["strategy"] = json!("fill-first"))
    })
    .await?;
    let operator = gateway.envoy.operator().context("there is no operator's page")?;
    let browser = Browser::open().await?;
    for session in ["1", "2", "3"] {
        message(&gateway, session).await?;
    }

    // It shows what is known.
    browser.go(&format!("http://{operator}/")).await?;
    browser.wait_for(&format!("{} == 'ready'", state("anthropic-a"))).await?;
    browser.wait_for(&format!("/Sessions\\s+3/.test({}.innerText)", card("anthropic-a"))).await?;
    browser.wait_for("document.querySelectorAll('article').length == 7").await?;
    check_looks(&browser, "ready").await?;

    // A block appears by itself.
    gateway.providers.fault("anthropic-a", Fault::rate_limit(600), None)?;
    message(&gateway, "1").await?;
    gateway.providers.clear_faults();
    browser
        .wait_for(&format!("/rate_limit, announced, 429/.test({}.innerText)", card("anthropic-a")))
        .await?;
    browser
        .wait_for("/anthropic-a blocked/.test(document.querySelector('#changes').innerText)")
        .await?;
    check_looks(&browser, "blocked").await?;
    assert_eq!(message(&gateway, "4").await?, "anthropic-b");

    // It is cleared, and the change is announced.
    browser.click("[aria-label^='Clear the block of']").await?;
    browser
        .wait_for("/is cleared/.test(document.querySelector('[role=status]').innerText)")
        .await?;
    browser
        .wait_for(&format!("{}.querySelectorAll('li').length == 0", card("anthropic-a")))
        .await?;
    assert_eq!(message(&gateway, "5").await?, "anthropic-a");

    // A credential drains: its sessions stay, a new one goes elsewhere.
    browser.click("[aria-label='Drain anthropic-a']").await?;
    browser.wait_for(&format!("{} == 'draining'", state("anthropic-a"))).await?;
    check_looks(&browser, "draining").await?;
    assert_eq!(message(&gateway, "5").await?, "anthropic-a");
    assert_eq!(message(&gateway, "6").await?, "anthropic-b");
    browser.click("[aria-label='Activate anthropic-a']").await?;
    browser.wait_for(&format!("{} == 'ready'", state("anthropic-a"))).await?;

    // What is not possible is said.
    browser.write("#session", "no such session").await?;
    browser.press(ENTER).await?;
    browser
        .wait_for("/Not done: no such session/.test(document.querySelector('#message').innerText)")
        .await?;

    let allowed = ["the server responded with a status of 404"];
    let complaints = browser.complaints().await?.into_iter();
    let complaints: Vec<_> =
        complaints.filter(|line| !allowed.iter().any(|it| line.contains(it))).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    browser.close().await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy and Chromium: cargo xtask ci"]
async fn the_page_is_operated_by_keyboard_and_read_by_a_screen_reader() -> Result<()> {
    let gateway = Gateway::start(&find(None)?, 1, Ok).await?;
    let operator = gateway.envoy.operator().context("there is no operator's page")?;
    let browser = Browser::open().await?;
    browser.go(&format!("http://{operator}/")).await?;
    browser.wait_for("document.querySelectorAll('article').length == 7").await?;

    // The focus goes through everything that can be operated, in the order of the page, and shows.
    let controls = "[...document.querySelectorAll('button:not([hidden]), input, select')]";
    let all = browser.evaluate(&format!("{controls}.length")).await?.as_u64().unwrap();
    for at in 0..all {
        browser.press(TAB).await?;
        let place =
            browser.evaluate(&format!("{controls}.indexOf(document.activeElement)")).await?;
        assert_eq!(place, json!(at));
        let outline = "parseFloat(getComputedStyle(document.activeElement).outlineWidth)";
        assert!(browser.evaluate(outline).await?.as_f64().unwrap() >= 2.0);
    }

    // Polling leaves the focus where it is.
    browser.evaluate("document.querySelector(\"[aria-label='Drain openai-a']\").focus()").await?;
    let before = browser.evaluate("document.querySelector('#updated').textContent").await?;
    browser
        .wait_for(&format!("document.querySelector('#updated').textContent != {before}"))
        .await?;
    browser.press(ENTER).await?;
    browser.wait_for(&format!("{} == 'draining'", state("openai-a"))).await?;
    let focused = browser.evaluate("document.activeElement.getAttribute('aria-label')").await?;
    assert_eq!(focused, "Drain openai-a");

    // What goes with the focus leaves it to its card.
    browser.press(TAB).await?;
    browser.press(TAB).await?;
    browser.press(ENTER).await?;
    browser.wait_for(&format!("{} == 'ready'", state("openai-a"))).await?;
    let focused = browser.evaluate("document.activeElement.textContent").await?;
    assert_eq!(focused, "openai-a");

    // Whatever can be operated has a name of its own.
    let names = names(&browser).await?;
    let operated = ["button", "textbox", "combobox"];
    let mut own: Vec<_> =
        names.iter().filter(|(role, _)| operated.contains(&role.as_str())).collect();
    assert_eq!(own.len() as u64, all);
    assert!(own.iter().all(|(_, name)| !name.is_empty()), "{own:#?}");
    own.sort();
    own.dedup();
    assert_eq!(own.len() as u64, all, "two have one name: {own:#?}");
    let has = |role: &str, name: &str| names.iter().any(|it| it.0 == role && it.1 == name);
    for (role, name) in [
        ("heading", "Session affinity"),
        ("heading", "Pool anthropic"),
        ("article", "anthropic-a"),
        ("region", "Recent changes"),
        ("status", ""),
        ("textbox", "Digits or id"),
        ("button", "Release gemini-b"),
    ] {
        assert!(has(role, name), "no {role} {name:?} in {names:#?}");
    }
    let meter = names.iter().find(|(role, _)| role == "meter").context("no meter")?;
    assert!(meter.1.starts_with("sessions: "), "{meter:?}");
    assert_eq!(browser.evaluate("document.documentElement.lang").await?, "en");
    assert_eq!(browser.complaints().await?, [""; 0]);
    browser.close().await?;
    gateway.stop().await?;
    Ok(())
}
