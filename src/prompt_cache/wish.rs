//! What a request asks of its provider's prompt cache.

use std::time::Duration;

use memchr::memmem;

use crate::api::Api;
use crate::request::Request;
use crate::steps;

/// How long a prompt is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// One hour: a breakpoint with `"ttl": "1h"`.
    Hour,
    /// Twelve hours: `prompt_cache_options.ttl`.
    HalfDay,
    /// In memory only: `prompt_cache_retention`.
    InMemory,
    /// Up to a day: `prompt_cache_retention`.
    Day,
    /// As long as an entry that was created before: `cachedContent`.
    Entry,
}

/// Bytes of an object that are looked at for `ttl`: it is a small one.
const LONGEST: usize = 256;

impl Wish {
    /// What a request asks for; `None` if it leaves it to the provider. Where the body was not read,
    /// clients that announce breakpoints of an hour in `anthropic-beta`, as Claude Code does, are
    /// taken at their word.
    pub(super) fn of(api: Api, request: &Request<'_>) -> Option<Self> {
        let body = request.body.bytes();
        if body.is_empty() {
            let mut betas = request.headers.all("anthropic-beta");
            let is_announced =
                betas.any(|value| memmem::find(value, b"extended-cache-ttl").is_some());
            return is_announced.then_some(Self::Hour);
        }
        let own = match api {
            Api::OpenAi | Api::Azure => of_openai(body),
            Api::Bedrock => has_ttl(body, br#""cachePoint""#, br#""1h""#).then_some(Self::Hour),
            Api::Gemini => any(body, br#""cachedContent""#, &|value| value.starts_with(b"\""))
                .then_some(Self::Entry),
            Api::Anthropic => None,
        };
        // Gateways take Anthropic's breakpoints in every API.
        own.or_else(|| has_ttl(body, br#""cache_control""#, br#""1h""#).then_some(Self::Hour))
    }

    /// What the provider promises to whoever asks for this.
    pub(super) fn least(self) -> Option<Duration> {
        match self {
            Self::Hour => Some(super::HOUR),
            Self::HalfDay => Some(super::HALF_DAY),
            Self::InMemory | Self::Day | Self::Entry => None,
        }
    }
}

fn of_openai(body: &[u8]) -> Option<Wish> {
    if has_ttl(body, br#""prompt_cache_options""#, br#""12h""#) {
        return Some(Wish::HalfDay);
    }
    let retention =
        |word| any(body, br#""prompt_cache_retention""#, &|value: &[u8]| value.starts_with(word));
    if retention(br#""24h""#) {
        Some(Wish::Day)
    } else {
        retention(br#""in_memory""#).then_some(Wish::InMemory)
    }
}

/// Whether an object of this name has this `ttl`.
///
/// An object ends at the next brace. So no byte belongs to two of them, and the time is linear in
/// the body, whatever it holds.
fn has_ttl(body: &[u8], name: &[u8], ttl: &[u8]) -> bool {
    any(body, name, &|value| {
        let is_it = |value: &[u8]| value.starts_with(ttl);
        members(value).is_some_and(|members| any(members, br#""ttl""#, &is_it))
    })
}

/// Whether a member of this name has such a value. The name is given with its quotation marks:
/// inside a text they would be escaped.
#[inline(never)]
fn any(bytes: &[u8], name: &[u8], is_it: &dyn Fn(&[u8]) -> bool) -> bool {
    steps::count(bytes.len());
    memmem::find_iter(bytes, name).filter_map(|at| value(bytes.get(at + name.len()..)?)).any(is_it)
}

/// The members of an object.
fn members(value: &[u8]) -> Option<&[u8]> {
    let members = value.strip_prefix(b"{")?;
    let near = members.get(..LONGEST).unwrap_or(members);
    let end = near.iter().position(|byte| matches!(byte, b'{' | b'}')).unwrap_or(near.len());
    steps::count(end);
    near.get(..end)
}

/// The value of a member, from what follows its name.
fn value(behind_name: &[u8]) -> Option<&[u8]> {
    let near = behind_name.get(..LONGEST).unwrap_or(behind_name);
    let value = near.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    steps::count(near.len() - value.len());
    behind_name.get(near.len() - value.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Body, Paths};
    use crate::request::Headers;

    fn wish(api: Api, headers: &[(&str, &str)], body: &str) -> Option<Wish> {
        let headers: Headers = headers.iter().copied().collect();
        let body = Body::read(&Paths::default(), body.as_bytes());
        Wish::of(api, &Request::new(&headers, body))
    }

    #[test]
    fn what_a_body_asks_for_is_found_wherever_it_stands() {
        use Api::{Anthropic, Azure, Bedrock, Gemini, OpenAi};
        use Wish::{Day, Entry, HalfDay, Hour, InMemory};
        for (api, body, expected) in [
            (
                Anthropic,
                r#"{"system":[{"cache_control":{"type":"ephemeral","ttl":"1h"}}]}"#,
                Some(Hour),
            ),
            (Anthropic, "{\"cache_control\" : { \"ttl\" :\n \"1h\" , \"type\":\"x\"}}", Some(Hour)),
            (Anthropic, r#"{"a":{"cache_control":{}},"cache_control":{"ttl":"1h"}}"#, Some(Hour)),
            (Anthropic, r#"{"cache_control":{"type":"ephemeral","ttl":"5m"}}"#, None),
            (Anthropic, r#"{"cache_control":{"type":"ephemeral"},"ttl":"1h"}"#, None),
            (Anthropic, r#"{"text":"\"cache_control\":{\"ttl\":\"1h\"}"}"#, None),
            (Anthropic, r#"{"text":"cache_control","ttl":"1h"}"#, None),
            (Anthropic, r#"{"cache_control""#, None),
            (Anthropic, r#"{"prompt_cache_retention":"24h"}"#, None),
            (Bedrock, r#"{"system":[{"cachePoint":{"type":"default","ttl":"1h"}}]}"#, Some(Hour)),
            (Bedrock, r#"{"cache_control":{"ttl":"1h"}}"#, Some(Hour)),
            (Bedrock, r#"{"system":[{"cachePoint":{"type":"default"}}]}"#, None),
            (OpenAi, r#"{"prompt_cache_options":{"ttl":"12h"}}"#, Some(HalfDay)),
            (OpenAi, r#"{"prompt_cache_options":{"mode":"explicit","ttl":"30m"}}"#, None),
            (OpenAi, r#"{"prompt_cache_retention":"24h"}"#, Some(Day)),
            (Azure, r#"{"prompt_cache_retention": "in_memory"}"#, Some(InMemory)),
            (OpenAi, r#"{"prompt_cache_retention":null}"#, None),
            (OpenAi, r#"{"cache_control":{"ttl":"1h"}}"#, Some(Hour)),
            (Gemini, r#"{"cachedContent":"cachedContents/1"}"#, Some(Entry)),
            (Gemini, r#"{"cachedContent":null}"#, None),
            (Gemini, r#"{"contents":[]}"#, None),
        ] {
            assert_eq!(wish(api, &[], body), expected, "{api:?} {body}");
        }
    }

    #[test]
    fn without_a_body_the_announcement_counts() {
        let beta = [("anthropic-beta", "claude-code-20250219,extended-cache-ttl-2025-04-11")];
        assert_eq!(wish(Api::Anthropic, &beta, ""), Some(Wish::Hour));
        let body = r#"{"cache_control":{"type":"ephemeral"}}"#;
        assert_eq!(wish(Api::Anthropic, &beta, body), None, "the body knows better");
        let other = [("anthropic-beta", "prompt-caching-2024-07-31")];
        assert_eq!(wish(Api::Anthropic, &other, ""), None);
    }
}
