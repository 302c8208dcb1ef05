//! Every metric that is documented is there for Prometheus, and no other, whatever rules Envoy has
//! for labels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode, wait_until};
use serde_json::{Value, json};
use session_affinity::metrics::Metric;
use simulated_providers::Fault;

use crate::support::{chat, envoy, post, send, served_in, start};

/// What only the mode `shadow` counts.
const OF_SHADOW: [Metric; 2] = [Metric::ShadowRequests, Metric::ShadowChoices];

/// The rules by which an Envoy makes labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// Those that are shipped.
    Shipped,
    /// None of ours, as in Envoy Gateway.
    None,
    /// Those of Istio's bootstrap, with `extraStatTags` as documented, and what it includes of all
    /// statistics.
    Istio,
}

impl Rules {
    fn apply(self, fixture: Fixture) -> Fixture {
        fixture.edit(|document| match self {
            Self::Shipped => {}
            Self::None => document["stats_config"] = Value::Null,
            Self::Istio => document["stats_config"] = istio(),
        })
    }
}

/// Istio 1.31, `envoy_bootstrap.json`: the tags that may meet a name of ours.
fn istio() -> Value {
    let page = include_str!("../../docs/metrics.md");
    let extra = page.split_once("extraStatTags: ").unwrap().1.lines().next().unwrap();
    let own = [
        ("cluster_name", r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"),
        ("cache", r"(cache\.(.+?)\.)"),
        ("component", r"(component\.(.+?)\.)"),
        ("tag", r"(tag\.(.+?);\.)"),
        ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ];
    let own = own.map(|(name, regex)| (name.to_owned(), regex.to_owned()));
    let extra = extra.split(',').map(|tag| (tag.to_owned(), format!(r"({tag}=\.=(.*?);\.;)")));
    let tags: Vec<_> = own.into_iter().chain(extra).collect();
    let tags: Vec<_> =
        tags.iter().map(|(name, regex)| json!({"tag_name": name, "regex": regex})).collect();
    // The prefix `cluster` is for Envoy 1.36 alone; the last is what tests wait for.
    let included = [
        "reporter=",
        "cluster_manager",
        "listener_manager",
        "server",
        "wasm",
        "component",
        "cluster",
        "http",
    ];
    let included = included.map(|prefix| json!({"prefix": prefix}));
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": {"inclusion_list": {"patterns": included}},
    })
}

/// Serves a session twice, the second time by another credential, a stream that does not tell what
/// it costs, and something that no pool serves.
async fn make_traffic(gateway: &Gateway) -> Result<()> {
    served_in(gateway, "1").await?;
    gateway.providers.fault("anthropic-a", Fault::response("anthropic-session-limit"), Some(1))?;
    assert_eq!(served_in(gateway, "1").await?.credential, "anthropic-b");
    send(gateway, chat(10, true)?).await?;
    send(gateway, post("/nothing").body(envoy_harness::client::empty())?).await?;
    Ok(())
}

/// The filter's lines of a scrape: a name with its labels, and the value. Envoy's own metrics of VMs
/// have the filter's name in theirs.
fn lines(scrape: &str) -> BTreeMap<String, String> {
    let lines = scrape.lines().filter(|line| {
        line.contains("session_affinity_") && !line.starts_with('#') && !line.contains("_vm_reload")
    });
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What is left of a name without labels that no rule has taken out.
fn bare(line: &str) -> &str {
    let name = line.split('{').next().unwrap_or_default();
    name.rfind("session_affinity_").map_or(name, |at| &name[at..])
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_scrape_finds_every_documented_metric_and_no_other() -> Result<()> {
    let documented: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    for rules in [Rules::Shipped, Rules::None, Rules::Istio] {
        let is_new = Mode::Clusters.runs_on(envoy()?.version);
        let mode = if is_new { Mode::Clusters } else { Mode::Keys };
        let price = json!({"input": 3, "cache_read": 0.3, "cache_write": 3.75, "output": 15});
        let prices = json!({"currency": "EUR", "of": [price]});
        let edit = |filter: &mut Value| {
            filter["observe"] = json!({"prices": prices});
            filter["pools"][0]["credentials"][0]["max_concurrent"] = json!(9);
        };
        let gateway = start(mode, 2, |fixture| rules.apply(fixture).edit_filter(edit)).await?;
        let Some(gateway) = gateway else { panic!("{mode:?} runs on every Envoy") };
        make_traffic(&gateway).await?;
        // How cooldowns and limits are is only looked at every ten seconds: once is enough.
        let is_expected = |metric: &Metric| match metric {
            Metric::BlockEnd | Metric::Utilization | Metric::WindowReset => rules == Rules::Shipped,
            _ => !OF_SHADOW.contains(metric),
        };
        let expected = Metric::ALL.into_iter().filter(is_expected).map(Metric::name);
        let expected: BTreeSet<_> = expected.collect();
        let names = wait_until("the metrics", async || {
            let found = lines(&gateway.envoy.get_admin("/stats/prometheus").await?);
            let names: BTreeSet<_> = found.keys().map(|line| bare(line).to_owned()).collect();
            let is_complete = expected.is_subset(&names) && has_labels(rules, &found)?;
            Ok(is_complete.then_some(names))
        });
        let names = names.await.with_context(|| format!("{rules:?}"))?;
        assert!(names.is_subset(&documented), "{rules:?}: {names:?}");
        gateway.stop().await?;
    }
    Ok(())
}

/// Whether the traffic is counted, with its labels.
fn has_labels(rules: Rules, found: &BTreeMap<String, String>) -> Result<bool> {
    // Envoy 1.36 puts the metrics under the cluster whose filter started the VM.
    let is_below_cluster = found.keys().any(|line| line.contains("cluster_wasmcustom"));
    assert!(!is_below_cluster || envoy()?.version < "1.37.0".parse()?);
    let has = |labels: &[&str], name: &str, value: &str| {
        found.iter().any(|(line, it)| {
            let is_named = match rules {
                Rules::Shipped => line.starts_with(&format!("{name}{{")),
                _ if is_below_cluster => line.contains(name),
                Rules::Istio => line.starts_with(&format!("{name}{{")),
                Rules::None => line.contains(&format!("___{name}{{")),
            };
            is_named && it == value && labels.iter().all(|label| line.contains(label))
        })
    };
    if rules == Rules::None {
        return Ok(has(&["outcome___hit___"], "session_affinity_requests_total", "1")
            && has(&["credential___anthropic_a___"], "session_affinity_credential_state", "1"));
    }
    let served = [r#"pool="anthropic""#, r#"outcome="hit""#, r#"source="header""#];
    let limited = [r#"pool="anthropic""#, r#"credential="anthropic-a""#, r#"class="rate_limit""#];
    let moved = [r#"pool="anthropic""#, r#"end="served""#];
    Ok(has(&served, "session_affinity_requests_total", "1")
        && has(&limited, "session_affinity_attempts_total", "1")
        && has(&moved, "session_affinity_failovers_total", "1")
        && has(&[r#"outcome="unmatched""#], "session_affinity_requests_total", "1")
        && has(&[r#"table="binding""#], "session_affinity_table_capacity", "65536"))
}
