//! Any bytes as a response of which the costs are read, or as the frames of a WebSocket: what is
//! read does not depend on the pieces, and no sum is absurd.

use session_affinity::api::Api;
use session_affinity::usage::{Excerpt, Reading, Turns, read, read_headers};

use crate::headers::named;
use crate::input;
use crate::pieces::pieces;

/// More tokens than one response can have cost, several counts of it added.
const ABSURD: u64 = 10_000_000_000;

const HEADERS: [&str; 6] = [
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
    "content-encoding",
    "x",
];

pub(crate) fn run(bytes: &[u8]) {
    type Input<'a> = (u8, bool, Vec<u8>, Vec<(u8, &'a [u8])>, &'a [u8]);
    let Some((api, is_complete, cuts, values, body)) = input::<Input<'_>>(bytes) else { return };
    let api = Api::ALL[usize::from(api) % Api::ALL.len()];

    let whole = of_pieces(api, is_complete, [body]);
    check(&whole);
    // A byte order mark is only known where it comes in one piece.
    if body.first() != Some(&0xef) {
        let cut = pieces(&cuts, body);
        assert_eq!(of_pieces(api, is_complete, cut), whole);
    }
    if let Some(reading) = read_headers(api, &named(&HEADERS, &values)) {
        check(&reading);
    }

    let whole = turns(api, [body]);
    whole.0.iter().for_each(check);
    if !body.windows(3).any(|part| part == b"\xef\xbb\xbf") {
        assert_eq!(turns(api, pieces(&cuts, body)), whole);
    }
}

fn of_pieces<'b>(
    api: Api,
    is_complete: bool,
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> Reading {
    let mut excerpt = Excerpt::default();
    for piece in pieces {
        excerpt.take(piece.len(), |range| piece[range].to_vec());
    }
    read(api, &excerpt, is_complete)
}

/// What the turns of a WebSocket cost, and how it ended.
fn turns<'b>(
    api: Api,
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> (Vec<Reading>, Option<&'static str>) {
    let (mut turns, mut readings) = (Turns::default(), Vec::new());
    for piece in pieces {
        turns.feed(piece, api, &mut |reading| readings.push(reading));
    }
    (readings, turns.end().map(|unread| unread.as_str()))
}

fn check(reading: &Reading) {
    let usage = reading.usage;
    let sum: u64 = usage.tokens().map(|(_, tokens)| tokens).sum();
    assert!(sum < ABSURD, "{usage:?}");
    let cached = usage.cache_read.unwrap_or(0) + usage.cache_write.unwrap_or(0);
    assert!(usage.input.is_none_or(|input| cached <= input), "{usage:?}");
    assert!(usage.words().is_ascii());
}
