//! The answers of the vendors when an object is not here: never made, deleted, expired, or of
//! another group. They do not tell which.

use super::error::ApiError;
use super::objects::Kind;
use super::vendor::Vendor;

/// What a request is answered that names an object which is not here.
pub(super) fn error(vendor: Vendor, kind: Kind, id: &str) -> ApiError {
    match vendor {
        Vendor::OpenAi => openai(kind, id),
        Vendor::Anthropic => anthropic(kind, id),
        Vendor::Gemini => gemini(kind, id),
    }
}

/// The answer to `previous_response_id`, where the status is another one than at its path.
pub(super) fn previous_response(id: &str) -> ApiError {
    let error = ApiError::invalid(format!("Previous response with id '{id}' not found."));
    error.about("previous_response_id", "previous_response_not_found")
}

fn openai(kind: Kind, id: &str) -> ApiError {
    let message = match kind {
        Kind::File => {
            let error = ApiError::new(404, format!("No such File object: {id}"));
            return ApiError { parameter: Some("id"), ..error };
        }
        Kind::Item => format!(
            "Item with id '{id}' not found. Items are not persisted when `store` is set to false. \
             Try again with `store` set to true, or remove this item from your input."
        ),
        Kind::Batch => format!("No batch found with id '{id}'."),
        Kind::Conversation => format!("Conversation with id '{id}' not found."),
        Kind::Response => format!("Response with id '{id}' not found."),
        Kind::VectorStore => format!("Vector store with id '{id}' not found."),
        Kind::Container => format!("Container with id '{id}' not found."),
        _ => format!("No such object: '{id}'."),
    };
    ApiError::new(404, message)
}

fn anthropic(kind: Kind, id: &str) -> ApiError {
    if kind == Kind::Thread {
        let message = format!("No Thread was found for previous_message_id `{id}`.");
        return ApiError { details: Some("thread_not_found"), ..ApiError::new(404, message) };
    }
    let name = match kind {
        Kind::File => "File",
        Kind::Batch => "Message batch",
        Kind::Container => "Container",
        Kind::Skill => "Skill",
        _ => "Object",
    };
    ApiError::new(404, format!("{name} not found: {id}"))
}

fn gemini(kind: Kind, id: &str) -> ApiError {
    let name = id.rsplit('/').next().unwrap_or_default();
    match kind {
        Kind::CachedContent => ApiError::new(403, "CachedContent not found (or permission denied)"),
        Kind::File => ApiError::new(
            403,
            format!("You do not have permission to access the File {name} or it may not exist."),
        ),
        _ => ApiError::new(404, format!("Interaction {name} not found.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_answer_with_their_own_status_and_words() {
        for (vendor, kind, status, words) in [
            (Vendor::OpenAi, Kind::Conversation, 404, "Conversation with id 'x' not found."),
            (Vendor::OpenAi, Kind::File, 404, "No such File object: x"),
            (Vendor::Anthropic, Kind::File, 404, "File not found: x"),
            (
                Vendor::Gemini,
                Kind::CachedContent,
                403,
                "CachedContent not found (or permission denied)",
            ),
            (
                Vendor::Gemini,
                Kind::File,
                403,
                "You do not have permission to access the File x or it may not exist.",
            ),
        ] {
            let error = error(vendor, kind, "x");
            assert_eq!((error.status, error.message.as_str()), (status, words));
            assert_eq!(error.code, None);
        }
    }

    #[test]
    fn a_lost_thread_is_told_by_its_code() {
        let error = error(Vendor::Anthropic, Kind::Thread, "msg_1");
        let body = error.json(Vendor::Anthropic, "req_1");
        assert_eq!(body["error"]["type"], "not_found_error");
        assert_eq!(body["error"]["details"]["error_code"], "thread_not_found");
    }
}
