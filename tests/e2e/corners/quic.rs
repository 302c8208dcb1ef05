//! Upstreams that speak HTTP/3: an Envoy that ends QUIC in front of the simulated providers, and
//! what goes wrong on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use envoy_harness::client::{Connection, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode, Process, wait_until};
use serde_json::{Value, json};
use simulated_providers::{Config, Fault, Providers, Vendor};

use crate::gateways::certificate;
use crate::operator::act;
use crate::support::{
    CLASS, FAILOVER, Served, body, envoy, expect_counts, message, pairs, post, send, send_in,
    served, served_in, wait_for_counts,
};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// A connection that is kept, and a stream that is reset where a header has an underscore in its
/// name; and a connection that is shut down (`GOAWAY`) with its first response.
const CHAINS: [(&str, &str, Vendor); 2] =
    [("kept.test", "anthropic_a", Vendor::Anthropic), ("goaway.test", "openai_a", Vendor::OpenAi)];

fn address(port: u16, protocol: &str) -> Value {
    let address = json!({"address": "127.0.0.1", "port_value": port, "protocol": protocol});
    json!({"socket_address": address})
}

fn cluster(name: &str, port: u16) -> Value {
    let endpoint = json!({"endpoint": {"address": address(port, "TCP")}});
    json!({"name": name, "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}],
    }})
}

/// An Envoy that ends QUIC. Which chain a connection gets follows from the name that it asks for.
async fn relay(directory: &Path, providers: &Providers) -> Result<Process> {
    let (mut chains, mut clusters) = (Vec::new(), Vec::new());
    for (name, id, vendor) in CHAINS {
        let (certificate, key) = certificate(directory, name).await?;
        let options = match name {
            "goaway.test" => json!({"max_requests_per_connection": 1}),
            _ => json!({"headers_with_underscores_action": "REJECT_REQUEST"}),
        };
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": id, "timeout": "0s"}});
        chains.push(json!({
            "filter_chain_match": {"server_names": [name]},
            "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.quic.v3.QuicDownstreamTransport"),
                "downstream_tls_context": {"common_tls_context": {"tls_certificates": [{
                    "certificate_chain": {"filename": certificate}, "private_key": {"filename": key},
                }]}},
            }},
            "filters": [{"name": "http", "typed_config": {
                "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": id, "codec_type": "HTTP3", "common_http_protocol_options": options,
                "http3_protocol_options": {"override_stream_error_on_invalid_http_message": true},
                "route_config": {"virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [route]},
                ]},
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": format!("{TYPES}.filters.http.router.v3.Router"),
                }}],
            }}],
        }));
        clusters.push(cluster(id, providers.address(vendor).port()));
    }
    let listener = json!({
        "name": "llm", "address": address(0, "UDP"), "filter_chains": chains,
        "udp_listener_config": {"quic_options": {}},
    });
    let document = json!({
        "admin": {"address": address(0, "TCP")},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    });
    Process::start(&envoy()?, &Fixture::without_filter(document), 1, &[]).await
}

/// Lets the clusters of the chains speak HTTP/3 to the relay.
fn by_quic(document: &mut Value, relay: &Process, directory: &Path) {
    let clusters = document["static_resources"]["clusters"].as_array_mut().unwrap();
    for (name, id, _) in CHAINS {
        let cluster = clusters.iter_mut().find(|cluster| cluster["name"] == id).unwrap();
        // Handshakes of QUIC wait for the relay's worker.
        cluster["connect_timeout"] = json!("8s");
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
            address(relay.address().port(), "UDP");
        let certificate = directory.join(format!("{name}.crt"));
        cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.quic", "typed_config": {
            "@type": format!("{TYPES}.transport_sockets.quic.v3.QuicUpstreamTransport"),
            "upstream_tls_context": {"sni": name, "common_tls_context": {"validation_context": {
                "trusted_ca": {"filename": certificate},
            }}},
        }});
        let options = cluster["typed_extension_protocol_options"].as_object_mut();
        for options in options.unwrap().values_mut() {
            options["explicit_http_config"] = json!({"http3_protocol_options": {}});
        }
    }
}

async fn in_front_of(relay: &Process, directory: &Path, providers: Providers) -> Result<Gateway> {
    let envoy = envoy()?;
    let mode = Mode::of_demo_on(envoy.version);
    let vendors = [(18001, Vendor::Anthropic), (18002, Vendor::OpenAi), (18003, Vendor::Gemini)];
    let addresses: BTreeMap<_, _> =
        vendors.map(|(port, vendor)| (port, providers.address(vendor))).into();
    let fixture = Fixture::shipped(mode)?.showing_decisions().on_free_ports();
    let fixture = fixture
        .with_providers(&addresses)?
        .edit(|document| by_quic(document, relay, directory))
        .edit_filter(|filter| filter["routing"]["strategy"] = json!("fill-first"))?;
    let environment = Gateway::environment(&providers);
    let envoy = Process::start(&envoy, &fixture, 1, &environment).await?;
    Ok(Gateway { envoy, providers, mode })
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn failures_of_http3_reach_another_credential_and_blame_none_for_a_goaway() -> Result<()> {
    let (directory, providers) = (tempfile::tempdir()?, Providers::start(Config::default()).await?);
    let relay = relay(directory.path(), &providers).await?;
    let gateway = in_front_of(&relay, directory.path(), providers).await?;
    let fails_over = gateway.mode == Mode::Clusters;

    // A connection that is kept, and one that is shut down behind every response.
    for outcome in ["miss", "hit", "hit"] {
        let served = served_in(&gateway, "1").await?;
        assert_eq!((&*served.credential, &*served.outcome), ("anthropic-a", outcome));
        let own = post("/v1/chat/completions").header("x-session-id", "1");
        let question = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
        let Served { credential, .. } =
            self::served(&send(&gateway, own.body(body(&question))?).await?)?;
        assert_eq!(credential, "openai-a");
    }
    for (cluster, connections) in [("anthropic_a", 1), ("openai_a", 3)] {
        let name = format!("cluster.{cluster}");
        let stats = gateway.envoy.stats(&name).await?;
        assert_eq!(stats[&format!("{name}.upstream_cx_http3_total")], connections, "{stats:?}");
    }
    expect_counts(&gateway, CLASS, [("success", 6)]).await?;

    // A stream that is reset in its middle is not repeated.
    gateway.providers.fault("anthropic-a", Fault::CutAfter(3), Some(1))?;
    let mut streamed = message("hello");
    streamed["stream"] = json!(true);
    let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http1).await?;
    let request = post("/v1/messages").header("x-session-id", "1").body(body(&streamed))?;
    let mut stream = connection.stream(request).await?;
    assert!(stream.next_event().await?.is_some(), "the client has a part of the response");
    assert!(stream.rest().await.is_err(), "and sees that it broke off");
    expect_counts(&gateway, FAILOVER, []).await?;

    // One that is reset before its response.
    let check = |response: Response, what: &str| {
        if fails_over {
            assert_eq!(served(&response).unwrap().credential, "anthropic-b", "{what}");
        } else {
            assert!(response.status.is_server_error(), "{what}: {}", response.text());
        }
    };
    let reset = post("/v1/messages").header("x-session-id", "2").header("x_reset", "1");
    check(send(&gateway, reset.body(body(&message("hello")))?).await?, "reset");
    clear(&gateway).await?;

    // A connection that is closed while a request waits.
    let before = gateway.providers.requests().len();
    let slow = Fault::SlowFirstByte(Duration::from_secs(60));
    gateway.providers.fault("anthropic-a", slow, Some(1))?;
    let closed = async {
        let arrived = async || Ok((gateway.providers.requests().len() > before).then_some(()));
        wait_until("waiting for the request", arrived).await?;
        relay.stop().await
    };
    let (response, closed) = tokio::join!(send_in(&gateway, "3"), closed);
    closed?;
    check(response?, "closed");
    clear(&gateway).await?;

    // A port at which nobody listens any more.
    check(send_in(&gateway, "4").await?, "nobody");
    let moved = if fails_over { 3 } else { 0 };
    // A kept connection that breaks at once may be a stale one: then its credential is asked again.
    let is_counted = |counted: &Vec<(String, u64)>| {
        let count = |class: &str| counted.iter().find(|it| it.0 == class).map_or(0, |it| it.1);
        let known = count("success") + count("transient");
        counted.iter().map(|(_, count)| count).sum::<u64>() == known
            && count("success") == 7 + moved
            && (3..=5).contains(&count("transient"))
    };
    wait_for_counts(&gateway, CLASS, is_counted).await?;
    let ends = if fails_over { pairs([("served", moved)]) } else { Vec::new() };
    wait_for_counts(&gateway, FAILOVER, |counted| *counted == ends).await?;
    gateway.stop().await?;
    Ok(())
}

/// The next request meets the credential again.
async fn clear(gateway: &Gateway) -> Result<()> {
    act(gateway, "/credentials/anthropic/anthropic-a/clear", &json!({})).await.map(drop)
}
