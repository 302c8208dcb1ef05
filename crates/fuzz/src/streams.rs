//! Any bytes as the beginning of a stream, and as frames of a WebSocket: what is seen does not
//! depend on the pieces in which they arrive.

use session_affinity::api::Api;
use session_affinity::request::Headers;
use session_affinity::signals::Context;
use session_affinity::signals::stream::{FirstEvent, Frames, Opening, Origin, ending};
use session_affinity::time::Timestamp;

use crate::input;
use crate::pieces::ends;

pub(crate) fn run(bytes: &[u8]) {
    let Some((cuts, is_end, bytes)) = input::<(Vec<u8>, bool, &[u8])>(bytes) else { return };
    let headers = Headers::default();
    let context = Context { api: Api::OpenAi, provider: "openai", model: "gpt-5.6" };
    let origin = Origin { headers: &headers, context, now: Timestamp::from_secs(1_795_262_400) };

    let whole = Opening::default().look(bytes, is_end, &origin);
    let mut opening = Opening::default();
    let mut in_pieces = FirstEvent::More;
    for end in ends(&cuts, bytes.len()) {
        in_pieces = opening.look(&bytes[..end], is_end && end == bytes.len(), &origin);
        if in_pieces != FirstEvent::More {
            break;
        }
    }
    assert_eq!(in_pieces, whole);

    let whole = Frames::default().feed(bytes, &origin);
    let mut frames = Frames::default();
    let mut in_pieces = FirstEvent::More;
    let mut start = 0;
    for end in ends(&cuts, bytes.len()) {
        let seen = frames.feed(&bytes[start..end], &origin);
        in_pieces = match (in_pieces, seen) {
            (FirstEvent::Error(_), FirstEvent::Error(_)) => in_pieces,
            (FirstEvent::Error(_), FirstEvent::Content) if is_broken(&mut frames, &origin) => seen,
            (FirstEvent::Error(_), _) | (_, FirstEvent::More) => in_pieces,
            _ => seen,
        };
        start = end;
    }
    assert_eq!(in_pieces, whole);

    ending(bytes, &origin);
}

/// Whether a reader has given up: then it says so whatever comes.
fn is_broken(frames: &mut Frames, origin: &Origin<'_>) -> bool {
    frames.feed(b"", origin) == FirstEvent::Content
}
