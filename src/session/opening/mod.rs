//! The identity of last resort in the profile `recommended`: how a conversation was opened.
//!
//! A client that names no session sends the whole conversation in every turn, so its beginning is
//! what its turns have in common. What belongs to the beginning cannot be seen in one request:
//! whether `user, assistant, user` is the second turn of a chat or the first one of a program that
//! puts examples before the question. So a request has several ids. Id *k* is the hash of the
//! system prompt and of what the user said up to the *k*-th time that the model answers. A request
//! whose session is not known is bound under its last id; a later turn has that id as well, and
//! goes by the first of its ids that is bound. So a chat keeps its first question, a program with
//! examples has the question behind them, and a conversation that was forgotten is bound anew.
//!
//! Several Envoys know nothing of each other's bindings. Where all of them have to come to the same
//! credential (the strategy `consistent`), only one id can count: the first one behind the context
//! with which the client begins. Programs with examples then share a credential.
//!
//! What counts, and why:
//! - Of the user everything that was typed: every text of every part, and of an image, a sound or a
//!   file its longest string, be that data, an address or an id. Agents begin with blocks that are
//!   the same for everybody, so a cut after a few bytes would make all their conversations equal. A
//!   string of more than 64 KiB counts with its length and its ends, where templates and
//!   files differ; so a body of any size costs one pass.
//! - No reminder: some clients move `<system-reminder>` blocks from turn to turn. They count only
//!   if there is nothing else.
//! - Of the system prompt the first KiB of each text, without times and dates: enough to tell
//!   programs apart, and what changes behind (memory, files, an agent's mode) does not count.
//! - Not the model's answers, nor tools and their results: the first turn has none.
//! - Only texts, never the JSON around them. `cache_control` moves, keys change their order, a
//!   string becomes an array of parts, and messages of the user that follow each other are merged.
//! - What the model only acknowledges (`Ok.`) is context that the client made up, as Aider does.
//!   Such a text has an id, but does not belong to the ids behind it; and of these texts only the
//!   first line counts, because Aider adds instructions to the last one.

mod turns;

use crate::api::Api;
use crate::body::{Body, PathId, Paths};
use crate::request::Request;
use turns::Opening;

/// The most ids of a request, and so the most bindings that are looked for.
const MOST_IDS: usize = 32;

/// Members of a body with which a request refers to a conversation that the provider keeps, and
/// brings along only what is new. (`thread` is there from the first turn on.)
const CONTINUATIONS: [&[&str]; 5] = [
    &["previous_response_id"],
    &["previous_interaction_id"],
    &["conversation"],
    &["continuation_token"],
    &["thread", "previous_message_id"],
];

/// Where conversations are in a body.
#[derive(Clone, Debug)]
pub(super) struct OpeningPaths {
    places: Vec<Place>,
    continuations: Vec<PathId>,
    thread: PathId,
}

/// Where a format has its system prompt and its messages.
#[derive(Clone, Debug)]
struct Place {
    format: Format,
    system: Vec<PathId>,
    messages: PathId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// OpenAI Chat Completions, Anthropic Messages, Bedrock Converse.
    Messages,
    /// Gemini, also inside the wrapper of Code Assist.
    Gemini,
    /// OpenAI Responses, Gemini's interactions.
    Responses,
}

impl Format {
    /// Whether requests with this path have it. An `input` is also what is embedded, moderated or
    /// spoken: that opens no conversation, and would fill the table of bindings.
    fn is_spoken_at(self, path: &str) -> bool {
        const OTHERS: [&str; 5] =
            ["/embeddings", "/moderations", "/rerank", "/speech", "/generations"];
        self != Self::Responses || !OTHERS.iter().any(|end| path.ends_with(end))
    }
}

impl OpeningPaths {
    /// Adds the paths to those that are looked for.
    pub(super) fn new(paths: &mut Paths) -> Self {
        let mut place = |format, system: &[&[&str]], messages: &[&str]| Place {
            format,
            system: system.iter().map(|path| paths.add(path.iter().copied())).collect(),
            messages: paths.add(messages.iter().copied()),
        };
        let places = vec![
            place(Format::Messages, &[&["system"]], &["messages"]),
            place(
                Format::Gemini,
                &[&["systemInstruction", "parts"], &["system_instruction", "parts"]],
                &["contents"],
            ),
            place(
                Format::Gemini,
                &[&["request", "systemInstruction", "parts"]],
                &["request", "contents"],
            ),
            place(Format::Responses, &[&["instructions"], &["system_instruction"]], &["input"]),
        ];
        let continuations = CONTINUATIONS.map(|path| paths.add(path.iter().copied())).to_vec();
        Self { places, continuations, thread: paths.add(["thread", "type"]) }
    }

    /// Whether a request brings along only a part of its conversation. Its beginning is then no
    /// beginning: `continue` would be one session for everybody.
    pub(super) fn is_continued(&self, body: &Body<'_>) -> bool {
        let is_given = |path: &PathId| body.get(*path).is_some_and(|id| !id.text().is_empty());
        self.continuations.iter().any(is_given)
            || body.get(self.thread).is_some_and(|thread| thread.text().as_ref() == b"continue")
    }

    /// The first id of a request; `None` if it opens no conversation.
    pub(super) fn first_id(&self, request: &Request<'_>) -> Option<String> {
        self.ids_up_to(1, request).all.pop()
    }

    /// The ids of a request.
    pub(super) fn ids(&self, request: &Request<'_>) -> Ids {
        self.ids_up_to(MOST_IDS, request)
    }

    fn ids_up_to(&self, most: usize, request: &Request<'_>) -> Ids {
        let path = request.headers.path();
        let api = Api::of(path, &request.headers.host());
        let of_place = |place: &Place| {
            if !place.format.is_spoken_at(path) {
                return None;
            }
            [false, true].into_iter().find_map(|with_reminders| {
                let mut opening = Opening::new(place.format, api, most, with_reminders);
                opening.read(place, &request.body);
                Some(opening.finish()).filter(|ids| !ids.all.is_empty())
            })
        };
        // Where nobody says anything, the system prompt is all there is.
        self.places.iter().find_map(of_place).unwrap_or_default()
    }
}

/// What a request may be known by.
#[derive(Default)]
pub(super) struct Ids {
    /// That of the shortest beginning first.
    pub(super) all: Vec<String>,
    /// How many of them are of context alone, as far as can be seen.
    context: usize,
}

impl Ids {
    /// The one that counts where no binding can tell.
    pub(super) fn of_question(mut self) -> Option<String> {
        let last = self.all.len().checked_sub(1)?;
        Some(self.all.swap_remove(self.context.min(last)))
    }
}
