//! Self-hosted replicas: servers of their own, which take any key.

use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::{Config, Fault, Replica};

use crate::client::{Reply, World, chat};

async fn start() -> World {
    let replicas = Replica::demo().into_iter().map(Replica::on_free_port).collect();
    World::start_with(Config { replicas, ..Config::default() }).await
}

async fn send(world: &World, replica: &Replica, key: Option<&str>, body: &Value) -> Reply {
    let headers: Vec<_> = key.map(|key| ("authorization", key)).into_iter().collect();
    let path = "/v1/chat/completions";
    world.send_to(replica.address, Method::POST, path, &headers, body.to_string()).await.unwrap()
}

#[tokio::test]
async fn a_replica_takes_any_key_and_names_itself() {
    let world = start().await;
    let body = chat(json!([{"role": "user", "content": "hello"}]));
    for replica in world.providers.replicas() {
        for key in [None, Some("Bearer any"), Some("none at all")] {
            let response = send(&world, replica, key, &body).await;
            assert_eq!((response.status, response.account()), (200, replica.name.as_str()));
        }
    }
    assert!(
        ["replica-a", "replica-b", "replica-c"]
            .iter()
            .all(|name| world.providers.totals()[*name].requests == 3)
    );
    world.providers.stop().await;
}

#[tokio::test]
async fn every_replica_has_its_own_prompt_cache_and_its_own_faults() {
    let world = start().await;
    let [first, second, _] = world.providers.replicas() else { panic!("not three replicas") };
    let body = chat(json!([{"role": "user", "content": "word ".repeat(2_000)}]));
    let mut cached = Vec::new();
    for replica in [first, first, second] {
        let usage = send(&world, replica, None, &body).await.json();
        cached.push(usage["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0);
    }
    assert_eq!(cached, [false, true, false]);

    world
        .providers
        .fault("replica-b", Fault::Status { status: 503, retry_after: None }, Some(1))
        .unwrap();
    let mut statuses = Vec::new();
    for replica in [first, second, second] {
        statuses.push(send(&world, replica, None, &body).await.status);
    }
    assert_eq!(statuses, [200, 503, 200]);
    assert!(world.providers.fault("replica-x", Fault::Drop, None).is_err());
    world.providers.stop().await;
}
