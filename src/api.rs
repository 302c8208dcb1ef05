//! Which API a client speaks, as far as path and host show it.

/// The APIs that are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Anthropic Messages, also on Vertex (`…/publishers/anthropic/models/<model>:rawPredict`).
    Anthropic,
    /// OpenAI Chat Completions, Responses and what imitates them; also everything that nothing else
    /// is known of.
    OpenAi,
    /// OpenAI on Azure: `/openai/deployments/<deployment>/…`
    Azure,
    /// Gemini, Vertex and Code Assist: `<model>:generateContent` and its kin.
    Gemini,
    /// Amazon Bedrock: `/model/<model>/invoke` and `/converse`.
    Bedrock,
}

impl Api {
    /// Every API.
    pub const ALL: [Self; 5] =
        [Self::Anthropic, Self::OpenAi, Self::Azure, Self::Gemini, Self::Bedrock];

    /// The API of a path (without its query) and a host (in lower case).
    pub fn of(path: &str, host: &str) -> Self {
        let method = path.rsplit('/').next().and_then(split_at_colon).map(|(_, method)| method);
        if path.ends_with("/messages")
            || contains(path, "/messages/")
            || contains(path, "/publishers/anthropic/")
        {
            Self::Anthropic
        } else if contains(path, "/openai/deployments/") || contains(host, ".openai.azure.com") {
            Self::Azure
        } else if bedrock_model(path).is_some() || contains(host, "bedrock-runtime") {
            Self::Bedrock
        } else if method.is_some()
            || contains(path, "/v1beta/")
            || contains(host, "generativelanguage.googleapis.com")
        {
            Self::Gemini
        } else {
            Self::OpenAi
        }
    }

    /// The provider's name, for pools that name none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
        }
    }

    /// Whether bodies of this API may be Claude Code's.
    pub fn is_claudes(self) -> bool {
        matches!(self, Self::Anthropic | Self::Bedrock)
    }
}

/// The model that a path names, percent-decoded: Gemini's and Vertex' `…/models/<model>:<method>`,
/// Bedrock's `/model/<model>/<method>`, Azure's `/deployments/<deployment>/…`.
pub fn model_in_path(path: &str) -> Option<String> {
    let (_, behind) = match contains(path, "/models/") {
        true => path.rsplit_once("/models/").unwrap_or_default(),
        false => Default::default(),
    };
    let model = match split_at_colon(behind) {
        Some((model, _)) if !model.contains('/') => Some(model),
        _ => None,
    };
    let model = model
        .or_else(|| bedrock_model(path))
        .or_else(|| split(path, "/openai/deployments/")?.1.split('/').next())
        .filter(|model| !model.is_empty())?;
    Some(percent_decoded(model))
}

fn bedrock_model(path: &str) -> Option<&str> {
    let (model, method) = split(path, "/model/")?.1.rsplit_once('/')?;
    matches!(method, "invoke" | "invoke-with-response-stream" | "converse" | "converse-stream")
        .then_some(model)
}

fn contains(text: &str, word: &str) -> bool {
    find(text, word).is_some()
}

fn split<'t>(text: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    let at = find(text, word)?;
    Some((text.get(..at)?, text.get(at + word.len()..)?))
}

/// Where a text has a word in it. Whatever prepares a search pays in texts longer than any path.
#[inline(never)]
fn find(text: &str, word: &str) -> Option<usize> {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let (first, last) = (*word.first()?, text.len().checked_sub(word.len())?);
    let begins = |at: &usize| {
        text.get(*at) == Some(&first) && text.get(*at..).is_some_and(|it| it.starts_with(word))
    };
    (0..=last).find(begins)
}

/// Splits at the first colon, which some clients encode.
fn split_at_colon(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').or_else(|| {
        memchr::memchr(b'%', text.as_bytes())?;
        split(text, "%3A").or_else(|| split(text, "%3a"))
    })
}

fn hexadecimal(byte: Option<&u8>) -> Option<u32> {
    char::from(*byte?).to_digit(16)
}

/// A text with its escapes undone.
#[inline(never)]
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, hexadecimal(tail.first()), hexadecimal(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_hosts_tell_api_and_model() {
        for (path, host, api, model) in [
            ("/v1/messages", "", Api::Anthropic, None),
            ("/v1/messages/count_tokens", "", Api::Anthropic, None),
            ("/api/provider/anthropic/v1/messages", "", Api::Anthropic, None),
            ("/v1/chat/completions", "", Api::OpenAi, None),
            ("/v1/responses", "", Api::OpenAi, None),
            ("/v1/responses/compact", "", Api::OpenAi, None),
            ("/backend-api/codex/responses", "chatgpt.com", Api::OpenAi, None),
            ("/v1/models/gpt-5.4", "", Api::OpenAi, None),
            (
                "/v1beta/models/gemini-2.5-pro:generateContent",
                "",
                Api::Gemini,
                Some("gemini-2.5-pro"),
            ),
            (
                "/v1/models/gemini-2.5-pro%3AstreamGenerateContent",
                "",
                Api::Gemini,
                Some("gemini-2.5-pro"),
            ),
            ("/v1beta/interactions", "", Api::Gemini, None),
            ("/v1internal:streamGenerateContent", "", Api::Gemini, None),
            (
                "/v1/projects/p/locations/l/publishers/google/models/gemini-3.1-flash:streamGenerateContent",
                "",
                Api::Gemini,
                Some("gemini-3.1-flash"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
                "",
                Api::Anthropic,
                Some("claude-sonnet-4-5@20250929"),
            ),
            (
                "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream",
                "",
                Api::Bedrock,
                Some("anthropic.claude-sonnet-4-5-20250929-v1:0"),
            ),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/invoke",
                "",
                Api::Bedrock,
                Some("arn:aws:bedrock:us-east-1:1:inference-profile/x"),
            ),
            ("/openai/deployments/gpt-prod/chat/completions", "", Api::Azure, Some("gpt-prod")),
            ("/openai/v1/responses", "me.openai.azure.com", Api::Azure, None),
            ("/", "", Api::OpenAi, None),
            ("/a%", "", Api::OpenAi, None),
        ] {
            assert_eq!(
                (Api::of(path, host), model_in_path(path).as_deref()),
                (api, model),
                "{path} {host}"
            );
        }
    }
}
