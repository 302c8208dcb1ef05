//! What the clients of an API ask for: methods and paths, as ways into a pool.
//!
//! Three vendors share one host here, so a path that two of them have (`/v1/models`, `/v1/files`)
//! needs a header that only one vendor's clients send. Lists of what is stored are left out: an
//! account has them for all clients, and ids are capabilities.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// An API that a pool serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Api {
    Anthropic,
    OpenAi,
    Gemini,
    Bedrock,
}

/// A way into a pool.
struct Way {
    methods: &'static [&'static str],
    /// Whole segments; behind a `/` at the end something has to follow.
    paths: &'static [&'static str],
    /// A header that only clients of this vendor send.
    header: Option<&'static str>,
}

const ANTHROPIC: [Way; 4] = [
    Way { methods: &["POST"], paths: &["/v1/messages"], header: None },
    Way {
        methods: &["POST"],
        paths: &["/v1/files", "/v1/skills"],
        header: Some("anthropic-version"),
    },
    Way { methods: &["GET"], paths: &["/v1/models"], header: Some("anthropic-version") },
    Way {
        methods: &["GET", "DELETE"],
        paths: &["/v1/messages/batches/", "/v1/files/", "/v1/skills/"],
        header: Some("anthropic-version"),
    },
];

/// Models are only read: to delete one that was made to measure is no client's business.
const OPENAI: [Way; 3] = [
    Way {
        methods: &["POST"],
        paths: &[
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/conversations",
            "/v1/embeddings",
            "/v1/moderations",
            "/v1/images",
            "/v1/audio",
            "/v1/files",
            "/v1/uploads",
            "/v1/batches",
            "/v1/containers",
            "/v1/vector_stores",
        ],
        header: None,
    },
    Way { methods: &["GET"], paths: &["/v1/models"], header: None },
    Way {
        methods: &["GET", "DELETE"],
        paths: &[
            "/v1/responses/",
            "/v1/conversations/",
            "/v1/files/",
            "/v1/batches/",
            "/v1/containers/",
            "/v1/vector_stores/",
        ],
        header: None,
    },
];

/// Requests of Google's SDKs have one of these headers, and only the key is in those of curl.
const GEMINI: [Way; 6] = [
    Way {
        methods: &["POST"],
        paths: &[
            "/v1beta/models/",
            "/v1/models/",
            "/v1beta/cachedContents",
            "/v1/cachedContents",
            "/upload/v1beta/files",
            "/upload/v1/files",
            "/v1beta/interactions",
            "/v1/interactions",
        ],
        header: None,
    },
    Way {
        methods: &["GET", "PATCH", "DELETE"],
        paths: &[
            "/v1beta/cachedContents/",
            "/v1/cachedContents/",
            "/v1beta/files/",
            "/v1beta/batches/",
            "/v1beta/interactions/",
            "/v1/interactions/",
        ],
        header: None,
    },
    Way { methods: &["GET"], paths: &["/v1beta/models"], header: None },
    Way { methods: &["GET"], paths: &["/v1/models"], header: Some("x-goog-api-client") },
    Way { methods: &["GET"], paths: &["/v1/models"], header: Some("x-goog-api-key") },
    Way {
        methods: &["GET", "DELETE"],
        paths: &["/v1/files/", "/v1/batches/"],
        header: Some("x-goog-api-client"),
    },
];

const BEDROCK: [Way; 1] = [Way { methods: &["POST"], paths: &["/model/"], header: None }];

impl Api {
    /// Their names in the input.
    pub(super) const NAMES: [&str; 4] = ["anthropic", "openai", "gemini", "bedrock"];

    /// The condition of a pool that serves this API, and only what `narrowing` also fits.
    ///
    /// # Errors
    /// What `narrowing` may not have.
    pub(super) fn matches(self, narrowing: Option<&Value>) -> Result<Value, &'static str> {
        const EXPECTED: &str = "expected one object beside `api`, with `models`, `hosts` or `headers`: the paths are those of the API";
        let empty = Map::new();
        let narrowing = match narrowing {
            None => &empty,
            Some(Value::Object(members)) => members,
            Some(_) => return Err(EXPECTED),
        };
        let paths = ["path_prefixes", "path-prefixes", "methods"];
        if paths.iter().any(|name| narrowing.contains_key(*name)) {
            return Err(EXPECTED);
        }
        let ways = match self {
            Self::Anthropic => &ANTHROPIC[..],
            Self::OpenAi => &OPENAI,
            Self::Gemini => &GEMINI,
            Self::Bedrock => &BEDROCK,
        };
        Ok(ways.iter().map(|way| way.narrowed(narrowing)).collect())
    }
}

impl Way {
    fn narrowed(&self, narrowing: &Map<String, Value>) -> Value {
        let mut way = Map::from_iter([
            ("path_prefixes".to_owned(), json!(self.paths)),
            ("methods".to_owned(), json!(self.methods)),
        ]);
        way.extend(narrowing.clone());
        if let Some(name) = self.header {
            let headers = way.entry("headers").or_insert_with(|| json!([]));
            // Anything but a list is the filter's to refuse.
            if let Value::Array(headers) = headers {
                headers.push(json!({"name": name}));
            }
        }
        way.into()
    }
}
