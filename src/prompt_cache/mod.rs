//! How long a provider keeps a prompt cached after its last use: while it does, a session is
//! cheaper where it was.
//!
//! It depends on the provider, on the model and on what the request asks for. The module `table`
//! says how long, with sources; the module `wish` reads the request. What an answer says about
//! caches is not read.

mod table;
mod wish;

use std::time::Duration;

use crate::config::Pool;
use crate::request::Request;
use crate::target::Target;
use table::ROWS;
use wish::Wish;

const FIVE_MINUTES: Duration = Duration::from_mins(5);
const HALF_HOUR: Duration = Duration::from_mins(30);
const HOUR: Duration = Duration::from_hours(1);
const TWO_HOURS: Duration = Duration::from_hours(2);
const HALF_DAY: Duration = Duration::from_hours(12);
const DAY: Duration = Duration::from_hours(24);
const WEEK: Duration = Duration::from_hours(7 * 24);

/// For how long after its last use a prompt is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// So long it can be counted on.
    pub warm: Duration,
    /// After so long it is certainly gone.
    pub certain: Duration,
}

impl Lifetime {
    /// What no request of a pool asks to shorten: a session that was idle for less is certainly not
    /// cold.
    pub fn least(pool: &Pool) -> Duration {
        pool.cache_lifetime.unwrap_or(FIVE_MINUTES)
    }

    /// The lifetime that the prompt of a request has: what the pool's configuration says, but no
    /// less than the request was promised; else what the table says.
    pub fn of(target: &Target<'_>, request: &Request<'_>) -> Self {
        let wish = Wish::of(target.api, request);
        if let Some(configured) = target.pool.cache_lifetime {
            let warm = configured.max(wish.and_then(Wish::least).unwrap_or_default());
            return Self { warm, certain: warm };
        }
        let (provider, model) = (target.provider, target.canonical_model.as_str());
        ROWS.iter()
            .find(|row| row.is_for(target.api, provider, model, wish))
            .map_or(Self { warm: FIVE_MINUTES, certain: DAY }, |row| row.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Api;
    use crate::body::{Body, Paths};
    use crate::config::Config;
    use crate::operation::Operation;
    use crate::request::Headers;

    const HALF_MINUTE: Duration = Duration::from_secs(30);

    fn lifetime(pool: &str, api: Api, model: &str, body: &str) -> (Duration, Duration) {
        let json = format!(
            r#"{{"pools":[{{"name":"p",{pool}"credentials":[{{"id":"a","cluster":"a"}}]}}]}}"#
        );
        let config = Config::parse(json.as_bytes()).unwrap();
        let target = Target::new(&config.pools[0], api, Operation::Generate, model.to_owned());
        let headers = Headers::default();
        let body = Body::read(&Paths::default(), body.as_bytes());
        let Lifetime { warm, certain } = Lifetime::of(&target, &Request::new(&headers, body));
        (warm, certain)
    }

    #[test]
    fn a_prompt_lives_as_long_as_provider_model_and_request_say() {
        use Api::{Anthropic, Azure, Bedrock, Gemini, OpenAi};
        let half_day = r#"{"prompt_cache_options":{"ttl":"12h"}}"#;
        let in_memory = r#"{"prompt_cache_retention":"in_memory"}"#;
        let day = r#"{"prompt_cache_retention":"24h"}"#;
        let hour = r#"{"cache_control":{"ttl":"1h"}}"#;
        let entry = r#"{"cachedContent":"cachedContents/1"}"#;
        for (provider, api, model, body, expected) in [
            ("", Anthropic, "claude-opus-5", "{}", (FIVE_MINUTES, FIVE_MINUTES)),
            ("", Anthropic, "claude-opus-5", hour, (HOUR, HOUR)),
            ("", Bedrock, "anthropic.claude-opus-5", hour, (HOUR, HOUR)),
            ("", Bedrock, "amazon.nova-pro", "{}", (FIVE_MINUTES, FIVE_MINUTES)),
            ("", OpenAi, "gpt-5.6", "{}", (HALF_HOUR, DAY)),
            ("", OpenAi, "gpt-5.6(high)", "{}", (HALF_HOUR, DAY)),
            ("", OpenAi, "gpt-6-codex", in_memory, (HALF_HOUR, DAY)),
            ("", OpenAi, "gpt-5.6", half_day, (HALF_DAY, DAY)),
            ("", OpenAi, "gpt-5.5", "{}", (FIVE_MINUTES, DAY)),
            ("", OpenAi, "gpt-5.5", day, (HOUR, DAY)),
            ("", OpenAi, "gpt-4.1", in_memory, (FIVE_MINUTES, HOUR)),
            ("", OpenAi, "", "", (FIVE_MINUTES, DAY)),
            ("", OpenAi, "anthropic/claude-opus-5", hour, (HOUR, DAY)),
            ("", Azure, "gpt-5.6", "{}", (HALF_HOUR, DAY)),
            ("", Azure, "my-deployment", in_memory, (FIVE_MINUTES, HOUR)),
            ("", Gemini, "gemini-3-pro", "{}", (FIVE_MINUTES, DAY)),
            ("", Gemini, "gemini-3-pro", entry, (HOUR, DAY)),
            ("deepseek", OpenAi, "deepseek-chat", "{}", (HOUR, WEEK)),
            ("DeepSeek", Anthropic, "deepseek-chat", "{}", (HOUR, WEEK)),
            ("groq", OpenAi, "llama-4", "{}", (FIVE_MINUTES, TWO_HOURS)),
            ("xai", OpenAi, "grok-5", "{}", (FIVE_MINUTES, DAY)),
        ] {
            let pool = match provider {
                "" => String::new(),
                name => format!(r#""provider":"{name}","#),
            };
            assert_eq!(lifetime(&pool, api, model, body), expected, "{provider} {model} {body}");
        }
    }

    #[test]
    fn a_configured_lifetime_counts_unless_the_request_was_promised_more() {
        let pool = r#""cache_lifetime":"30s","#;
        for (body, expected) in [
            ("{}", HALF_MINUTE),
            (r#"{"prompt_cache_retention":"24h"}"#, HALF_MINUTE),
            (r#"{"cache_control":{"ttl":"1h"}}"#, HOUR),
            (r#"{"prompt_cache_options":{"ttl":"12h"}}"#, HALF_DAY),
        ] {
            assert_eq!(
                lifetime(pool, Api::OpenAi, "gpt-5.6", body),
                (expected, expected),
                "{body}"
            );
        }
    }
}
