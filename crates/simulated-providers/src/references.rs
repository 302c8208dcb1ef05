//! The objects that a request for a reply refers to, beside the one that it continues. One that is
//! not here is answered as by the vendor.

use serde_json::Value;

use super::error::ApiError;
use super::missing;
use super::objects::Kind;
use super::place::Place;
use super::vendor::Vendor;

/// Refuses a request that refers to an object that is not here.
pub(super) fn check(vendor: Vendor, body: &Value, place: &Place<'_>) -> Result<(), ApiError> {
    let mut references = Vec::new();
    match vendor {
        Vendor::OpenAi => openai(body, &mut references),
        Vendor::Anthropic => anthropic(body, &mut references),
        Vendor::Gemini => gemini(body, &mut references),
    }
    let lost = references.into_iter().find(|(kind, id)| !place.knows(*kind, id));
    lost.map_or(Ok(()), |(kind, id)| Err(missing::error(vendor, kind, &id)))
}

type References = Vec<(Kind, String)>;

fn openai(body: &Value, found: &mut References) {
    for item in elements(&body["input"]).chain(elements(&body["messages"])) {
        if item["type"] == "item_reference" {
            add(found, Kind::Item, &item["id"]);
        }
        for part in elements(&item["content"]) {
            add(found, Kind::File, &part["file_id"]);
            add(found, Kind::File, &part["file"]["file_id"]);
        }
    }
    for tool in elements(&body["tools"]) {
        elements(&tool["vector_store_ids"]).for_each(|id| add(found, Kind::VectorStore, id));
        add(found, Kind::Container, &tool["container"]);
        elements(&tool["container"]["file_ids"]).for_each(|id| add(found, Kind::File, id));
        add(found, Kind::Container, &tool["environment"]["container_id"]);
    }
}

fn anthropic(body: &Value, found: &mut References) {
    for message in elements(&body["messages"]) {
        elements(&message["content"]).for_each(|block| anthropic_block(block, found));
    }
    let container = &body["container"];
    add(found, Kind::Container, container);
    add(found, Kind::Container, &container["id"]);
    let own = elements(&container["skills"]).filter(|skill| skill["type"] == "custom");
    own.for_each(|skill| add(found, Kind::Skill, &skill["skill_id"]));
}

fn anthropic_block(block: &Value, found: &mut References) {
    add(found, Kind::File, &block["source"]["file_id"]);
    match block["type"].as_str() {
        Some("container_upload") => add(found, Kind::File, &block["file_id"]),
        Some("tool_result") => {
            elements(&block["content"]).for_each(|inner| anthropic_block(inner, found));
        }
        _ => {}
    }
}

fn gemini(body: &Value, found: &mut References) {
    for content in elements(&body["contents"]) {
        for part in elements(&content["parts"]) {
            for data in [&part["fileData"], &part["file_data"]] {
                for uri in [&data["fileUri"], &data["file_uri"]] {
                    let id = uri.as_str().and_then(file_of_uri);
                    found.extend(id.map(|id| (Kind::File, format!("files/{id}"))));
                }
            }
        }
    }
}

/// Other URIs are of the open web or of a bucket.
fn file_of_uri(uri: &str) -> Option<&str> {
    let (before, id) = uri.rsplit_once("/files/")?;
    (before.ends_with("/v1beta") || before.ends_with("/v1")).then_some(id)
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn add(found: &mut References, kind: Kind, id: &Value) {
    found.extend(id.as_str().map(|id| (kind, id.to_owned())));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids(collect: fn(&Value, &mut References), body: &Value) -> Vec<String> {
        let mut found = Vec::new();
        collect(body, &mut found);
        found.into_iter().map(|(_, id)| id).collect()
    }

    #[test]
    fn references_are_found_where_the_vendors_read_them() {
        let content = json!([{"type": "input_file", "file_id": "file-1"}]);
        let input =
            json!([{"role": "user", "content": content}, {"type": "item_reference", "id": "rs_1"}]);
        let tools = json!([
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
            {"type": "code_interpreter", "container": "cntr_1"},
            {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-2"]}},
        ]);
        let body = json!({"input": input, "tools": tools});
        assert_eq!(ids(openai, &body), ["file-1", "rs_1", "vs_1", "cntr_1", "file-2"]);

        let block = json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}});
        let result = json!({"type": "tool_result", "content": [block]});
        let skills = json!([{"type": "custom", "skill_id": "skill_1"}, {"type": "anthropic", "skill_id": "pdf"}]);
        let container = json!({"id": "container_1", "skills": skills});
        let body =
            json!({"messages": [{"role": "user", "content": [result]}], "container": container});
        assert_eq!(ids(anthropic, &body), ["file_1", "container_1", "skill_1"]);

        let parts = json!([
            {"fileData": {"fileUri": "https://any.host/v1beta/files/f1"}},
            {"file_data": {"file_uri": "https://example.org/a.pdf"}},
        ]);
        assert_eq!(ids(gemini, &json!({"contents": [{"parts": parts}]})), ["files/f1"]);
    }

    #[test]
    fn arguments_of_a_tool_are_no_references() {
        let block = json!({"type": "tool_use", "input": {"file_id": "mine"}});
        let body = json!({"messages": [{"role": "assistant", "content": [block]}]});
        assert_eq!(ids(anthropic, &body), [] as [String; 0]);
    }
}
