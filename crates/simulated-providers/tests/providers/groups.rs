//! Groups of accounts, and what shows them.

use serde_json::{Value, json};
use simulated_providers::{Config, Fault, Providers};

use crate::client::{World, anthropic, responses};

const RESPONSES: &str = "/v1/responses";

/// The accounts of the demo, these in groups.
fn config(groups: &[(&str, &str)]) -> Config {
    let mut accounts = Providers::demo_accounts();
    for account in &mut accounts {
        for (_, group) in groups.iter().filter(|(name, _)| *name == account.name) {
            account.group = (*group).to_owned();
        }
    }
    Config { accounts, ..Config::default() }
}

fn next(previous: &Value) -> Value {
    let mut body = responses(json!("and?"));
    body["previous_response_id"] = previous.clone();
    body
}

#[tokio::test]
async fn accounts_of_a_group_share_state_and_prompt_caches() {
    let world = World::start_with(config(&[("openai-a", "acme"), ("openai-b", "acme")])).await;
    let first = world.post("openai-a", RESPONSES, &responses(json!("hello"))).await.json();
    let second = world.post("openai-b", RESPONSES, &next(&first["id"])).await.json();
    let details = &second["usage"]["input_tokens_details"];
    assert!(details["cached_tokens"].as_u64() > Some(1024), "{second}");
    world.providers.stop().await;
}

#[tokio::test]
async fn an_account_that_is_moved_leaves_its_state_behind() {
    let world = World::start().await;
    let first = world.post("openai-a", RESPONSES, &responses(json!("hello"))).await.json();
    assert_eq!(world.post("openai-b", RESPONSES, &next(&first["id"])).await.status, 400);
    world.providers.move_to_group("openai-b", "openai-a").unwrap();
    world.providers.move_to_group("openai-a", "elsewhere").unwrap();
    assert_eq!(world.post("openai-b", RESPONSES, &next(&first["id"])).await.status, 200);
    assert_eq!(world.post("openai-a", RESPONSES, &next(&first["id"])).await.status, 400);
    assert!(world.providers.move_to_group("no-such-account", "x").is_err());
    world.providers.stop().await;
}

#[tokio::test]
async fn workspaces_of_an_organization_share_ciphertext_only() {
    let world = World::start_with(config(&[("openai-a", "acme/a"), ("openai-b", "acme/b")])).await;
    let mut body = responses(json!("hello"));
    body["reasoning"] = json!({"effort": "low"});
    let first = world.post("openai-a", RESPONSES, &body).await.json();
    let again = responses(first["output"].clone());
    assert_eq!(world.post("openai-b", RESPONSES, &again).await.status, 200);
    assert_eq!(world.post("openai-b", RESPONSES, &next(&first["id"])).await.status, 400);
    world.providers.stop().await;
}

#[tokio::test]
async fn responses_and_errors_name_the_organization_and_the_workspace() {
    let groups = [("anthropic-a", "acme/a"), ("anthropic-b", "acme/b"), ("openai-a", "acme")];
    let world = World::start_with(config(&groups)).await;
    let names = ["anthropic-organization-id", "anthropic-workspace-id"];
    let body = anthropic(json!([{"role": "user", "content": "x"}]));
    let mut seen = Vec::new();
    for account in ["anthropic-a", "anthropic-b"] {
        let served = world.post(account, "/v1/messages", &body).await;
        world.providers.fault(account, Fault::status(529), Some(1)).unwrap();
        let failed = world.post(account, "/v1/messages", &body).await;
        assert_eq!(names.map(|name| served.header(name)), names.map(|name| failed.header(name)));
        seen.push(names.map(|name| served.header(name).unwrap().to_owned()));
    }
    assert_eq!(seen[0][0], seen[1][0]);
    assert_ne!(seen[0][1], seen[1][1]);
    let openai = world.post("openai-a", RESPONSES, &responses(json!("x"))).await;
    assert!(openai.header("openai-organization").unwrap().starts_with("org-"));
    assert!(openai.header("openai-project").unwrap().starts_with("proj_"));
    world.providers.stop().await;
}

#[tokio::test]
async fn the_record_of_a_request_tells_what_it_created_and_its_idempotency_key() {
    let world = World::start().await;
    let key = [("idempotency-key", "k-1")];
    let mut body = responses(json!("hello"));
    body["background"] = json!(true);
    world.providers.fault("openai-a", Fault::Lost, Some(1)).unwrap();
    assert!(world.try_post("openai-a", RESPONSES, &body, &key).await.is_err());
    assert_eq!(world.try_post("openai-a", RESPONSES, &body, &key).await.unwrap().status, 200);
    world.providers.fault("openai-a", Fault::Drop, Some(1)).unwrap();
    assert!(world.try_post("openai-a", RESPONSES, &body, &key).await.is_err());
    body["store"] = json!(false);
    world.post("openai-a", RESPONSES, &body).await;

    let records = world.providers.requests();
    let made: Vec<usize> = records.iter().map(|record| record.created.len()).collect();
    assert_eq!(made, [1, 1, 0, 0]);
    assert!(records[0].created[0].starts_with("resp_"));
    let keys = records.iter().filter(|record| record.headers.contains_key("idempotency-key"));
    assert_eq!(keys.count(), 3);
    world.providers.stop().await;
}
