//! How long providers keep a prompt, by what is asked for and by whom.
//!
//! Sources: **S** a provider's SDK or service model, **D** its documentation, **K** known, not read
//! again. Where a provider tells no end, a day counts: nobody else keeps a prompt for longer.

use std::time::Duration;

use super::wish::Wish;
use super::{DAY, FIVE_MINUTES, HALF_DAY, HALF_HOUR, HOUR, Lifetime, TWO_HOURS, WEEK};
use crate::api::Api;

/// A lifetime, and for which requests it is.
#[derive(Debug)]
pub(super) struct Row {
    whose: Whose,
    /// Only for GPT models of this version and later.
    gpt: Option<(u32, u32)>,
    /// Only for requests that ask for this.
    wish: Option<Wish>,
    pub(super) lifetime: Lifetime,
}

/// Whose caches they are.
#[derive(Debug)]
enum Whose {
    /// Those of the provider of this name, whatever API it is spoken to in.
    Provider(&'static str),
    Api(Api),
}

/// The rows, in the order in which they are searched; the first that fits counts.
pub(super) static ROWS: &[Row] = &[
    // On disk, "a few hours to a few days". D
    provider("deepseek").lasts(HOUR, WEEK),
    // Two hours without use. D
    provider("groq").lasts(FIVE_MINUTES, TWO_HOURS),
    // Five minutes after the last use, or an hour at twice the price. D
    api(Api::Anthropic).asks(Wish::Hour).lasts(HOUR, HOUR),
    api(Api::Anthropic).lasts(FIVE_MINUTES, FIVE_MINUTES),
    // The same for Claude; five minutes for Nova. D
    api(Api::Bedrock).asks(Wish::Hour).lasts(HOUR, HOUR),
    api(Api::Bedrock).lasts(FIVE_MINUTES, FIVE_MINUTES),
    // `cachedContents` live for an hour unless they were created with another `ttl`. D
    api(Api::Gemini).asks(Wish::Entry).lasts(HOUR, DAY),
    // Implicit caches: nothing is promised, and all is deleted after a day. D
    api(Api::Gemini).lasts(FIVE_MINUTES, DAY),
    // From GPT-5.6 the time is a minimum; how much longer a prompt is kept is not told. S
    api(Api::OpenAi).asks(Wish::HalfDay).lasts(HALF_DAY, DAY),
    api(Api::OpenAi).gpt_from(5, 6).lasts(HALF_HOUR, DAY),
    // Up to GPT-5.5 it is a maximum. In memory: five to ten minutes without use, an hour at most;
    // so what is to be kept for a day is counted on for the hour. S, D
    api(Api::OpenAi).asks(Wish::InMemory).lasts(FIVE_MINUTES, HOUR),
    api(Api::OpenAi).asks(Wish::Day).lasts(HOUR, DAY),
    // Claude behind a gateway. K
    api(Api::OpenAi).asks(Wish::Hour).lasts(HOUR, DAY),
    // A day is the default, and memory where an organization keeps no data. S
    api(Api::OpenAi).lasts(FIVE_MINUTES, DAY),
];

const fn provider(name: &'static str) -> Row {
    Row::new(Whose::Provider(name))
}

const fn api(api: Api) -> Row {
    Row::new(Whose::Api(api))
}

impl Row {
    const fn new(whose: Whose) -> Self {
        let lifetime = Lifetime { warm: Duration::ZERO, certain: Duration::ZERO };
        Self { whose, gpt: None, wish: None, lifetime }
    }

    const fn asks(mut self, wish: Wish) -> Self {
        self.wish = Some(wish);
        self
    }

    const fn gpt_from(mut self, major: u32, minor: u32) -> Self {
        self.gpt = Some((major, minor));
        self
    }

    const fn lasts(mut self, warm: Duration, certain: Duration) -> Self {
        self.lifetime = Lifetime { warm, certain };
        self
    }

    /// Whether it is for what a model of a provider is asked.
    pub(super) fn is_for(&self, api: Api, provider: &str, model: &str, wish: Option<Wish>) -> bool {
        let is_theirs = match self.whose {
            Whose::Provider(name) => provider.eq_ignore_ascii_case(name),
            // OpenAI's models, with OpenAI's lifetimes.
            Whose::Api(Api::OpenAi) => matches!(api, Api::OpenAi | Api::Azure),
            Whose::Api(own) => api == own,
        };
        is_theirs
            && (self.wish.is_none() || self.wish == wish)
            && self.gpt.is_none_or(|from| gpt_version(model).is_some_and(|version| version >= from))
    }
}

/// The version of a GPT model, also with the provider before it: `openai/gpt-5.6-codex`.
fn gpt_version(model: &str) -> Option<(u32, u32)> {
    let name = model.rsplit('/').next()?.strip_prefix("gpt-")?;
    let end = name.find(|next: char| !next.is_ascii_digit() && next != '.').unwrap_or(name.len());
    let (major, minor) = name.get(..end)?.split_once('.').unwrap_or((name.get(..end)?, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (model, expected) in [
            ("gpt-5.6", Some((5, 6))),
            ("gpt-5.10-codex", Some((5, 10))),
            ("openai/gpt-6", Some((6, 0))),
            ("gpt-6-mini", Some((6, 0))),
            ("gpt-4o", Some((4, 0))),
            ("gpt-4.1-nano", Some((4, 1))),
            ("gpt-oss-120b", None),
            ("gpt-99999999999", None),
            ("gpt-5.", None),
            ("o4-mini", None),
            ("", None),
        ] {
            assert_eq!(gpt_version(model), expected, "{model}");
        }
    }

    #[test]
    fn nothing_is_certainly_gone_while_it_can_be_counted_on() {
        for row in ROWS {
            let Lifetime { warm, certain } = row.lifetime;
            assert!(FIVE_MINUTES <= warm && warm <= certain, "{row:?}");
        }
    }
}
