//! Which API a method and a path belong to.

use axum::http::{Method, Uri};
use serde_json::{Value, json};

use super::bedrock;
use super::error::ApiError;
use super::objects::Kind;
use super::route::{self, Action};
use super::stream::Framing;
use super::vendor::Vendor;

/// An endpoint of a vendor.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Api {
    Models,
    /// Server-side state by its path.
    State {
        kind: Kind,
        action: Action,
    },
    AnthropicMessages,
    AnthropicCountTokens,
    OpenAiChat,
    OpenAiResponses,
    OpenAiCompact,
    OpenAiSocket,
    GeminiGenerate {
        model: String,
    },
    /// With `alt=sse` server-sent events, without it one JSON array.
    GeminiStream {
        model: String,
        sse: bool,
    },
    GeminiCountTokens,
    /// Gemini's API in a wrapper, with the model in the body.
    CodeAssist {
        stream: bool,
    },
    Bedrock(bedrock::Method),
}

impl Api {
    pub(super) fn of(vendor: Vendor, method: &Method, uri: &Uri) -> Result<Self, ApiError> {
        if let Some((kind, action)) = route::of(vendor, method, uri.path()) {
            // The second step of a resumable upload has the path of the first.
            let action = match query(uri, "upload_id") {
                Some(id) if action == Action::Create => Action::Update(id.to_owned()),
                _ => action,
            };
            return Ok(Self::State { kind, action });
        }
        let (expected, api) = match (vendor, uri.path()) {
            (Vendor::Anthropic | Vendor::OpenAi, "/v1/models") => (Method::GET, Self::Models),
            (Vendor::Gemini, "/v1beta/models" | "/v1/models") => (Method::GET, Self::Models),
            (Vendor::Anthropic, "/v1/messages") => (Method::POST, Self::AnthropicMessages),
            (Vendor::Anthropic, "/v1/messages/count_tokens") => {
                (Method::POST, Self::AnthropicCountTokens)
            }
            (Vendor::OpenAi, "/v1/chat/completions") => (Method::POST, Self::OpenAiChat),
            (Vendor::OpenAi, "/v1/responses") if method == Method::GET => {
                (Method::GET, Self::OpenAiSocket)
            }
            (Vendor::OpenAi, "/v1/responses") => (Method::POST, Self::OpenAiResponses),
            (Vendor::OpenAi, "/v1/responses/compact") => (Method::POST, Self::OpenAiCompact),
            (Vendor::Anthropic, path) if path.starts_with("/model/") => {
                let method = bedrock::Method::of(path).ok_or_else(|| unknown(uri))?;
                (Method::POST, Self::Bedrock(method))
            }
            (Vendor::Gemini, "/v1internal:generateContent") => {
                (Method::POST, Self::CodeAssist { stream: false })
            }
            (Vendor::Gemini, "/v1internal:streamGenerateContent") => {
                (Method::POST, Self::CodeAssist { stream: true })
            }
            (Vendor::Gemini, path) => {
                (Method::POST, gemini(path, uri).ok_or_else(|| unknown(uri))?)
            }
            _ => return Err(unknown(uri)),
        };
        match *method == expected {
            true => Ok(api),
            false => {
                Err(ApiError::new(405, format!("{method} is not allowed here, {expected} is.")))
            }
        }
    }
}

impl Api {
    /// How a stream of this API is written.
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::OpenAiChat => Framing::DataUntilDone,
            Self::GeminiStream { sse: false, .. } => Framing::GoogleArray,
            Self::Bedrock(_) => Framing::AwsFrames,
            Self::GeminiGenerate { .. }
            | Self::GeminiStream { .. }
            | Self::GeminiCountTokens
            | Self::CodeAssist { .. } => Framing::GoogleEvents,
            _ => Framing::NamedEvents,
        }
    }

    /// The model, where the path names it.
    pub(super) fn model(&self) -> Option<&str> {
        match self {
            Self::GeminiGenerate { model } | Self::GeminiStream { model, .. } => Some(model),
            Self::Bedrock(method) => Some(&method.model),
            _ => None,
        }
    }
}

/// A parameter of the query, undecoded.
pub(super) fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// A list of models, in the form of the vendor. Any other name works as well.
pub(super) fn models(vendor: Vendor) -> Value {
    let created = "2026-01-01T00:00:00Z";
    match vendor {
        Vendor::Anthropic => json!({
            "data": [{"type": "model", "id": "claude-sonnet-5", "display_name": "Claude Sonnet 5", "created_at": created}],
            "has_more": false,
            "first_id": "claude-sonnet-5",
            "last_id": "claude-sonnet-5",
        }),
        Vendor::OpenAi => json!({
            "object": "list",
            "data": [{"id": "gpt-5.6", "object": "model", "created": 1_767_225_600, "owned_by": "openai"}],
        }),
        Vendor::Gemini => json!({"models": [{
            "name": "models/gemini-3.1-pro",
            "version": "3.1",
            "displayName": "Gemini 3.1 Pro",
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }]}),
    }
}

/// `/v1beta/models/{model}:{method}`, or the same under `/v1`. The colon may come escaped.
fn gemini(path: &str, uri: &Uri) -> Option<Api> {
    let path = path.replace("%3A", ":").replace("%3a", ":");
    let (model, method) = path
        .strip_prefix("/v1beta/models/")
        .or_else(|| path.strip_prefix("/v1/models/"))?
        .rsplit_once(':')?;
    let model = Some(model).filter(|model| !model.is_empty() && !model.contains('/'))?.to_owned();
    match method {
        "generateContent" => Some(Api::GeminiGenerate { model }),
        "streamGenerateContent" => {
            Some(Api::GeminiStream { model, sse: query(uri, "alt") == Some("sse") })
        }
        "countTokens" => Some(Api::GeminiCountTokens),
        _ => None,
    }
}

fn unknown(uri: &Uri) -> ApiError {
    ApiError::new(404, format!("There is no simulated API at {}.", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vendor: Vendor, method: Method, uri: &str, expected: Result<Api, u16>) {
        let api = Api::of(vendor, &method, &uri.parse().unwrap());
        assert_eq!(api.map_err(|error| error.status), expected, "{method} {uri}");
    }

    #[test]
    fn method_and_path_name_the_api() {
        let model = "gemini-3.1-pro".to_owned();
        let generate = "/v1beta/models/gemini-3.1-pro:generateContent";
        let stream = "/v1beta/models/gemini-3.1-pro:streamGenerateContent";
        check(
            Vendor::Anthropic,
            Method::POST,
            "/v1/messages?beta=true",
            Ok(Api::AnthropicMessages),
        );
        check(Vendor::OpenAi, Method::POST, "/v1/responses", Ok(Api::OpenAiResponses));
        check(Vendor::OpenAi, Method::GET, "/v1/responses", Ok(Api::OpenAiSocket));
        check(Vendor::OpenAi, Method::GET, "/v1/models", Ok(Api::Models));
        let stable = generate.replace("v1beta", "v1");
        let expected = Api::GeminiGenerate { model: model.clone() };
        check(Vendor::Gemini, Method::POST, &stable, Ok(expected));
        check(
            Vendor::Gemini,
            Method::POST,
            generate,
            Ok(Api::GeminiGenerate { model: model.clone() }),
        );
        check(
            Vendor::Gemini,
            Method::POST,
            stream,
            Ok(Api::GeminiStream { model: model.clone(), sse: false }),
        );
        let events = Api::GeminiStream { model: model.clone(), sse: true };
        check(Vendor::Gemini, Method::POST, &format!("{stream}?key=k&alt=sse"), Ok(events));
    }

    #[test]
    fn another_vendors_path_is_not_found_and_another_method_not_allowed() {
        check(Vendor::OpenAi, Method::POST, "/v1/messages", Err(404));
        check(Vendor::Gemini, Method::POST, "/v1beta/models/:generateContent", Err(404));
        check(Vendor::Gemini, Method::POST, "/v1beta/models/m:embedContent", Err(404));
        check(Vendor::Anthropic, Method::GET, "/v1/messages", Err(405));
        check(Vendor::OpenAi, Method::PUT, "/v1/responses", Err(405));
    }
}
