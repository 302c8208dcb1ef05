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

/// No state lives longer after its last use.
pub(super) const LONGEST: Duration = MONTH;

/// How the paths end of the APIs whose bodies refer to state.
const RESPONSES: &[&str] = &["/responses", "/responses/compact", "/responses/input_tokens"];
const MESSAGES: &[&str] = &["/messages", "/messages/count_tokens"];
const INTERACTIONS: &[&str] = &["/interactions"];
const GEMINI: &[&str] = &[":generateContent", ":streamGenerateContent", ":countTokens"];

/// A member of a body that holds an id, and the APIs that have it.
#[derive(Debug)]
pub struct Member {
    /// Its path.
    pub path: &'static [&'static str],
    /// How the paths of those requests end.
    pub apis: &'static [&'static str],
}

const fn member(path: &'static [&'static str], apis: &'static [&'static str]) -> Member {
    Member { path, apis }
}

/// A kind of state.
#[derive(Debug)]
pub struct Kind {
    /// The word for it in `pins.kinds`.
    pub name: &'static str,
    /// The segments of paths behind which an id stands: `/v1/responses/{id}`. A `POST` to such a
    /// path without an id creates one.
    pub segments: &'static [&'static str],
    /// The members of a request's body that hold an id: a string, or an object with an `id`.
    pub members: &'static [Member],
    /// Members that hold an id, or an array of them, at any depth of a certain part of the body.
    pub deep: &'static [&'static str],
    /// Whether creating one runs no model, so that the request needs to name none.
    pub needs_no_model: bool,
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
        members: &[member(&["previous_response_id"], RESPONSES)],
        deep: &[],
        needs_no_model: false,
        created: &[&["id"], &["response", "id"]],
        life: MONTH,
    },
    Kind {
        name: "conversations",
        segments: &["conversations"],
        members: &[member(&["conversation"], RESPONSES)],
        deep: &[],
        needs_no_model: true,
        created: &[&["id"]],
        life: MONTH,
    },
    // Five minutes after the last answer a thread may be gone, after an hour it is.
    Kind {
        name: "threads",
        segments: &[],
        members: &[member(&["thread", "previous_message_id"], MESSAGES)],
        deep: &[],
        needs_no_model: false,
        created: &[&["id"], &["message", "id"]],
        life: HOUR,
    },
    Kind {
        name: "interactions",
        segments: &["interactions"],
        members: &[member(&["previous_interaction_id"], INTERACTIONS)],
        deep: &[],
        needs_no_model: false,
        created: &[&["id"], &["interaction", "id"], &["interaction_id"]],
        life: MONTH,
    },
    // An hour, unless the request that created it says otherwise.
    Kind {
        name: "cached_contents",
        segments: &["cachedContents"],
        members: &[member(&["cachedContent"], GEMINI), member(&["cached_content"], INTERACTIONS)],
        deep: &[],
        needs_no_model: false,
        created: &[&["name"]],
        life: DAY,
    },
    Kind {
        name: "containers",
        segments: &["containers"],
        members: &[member(&["container"], MESSAGES)],
        deep: &["container", "container_id"],
        needs_no_model: true,
        created: &[&["id"]],
        life: DAY,
    },
    Kind {
        name: "files",
        segments: &["files"],
        members: &[
            member(&["input_file_id"], &["/batches"]),
            member(&["training_file"], &["/jobs"]),
        ],
        deep: &["file_id", "file_ids"],
        needs_no_model: true,
        created: &[&["id"], &["file", "name"]],
        life: MONTH,
    },
    Kind {
        name: "vector_stores",
        segments: &["vector_stores"],
        members: &[],
        deep: &["vector_store_ids"],
        needs_no_model: true,
        created: &[&["id"]],
        life: MONTH,
    },
    Kind {
        name: "batches",
        segments: &["batches"],
        members: &[],
        deep: &[],
        needs_no_model: false,
        created: &[&["id"], &["name"]],
        life: MONTH,
    },
    Kind {
        name: "uploads",
        segments: &["uploads"],
        members: &[],
        deep: &[],
        needs_no_model: true,
        created: &[&["id"]],
        life: HOUR,
    },
    Kind {
        name: "skills",
        segments: &["skills"],
        members: &[],
        deep: &["skill_id"],
        needs_no_model: true,
        created: &[&["id"]],
        life: MONTH,
    },
    Kind {
        name: "jobs",
        segments: &[
            "videos",
            "jobs",
            "evals",
            "threads",
            "sessions",
            "fileSearchStores",
            "operations",
            "environments",
            "memory_stores",
            "vaults",
        ],
        members: &[],
        deep: &[],
        needs_no_model: false,
        created: &[&["id"], &["name"]],
        life: MONTH,
    },
];

impl Kind {
    /// Whether the body of a request with this path may hold an id of this kind.
    pub fn may_be_in(&self, path: &str) -> bool {
        let named = self.members.iter().flat_map(|member| member.apis);
        let deep = [RESPONSES, MESSAGES, GEMINI, &["/chat/completions"]];
        let deep = deep.into_iter().flatten().filter(|_| !self.deep.is_empty());
        named.chain(deep).any(|end| path.ends_with(end))
    }
}

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

    /// The kind of a segment of a path.
    pub fn of_segment(segment: &str) -> Option<Self> {
        Self::all().find(|(_, kind)| kind.segments.contains(&segment)).map(|(id, _)| id)
    }

    /// The kind itself.
    pub fn kind(self) -> Option<&'static Kind> {
        KINDS.get(usize::from(self.0))
    }
}
