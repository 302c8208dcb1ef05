//! The kinds of state that providers keep, as data: where an id stands in requests and in
//! responses, and how long the state lives.
//!
//! Sources are the providers' references of their APIs and their SDKs (`openai` 3.57, `anthropic`
//! 2.14, `google-genai` 3.6). All of it belongs to one project, workspace or organization, and on a
//! server of one's own to one replica.

use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MONTH: Duration = Duration::from_hours(30 * 24);

/// A kind of state.
#[derive(Debug)]
pub struct Kind {
    /// The word for it in `pins.kinds`.
    pub name: &'static str,
    /// The segments of paths behind which an id stands: `/v1/responses/{id}`. A `POST` to such a
    /// path without an id creates one.
    pub segments: &'static [&'static str],
    /// The members of a request's body that hold an id: a string, or an object with an `id`.
    pub members: &'static [&'static [&'static str]],
    /// How ids begin that may stand anywhere in a certain part of the body.
    pub prefixes: &'static [&'static str],
    /// The members of a response that hold the id of what was created; also those of the first
    /// event of a stream. The first that is there counts.
    pub created: &'static [&'static [&'static str]],
    /// How long the state lives after it was used last, or longer: an id that is forgotten too
    /// early is found again by asking, one that is kept too long costs a row.
    pub life: Duration,
}

/// Every kind, in the order in which the ids of one request count.
pub static KINDS: [Kind; 12] = [
    // Stored for 30 days. A response that was made with `store: false` is known to no one.
    Kind {
        name: "responses",
        segments: &["responses"],
        members: &[&["previous_response_id"]],
        prefixes: &[],
        created: &[&["id"], &["response", "id"]],
        life: MONTH,
    },
    Kind {
        name: "conversations",
        segments: &["conversations"],
        members: &[&["conversation"]],
        prefixes: &[],
        created: &[&["id"]],
        life: MONTH,
    },
    // Five minutes after the last answer a thread may be gone, after an hour it is.
    Kind {
        name: "threads",
        segments: &[],
        members: &[&["thread", "previous_message_id"]],
        prefixes: &[],
        created: &[&["id"], &["message", "id"]],
        life: HOUR,
    },
    Kind {
        name: "interactions",
        segments: &["interactions"],
        members: &[&["previous_interaction_id"]],
        prefixes: &[],
        created: &[&["id"], &["interaction", "id"], &["interaction_id"]],
        life: MONTH,
    },
    // An hour, unless the request that created it says otherwise.
    Kind {
        name: "cached_contents",
        segments: &["cachedContents"],
        members: &[&["cachedContent"], &["cached_content"]],
        prefixes: &[],
        created: &[&["name"]],
        life: DAY,
    },
    Kind {
        name: "containers",
        segments: &["containers"],
        members: &[&["container"]],
        prefixes: &["cntr_"],
        created: &[&["id"]],
        life: DAY,
    },
    Kind {
        name: "files",
        segments: &["files"],
        members: &[&["input_file_id"], &["training_file"]],
        prefixes: &["file-", "file_"],
        created: &[&["id"], &["file", "name"]],
        life: MONTH,
    },
    Kind {
        name: "vector_stores",
        segments: &["vector_stores"],
        members: &[],
        prefixes: &["vs_"],
        created: &[&["id"]],
        life: MONTH,
    },
    Kind {
        name: "batches",
        segments: &["batches"],
        members: &[],
        prefixes: &[],
        created: &[&["id"], &["name"]],
        life: MONTH,
    },
    Kind {
        name: "uploads",
        segments: &["uploads"],
        members: &[],
        prefixes: &[],
        created: &[&["id"]],
        life: HOUR,
    },
    Kind {
        name: "skills",
        segments: &["skills"],
        members: &[],
        prefixes: &["skill_"],
        created: &[&["id"]],
        life: MONTH,
    },
    Kind {
        name: "jobs",
        segments: &["videos", "jobs", "evals", "sessions", "fileSearchStores"],
        members: &[],
        prefixes: &[],
        created: &[&["id"], &["name"]],
        life: MONTH,
    },
];

/// A kind by its place in [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindId(pub u8);

impl KindId {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = (Self, &'static Kind)> {
        (0..).map(Self).zip(&KINDS)
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|(_, kind)| kind.name == name).map(|(id, _)| id)
    }

    /// The kind behind a segment of a path.
    pub fn of_segment(segment: &str) -> Option<Self> {
        Self::all().find(|(_, kind)| kind.segments.contains(&segment)).map(|(id, _)| id)
    }

    /// The kind itself.
    pub fn kind(self) -> Option<&'static Kind> {
        KINDS.get(usize::from(self.0))
    }
}
