//! What a request asks its provider to do, as far as method and path show it.
//!
//! Two rules depend on it. A request that creates or deletes something is not repeated once it may
//! have been carried out: an idempotency key means nothing to another credential. And a failure of
//! one operation says nothing about another: a provider that cannot count tokens can still serve.

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A model's response: messages, chat, responses, images, speech.
    Generate,
    /// The number of tokens of a prompt.
    CountTokens,
    /// Embeddings, rankings.
    Embed,
    /// Something that is read: models, files, stored responses.
    Read,
    /// Something else that is created, changed or deleted.
    Write,
}

/// The ends of paths, in the order in which they are tried, the usual ones first. Sources are the
/// providers' references of their APIs.
const ENDS: [(&str, Operation); 42] = [
    ("/messages", Operation::Generate),
    ("/completions", Operation::Generate),
    ("/responses", Operation::Generate),
    ("/count_tokens", Operation::CountTokens),
    ("/count-tokens", Operation::CountTokens),
    ("/input_tokens", Operation::CountTokens),
    (":countTokens", Operation::CountTokens),
    (":computeTokens", Operation::CountTokens),
    ("/tokenize", Operation::CountTokens),
    ("/embeddings", Operation::Embed),
    ("/embed", Operation::Embed),
    ("/rerank", Operation::Embed),
    ("/score", Operation::Embed),
    ("/classify", Operation::Embed),
    ("/moderations", Operation::Embed),
    (":embedContent", Operation::Embed),
    (":batchEmbedContents", Operation::Embed),
    ("/completion", Operation::Generate),
    ("/chat", Operation::Generate),
    // LiteLLM makes a key.
    ("/key/generate", Operation::Write),
    ("/generate", Operation::Generate),
    ("/generate_stream", Operation::Generate),
    ("/responses/compact", Operation::Generate),
    ("/interactions", Operation::Generate),
    // Jobs whose results are fetched later.
    ("/videos/generations", Operation::Write),
    ("/video/generations", Operation::Write),
    ("/generations", Operation::Generate),
    ("/edits", Operation::Generate),
    ("/variations", Operation::Generate),
    ("/ocr", Operation::Generate),
    ("/speech", Operation::Generate),
    ("/transcriptions", Operation::Generate),
    ("/translations", Operation::Generate),
    (":generateContent", Operation::Generate),
    (":streamGenerateContent", Operation::Generate),
    (":predict", Operation::Generate),
    (":rawPredict", Operation::Generate),
    (":streamRawPredict", Operation::Generate),
    ("/invoke", Operation::Generate),
    ("/invoke-with-response-stream", Operation::Generate),
    ("/converse", Operation::Generate),
    ("/converse-stream", Operation::Generate),
];

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] =
        [Self::Generate, Self::CountTokens, Self::Embed, Self::Read, Self::Write];

    /// The operation of a request: its method (empty if it is not known) and its path without the
    /// query. An upgrade is a `GET`, and what it opens generates.
    pub fn of(method: &str, path: &str, is_upgrade: bool) -> Self {
        let path = path.strip_suffix('/').unwrap_or(path);
        let posts = is_upgrade || matches!(method, "POST" | "");
        let known = ENDS.iter().filter(|_| posts).find(|(end, _)| ends_with(path, end));
        match (known, method) {
            (Some((_, operation)), _) => *operation,
            (None, "GET" | "HEAD" | "OPTIONS") => Self::Read,
            (None, _) => Self::Write,
        }
    }

    /// Whether a request may be sent again after it may have been carried out.
    pub fn may_be_repeated(self) -> bool {
        self != Self::Write
    }

    /// Whether what it gives comes from a model, so that there is no response without content.
    pub fn runs_a_model(self) -> bool {
        matches!(self, Self::Generate | Self::CountTokens | Self::Embed)
    }

    /// What keeps the cooldowns of a model apart by operation.
    pub(crate) fn tag(self) -> &'static [u8] {
        match self {
            Self::Generate => b"",
            Self::CountTokens => b"count_tokens",
            Self::Embed => b"embed",
            Self::Read => b"read",
            Self::Write => b"write",
        }
    }
}

/// Whether a path ends so; clients may encode the colon before a method.
fn ends_with(path: &str, end: &str) -> bool {
    path.ends_with(end)
        || end.strip_prefix(':').is_some_and(|method| {
            let before = path.strip_suffix(method).unwrap_or_default();
            before.ends_with("%3A") || before.ends_with("%3a")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_path_show_the_operation() {
        for (method, path, expected) in [
            ("POST", "/v1/messages", Operation::Generate),
            ("", "/v1/messages", Operation::Generate),
            ("POST", "/v1/messages/count_tokens", Operation::CountTokens),
            ("POST", "/v1/messages/batches", Operation::Write),
            ("POST", "/v1/chat/completions", Operation::Generate),
            ("POST", "/v1/responses/compact", Operation::Generate),
            ("POST", "/v1/responses/resp_1/cancel", Operation::Write),
            ("GET", "/v1/responses/resp_1", Operation::Read),
            ("DELETE", "/v1/responses/resp_1", Operation::Write),
            ("GET", "/v1/messages", Operation::Read),
            ("POST", "/v1beta/models/gemini-2.5-pro:generateContent", Operation::Generate),
            ("POST", "/v1beta/models/gemini-2.5-pro:countTokens", Operation::CountTokens),
            ("POST", "/v1beta/models/gemini-2.5-pro%3AcountTokens", Operation::CountTokens),
            (
                "POST",
                "/v1/projects/p/locations/l/publishers/google/models/imagen-4:predict",
                Operation::Generate,
            ),
            (
                "POST",
                "/v1/projects/p/locations/l/publishers/google/models/veo-3:predictLongRunning",
                Operation::Write,
            ),
            ("POST", "/api/chat", Operation::Generate),
            ("POST", "/api/generate", Operation::Generate),
            ("POST", "/key/generate", Operation::Write),
            ("POST", "/proxy/key/generate/", Operation::Write),
            ("POST", "/v1/images/generations", Operation::Generate),
            ("POST", "/v1/videos/generations", Operation::Write),
            ("POST", "/v1/video/generations", Operation::Write),
            ("POST", "/v2/embed", Operation::Embed),
            ("POST", "/v1beta/cachedContents", Operation::Write),
            ("POST", "/model/m/converse-stream", Operation::Generate),
            ("POST", "/v1/embeddings", Operation::Embed),
            ("POST", "/v1/files", Operation::Write),
            ("PUT", "/v1/messages", Operation::Write),
            ("TRACE", "/v1/messages", Operation::Write),
        ] {
            assert_eq!(Operation::of(method, path, false), expected, "{method} {path}");
        }
        assert_eq!(Operation::of("GET", "/v1/responses", true), Operation::Generate);
    }
}
