//! The paths of server-side state: collections of objects, and what is done to one of them.

use axum::http::Method;

use super::objects::Kind;
use super::vendor::Vendor;

/// What a request does to a collection or to an object in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create,
    List,
    Get(String),
    Update(String),
    Delete(String),
    /// A step such as `cancel` or `complete`.
    Do(String, String),
    /// What is below an object: `items`, `content`, with the rest of the path.
    Below(String, String),
    /// An item is added below it.
    Add(String, String),
    DeleteBelow(String, String),
}

/// The collections, in the order in which a path is compared with them.
const COLLECTIONS: [(Vendor, &str, Kind); 14] = [
    (Vendor::OpenAi, "/v1/responses", Kind::Response),
    (Vendor::OpenAi, "/v1/conversations", Kind::Conversation),
    (Vendor::OpenAi, "/v1/files", Kind::File),
    (Vendor::OpenAi, "/v1/vector_stores", Kind::VectorStore),
    (Vendor::OpenAi, "/v1/containers", Kind::Container),
    (Vendor::OpenAi, "/v1/batches", Kind::Batch),
    (Vendor::OpenAi, "/v1/uploads", Kind::Upload),
    (Vendor::Anthropic, "/v1/messages/batches", Kind::Batch),
    (Vendor::Anthropic, "/v1/files", Kind::File),
    (Vendor::Anthropic, "/v1/skills", Kind::Skill),
    (Vendor::Gemini, "/upload/v1beta/files", Kind::File),
    (Vendor::Gemini, "/v1beta/files", Kind::File),
    (Vendor::Gemini, "/v1beta/cachedContents", Kind::CachedContent),
    (Vendor::Gemini, "/v1beta/interactions", Kind::Interaction),
];

/// Steps that an object takes, of any kind.
const STEPS: [&str; 2] = ["cancel", "complete"];

/// The collection and the action that a method and a path name. `None` if it is no such path, or
/// if this method does nothing there.
pub(super) fn of(vendor: Vendor, method: &Method, path: &str) -> Option<(Kind, Action)> {
    // The stable API of Gemini has the same collections as the beta.
    let path = match vendor {
        Vendor::Gemini => &path.replacen("/v1/", "/v1beta/", 1),
        Vendor::Anthropic | Vendor::OpenAi => path,
    };
    COLLECTIONS.iter().find_map(|(owner, prefix, kind)| {
        let rest = path.strip_prefix(prefix).filter(|_| *owner == vendor)?;
        if rest.is_empty() {
            return action_on_all(*kind, method).map(|action| (*kind, action));
        }
        let rest = rest.strip_prefix('/')?;
        let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
        if id.is_empty() {
            return None;
        }
        action_on_one(*kind, method, id.to_owned(), below).map(|action| (*kind, action))
    })
}

/// Responses are made and sockets opened elsewhere; interactions are not listed.
fn action_on_all(kind: Kind, method: &Method) -> Option<Action> {
    match *method {
        Method::POST if kind != Kind::Response => Some(Action::Create),
        Method::GET if !matches!(kind, Kind::Response | Kind::Interaction) => Some(Action::List),
        _ => None,
    }
}

/// Nothing of a response can be changed, and what is beside its id is an API of its own.
fn action_on_one(kind: Kind, method: &Method, id: String, below: &str) -> Option<Action> {
    Some(match (method.as_str(), below) {
        ("GET", "") => Action::Get(id),
        ("POST" | "PATCH", "") if kind != Kind::Response => Action::Update(id),
        ("DELETE", "") => Action::Delete(id),
        ("POST", step) if STEPS.contains(&step) => Action::Do(id, step.to_owned()),
        ("GET", below) => Action::Below(id, below.to_owned()),
        ("POST", below) if !below.is_empty() => Action::Add(id, below.to_owned()),
        ("DELETE", below) => Action::DeleteBelow(id, below.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vendor: Vendor, method: Method, path: &str, expected: Option<(Kind, Action)>) {
        assert_eq!(of(vendor, &method, path), expected, "{method} {path}");
    }

    #[test]
    fn a_path_names_a_collection_or_one_of_its_objects() {
        let id = || "x_1".to_owned();
        let (openai, anthropic) = (Vendor::OpenAi, Vendor::Anthropic);
        check(openai, Method::POST, "/v1/files", Some((Kind::File, Action::Create)));
        check(openai, Method::GET, "/v1/files/x_1", Some((Kind::File, Action::Get(id()))));
        let delete = Some((Kind::Response, Action::Delete(id())));
        check(openai, Method::DELETE, "/v1/responses/x_1", delete);
        let cancel = Action::Do(id(), "cancel".into());
        let of_batch = Some((Kind::Batch, cancel));
        check(anthropic, Method::POST, "/v1/messages/batches/x_1/cancel", of_batch);
        let items = Action::Below(id(), "items/i".into());
        let of_conversation = Some((Kind::Conversation, items));
        check(openai, Method::GET, "/v1/conversations/x_1/items/i", of_conversation);
        let update = Some((Kind::CachedContent, Action::Update(id())));
        check(Vendor::Gemini, Method::PATCH, "/v1beta/cachedContents/x_1", update);
    }

    #[test]
    fn other_paths_and_methods_name_nothing() {
        check(Vendor::OpenAi, Method::POST, "/v1/responses", None);
        check(Vendor::OpenAi, Method::GET, "/v1/responses", None);
        check(Vendor::OpenAi, Method::POST, "/v1/responses/compact", None);
        check(Vendor::OpenAi, Method::PUT, "/v1/files/x", None);
        check(Vendor::OpenAi, Method::GET, "/v1/files/", None);
        check(Vendor::OpenAi, Method::GET, "/v1/filesystem", None);
        check(Vendor::Gemini, Method::GET, "/v2/files", None);
    }
}
