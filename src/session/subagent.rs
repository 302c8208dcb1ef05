//! Sub-agents: what an agent spawns for a part of its work, with a prompt and tools of its own.
//!
//! A sub-agent's prompt shares no beginning with its parent's, so the provider's cache of one is of
//! no use to the other. Beside its parent it gains nothing, and uses up the limits of the parent's
//! credential, often with many others at once. So by default a sub-agent has a binding of its own,
//! where its client says which one it is; the session's id stays its id in all other respects.
//!
//! Clients mark them in two ways. Claude Code and Codex send the parent's session id, and their own
//! beside it. OpenCode and Dynamo send an id of their own, and the parent's beside it.

use super::id;
use super::source::{Source, SourceLocation};
use crate::json::{Kind, Value};
use crate::request::{Headers, Request};

/// Where sub-agents go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subagents {
    /// Each has a binding of its own.
    #[default]
    Own,
    /// With their parent.
    Parent,
}

/// Headers of sessions, and those that name the parent of such a session.
const PARENTS: [(&str, &str); 4] = [
    ("x-session-id", "x-parent-session-id"),
    ("x-session-affinity", "x-parent-session-id"),
    ("x-opencode-session", "x-parent-session-id"),
    ("x-dynamo-session-id", "x-dynamo-parent-session-id"),
];

/// Which sub-agent of its session sends these headers; `None` for the session's own agent, and for
/// one that goes on with the conversation of its parent: its prompt is cached there, and the
/// reasoning in it can be read there only.
#[inline(never)]
pub(super) fn agent(headers: &Headers) -> Option<Vec<u8>> {
    header(headers, "x-claude-code-agent-id").or_else(|| codex_thread(headers)).map(<[u8]>::to_vec)
}

/// The thread of a sub-agent of Codex.
fn codex_thread(headers: &Headers) -> Option<&[u8]> {
    let kind = header(headers, "x-openai-subagent");
    let is_subagent = kind.is_some() || header(headers, "x-codex-parent-thread-id").is_some();
    let metadata = headers.first("x-codex-turn-metadata").and_then(Value::document);
    let is_forked = metadata
        .and_then(|metadata| metadata.get("forked_from_thread_id"))
        .is_some_and(|thread| thread.kind() == Kind::String);
    if !is_subagent || is_forked || kind == Some(b"compact") {
        return None;
    }
    header(headers, "thread-id")
}

/// The parent's id in place of that of a sub-agent, if this source has found it.
#[inline(never)]
pub(super) fn parent(source: &Source, request: &Request<'_>) -> Option<Vec<u8>> {
    let SourceLocation::Header(name) = &source.location else { return None };
    let (_, parent) = PARENTS.into_iter().find(|(header, _)| header == name)?;
    header(request.headers, parent).map(<[u8]>::to_vec)
}

#[inline(never)]
fn header<'h>(headers: &'h Headers, name: &'h str) -> Option<&'h [u8]> {
    headers.all(name).find_map(id::valid)
}
