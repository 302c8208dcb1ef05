//! What a response has cost in tokens, as its provider tells: how much of the prompt came from the
//! cache.
//!
//! Affinity pays where it saves tokens, and only providers know. Their counts have many names and
//! places ([`rows`]) and two meanings: with some the prompt's count includes what was cached, with
//! others not. Here they become comparable ([`Usage`]).
//!
//! A response passes unread; its beginning and its end are kept ([`Excerpt`]), and read once it is
//! over ([`read`]). The counts are looked for by the name of the member that holds them. In a text
//! its quotation marks would be escaped, and how many objects are closed behind it shows that it is
//! the provider's and not within the arguments of a tool.

mod excerpt;
mod found;
mod places;
mod row;
mod turns;

use crate::api::Api;
use crate::outcome::TokenType;
use crate::request::Headers;
use excerpt::{Format, Kept};
use found::Found;

pub use excerpt::{Excerpt, HEAD, TAIL};
pub use row::Row;
pub use turns::Turns;

/// The counts of one response. What its provider does not tell is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The whole prompt, cached or not.
    pub input: Option<u64>,
    /// The part of the prompt that was read from the cache.
    pub cache_read: Option<u64>,
    /// The part of the prompt that was written to the cache.
    pub cache_write: Option<u64>,
    /// What the model wrote, its reasoning included.
    pub output: Option<u64>,
}

/// Bytes of the words for a usual response.
const WORDS: usize = 192;

impl Usage {
    /// The tokens of each kind that count. Without a count of what was cached the prompt is not
    /// divided: it counts in no kind, or it would look as if nothing had been cached.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenType, u64)> {
        let read = self.cache_read.filter(|_| self.input.is_some());
        let written = read.and(self.cache_write);
        let cached = read.map(|read| read + written.unwrap_or(0));
        let rest = cached.zip(self.input).map(|(cached, input)| input.saturating_sub(cached));
        TokenType::ALL
            .into_iter()
            .zip([rest, read, written, self.output])
            .filter_map(|(kind, tokens)| Some((kind, tokens.filter(|&tokens| tokens > 0)?)))
    }

    /// The counts under the names that OpenTelemetry has for them, and the share of the prompt that
    /// came from the cache; what is not known is left out. Empty if nothing is.
    pub fn words(&self) -> String {
        let mut words = String::with_capacity(WORDS);
        let counts = [
            ("gen_ai.usage.input_tokens=", self.input),
            (" gen_ai.usage.cache_read.input_tokens=", self.cache_read),
            (" gen_ai.usage.cache_creation.input_tokens=", self.cache_write),
            (" gen_ai.usage.output_tokens=", self.output),
        ];
        for (name, count) in counts {
            let Some(count) = count else { continue };
            words.push_str(if words.is_empty() { name.trim_start() } else { name });
            words.push_str(&count.to_string());
        }
        let share = self
            .cache_read
            .zip(self.input)
            .and_then(|(read, input)| (100 * read).checked_div(input));
        if let Some(share) = share {
            words.push_str(" cached=");
            words.push_str(&share.to_string());
            words.push('%');
        }
        words
    }

    /// The counts as they are comparable: what was cached is a part of the prompt, also where the
    /// provider counts it apart, or counts more of it than there is.
    fn comparable(mut self, includes_cached: bool) -> Self {
        let (read, written) = (self.cache_read.unwrap_or(0), self.cache_write.unwrap_or(0));
        let input = self.input.map(|input| match includes_cached {
            true => input,
            false => input + read + written,
        });
        let most = input.unwrap_or(0);
        self.input = input;
        self.cache_read = self.cache_read.map(|read| read.min(most));
        self.cache_write = self.cache_write.map(|written| written.min(most - read.min(most)));
        self
    }
}

/// Why nothing, or not everything, is known of what a response has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unread {
    /// It is compressed.
    Compressed,
    /// It is over, and its provider has told nothing.
    Absent,
    /// It ended too early: what had been told until then counts.
    Cut,
    /// It is long, and no counts are in what is kept of it.
    TooLarge,
    /// The prompt is counted, but not what of it was cached.
    NoCacheCount,
    /// It is nothing that is read: a page, audio.
    NotRead,
}

impl Unread {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Compressed,
        Self::Absent,
        Self::Cut,
        Self::TooLarge,
        Self::NoCacheCount,
        Self::NotRead,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compressed => "compressed",
            Self::Absent => "absent",
            Self::Cut => "cut",
            Self::TooLarge => "too_large",
            Self::NoCacheCount => "no_cache_count",
            Self::NotRead => "not_read",
        }
    }
}

/// What was read of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The counts.
    pub usage: Usage,
    /// What is missing, if anything is.
    pub unread: Option<Unread>,
}

impl Reading {
    /// A response of which nothing is known.
    pub fn nothing(unread: Unread) -> Self {
        Self { usage: Usage::default(), unread: Some(unread) }
    }

    fn of(usage: Usage) -> Self {
        let unread = match usage {
            Usage { input: None, output: None, .. } => Some(Unread::Absent),
            Usage { cache_read: None, .. } => Some(Unread::NoCacheCount),
            _ => None,
        };
        Self { usage, unread }
    }
}

/// What the headers of a response tell; `None` if they do not, as with most.
pub fn read_headers(api: Api, headers: &Headers) -> Option<Reading> {
    if api != Api::Bedrock {
        return None;
    }
    let [input, cache_read, cache_write, output] =
        row::BEDROCK_HEADERS.map(|name| found::count(headers.text(name).as_bytes()));
    let usage = Usage { input: Some(input?), cache_read, cache_write, output };
    Some(Reading::of(usage.comparable(false)))
}

/// What a response tells that is over. It is complete if its end has come, and was not cut off.
pub fn read(api: Api, excerpt: &Excerpt, is_complete: bool) -> Reading {
    let Some(format) = excerpt.format() else {
        return Reading::nothing(if is_complete { Unread::Absent } else { Unread::Cut });
    };
    let mut found = Found::new(api);
    let mut is_too_large = false;
    match (format, excerpt.kept()) {
        (Format::Compressed, _) => return Reading::nothing(Unread::Compressed),
        (Format::Other, _) => return Reading::nothing(Unread::NotRead),
        (Format::Document, _) if !is_complete => {}
        (Format::Document | Format::Array, Kept::Whole(end)) => found.read_document(&end),
        (Format::Document | Format::Array, Kept::Parts(_, end)) => {
            found.read_document(&end);
            is_too_large = true;
        }
        (Format::Events, Kept::Whole(end)) => found.read_events(&end, is_complete),
        (Format::Events, Kept::Parts(head, end)) => {
            found.read_events(&end, is_complete);
            found.read_events(&head, false);
            is_too_large = !places::has_line(&end, b"data:");
        }
        (Format::Frames, Kept::Whole(end) | Kept::Parts(_, end)) => found.read_last_frame(&end),
    }
    let reading = Reading::of(found.usage());
    match reading.unread {
        _ if !is_complete => Reading { unread: Some(Unread::Cut), ..reading },
        Some(Unread::Absent) if is_too_large => Reading::nothing(Unread::TooLarge),
        _ => reading,
    }
}

/// Every row, in the order in which they count.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    row::ROWS.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_is_known() {
        let known = Usage {
            input: Some(2000),
            cache_read: Some(1990),
            cache_write: Some(0),
            output: Some(7),
        };
        let expected = "gen_ai.usage.input_tokens=2000 gen_ai.usage.cache_read.input_tokens=1990 \
                        gen_ai.usage.cache_creation.input_tokens=0 gen_ai.usage.output_tokens=7 \
                        cached=99%";
        assert_eq!(known.words(), expected);
        let partly = Usage { output: Some(7), ..Usage::default() };
        assert_eq!(partly.words(), "gen_ai.usage.output_tokens=7");
        let empty = Usage { input: Some(0), cache_read: Some(0), ..Usage::default() };
        assert!(!empty.words().contains("cached"));
        assert_eq!(Usage::default().words(), "");
    }
}
