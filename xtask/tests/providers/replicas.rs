//! Self-hosted replicas: servers of their own, which take any key.

use hyper::Request;
use serde_json::{Value, json};
use xtask::envoy::client::{self, Protocol, Response};
use xtask::provider::{ACCOUNT_HEADER, Config, Fault, Providers, Replica};

use crate::client::chat;

async fn start() -> Providers {
    let replicas = Replica::demo().into_iter().map(Replica::on_free_port).collect();
    Providers::start(Config { replicas, ..Config::default() }).await.unwrap()
}

async fn ask(replica: &Replica, key: Option<&str>, body: &Value) -> Response {
    let mut request =
        Request::post("/v1/chat/completions").header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", key);
    }
    let request = request.body(client::whole(body.to_string())).unwrap();
    client::send(replica.address, Protocol::Http1, request).await.unwrap()
}

#[tokio::test]
async fn a_replica_takes_any_key_and_tells_its_name() {
    let providers = start().await;
    let body = chat(json!([{"role": "user", "content": "hello"}]));
    for replica in providers.replicas() {
        for key in [None, Some("Bearer any"), Some("none at all")] {
            let response = ask(replica, key, &body).await;
            assert_eq!(
                (response.status.as_u16(), response.header(ACCOUNT_HEADER)),
                (200, Some(replica.name.as_str()))
            );
        }
    }
    assert!(
        ["replica-a", "replica-b", "replica-c"]
            .iter()
            .all(|name| providers.totals()[*name].requests == 3)
    );
    providers.stop().await;
}

#[tokio::test]
async fn every_replica_has_its_own_prompt_cache_and_its_own_faults() {
    let providers = start().await;
    let [first, second, _] = providers.replicas() else { panic!("not three replicas") };
    let body = chat(json!([{"role": "user", "content": "word ".repeat(2_000)}]));
    let mut cached = Vec::new();
    for replica in [first, first, second] {
        let usage: Value = serde_json::from_str(&ask(replica, None, &body).await.text()).unwrap();
        cached.push(usage["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0);
    }
    assert_eq!(cached, [false, true, false]);

    providers
        .fault("replica-b", Fault::Status { status: 503, retry_after: None }, Some(1))
        .unwrap();
    let mut statuses = Vec::new();
    for replica in [first, second, second] {
        statuses.push(ask(replica, None, &body).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 503, 200]);
    assert!(providers.fault("replica-x", Fault::Drop, None).is_err());
    providers.stop().await;
}
