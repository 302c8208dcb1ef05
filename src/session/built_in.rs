//! The sources that are known by name, as a table.
//!
//! The order is that of the profile `recommended`. It contains the reference's six steps in the
//! reference's relative order, so a request that only has what the reference reads has the same id
//! here. What is missing on purpose are ids of a request, a turn, a device or a trace:
//! `x-request-id`, `traceparent`, `x-interaction-id`, `x-grok-req-id`, `x-codex-window-id` and the
//! like. A session that changes with every request is no session.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::source::{Source, SourceLocation};
use crate::body::Paths;

/// A named group of sources, tried in order.
pub(super) struct BuiltIn {
    /// As in `session.sources`.
    pub(super) name: &'static str,
    /// Whether the profile `recommended` uses it unasked.
    pub(super) by_default: bool,
    entries: &'static [Entry],
}

struct Entry {
    /// The prefix of the id; of a header without one, the header's name.
    prefix: &'static str,
    at: At,
}

enum At {
    Header(&'static str),
    /// A header for these clients only.
    HeaderOf(&'static str, &'static [&'static str]),
    /// A header that holds JSON, and the member in it.
    HeaderJson(&'static str, &'static str),
    Body(&'static str),
    /// A body string, and the expression whose group is the id.
    BodyPart(&'static str, &'static str),
    Claude,
    MessageHash,
}

const fn header(prefix: &'static str, name: &'static str) -> Entry {
    Entry { prefix, at: At::Header(name) }
}

const fn vendor(name: &'static str) -> Entry {
    header(name, name)
}

const fn body(prefix: &'static str, path: &'static str) -> Entry {
    Entry { prefix, at: At::Body(path) }
}

/// All of them, in the order of the profile `recommended`.
pub(super) const BUILT_IN: &[BuiltIn] = &[
    // Claude Code 2.1.86 and later: the value that the body has too, and before any body is there.
    BuiltIn {
        name: "claude-code-header",
        by_default: true,
        entries: &[header("claude", "x-claude-code-session-id")],
    },
    BuiltIn {
        name: "claude-code",
        by_default: true,
        entries: &[Entry { prefix: "claude", at: At::Claude }],
    },
    // OpenCode, Crush, Kilo, Droid, Z Code, and whoever configures a header.
    BuiltIn {
        name: "session-id-header",
        by_default: true,
        entries: &[header("header", "x-session-id")],
    },
    BuiltIn { name: "amp", by_default: true, entries: &[header("amp", "x-amp-thread-id")] },
    // Codex 0.131 and later; Codex before it, Roo, Cline and pi; Codex' metadata; the oldest Codex.
    // Sub-agents send the parent's session id and a thread id of their own: the session goes first.
    BuiltIn {
        name: "codex",
        by_default: true,
        entries: &[
            header("codex", "session-id"),
            header("codex", "session_id"),
            Entry { prefix: "codex", at: At::HeaderJson("x-codex-turn-metadata", "session_id") },
            header("codex", "thread-id"),
            header("codex", "conversation_id"),
        ],
    },
    // OpenCode, pi, Cloudflare, Fireworks, LangChain.
    BuiltIn {
        name: "session-affinity-header",
        by_default: true,
        entries: &[header("affinity", "x-session-affinity")],
    },
    BuiltIn {
        name: "vendor-headers",
        by_default: true,
        entries: &[
            vendor("x-opencode-session"),
            vendor("x-grok-conv-id"),
            vendor("x-grok-session-id"),
            vendor("agent-session-id"),
            vendor("x-client-session-id"),
            vendor("x-kilocode-taskid"),
            vendor("x-task-id"),
            vendor("x-roo-task-id"),
            vendor("x-multi-turn-session-id"),
            vendor("x-affinity"),
            vendor("x-openwebui-chat-id"),
            vendor("x-conversation-id"),
            vendor("x-litellm-session-id"),
            vendor("helicone-session-id"),
            vendor("x-dynamo-session-id"),
            vendor("x-smg-routing-key"),
            vendor("x-mux-workspace-id"),
            vendor("x-coder-chat-id"),
            vendor("x-cagent-session-id"),
            vendor("x-deepseek-harness-session-id"),
            vendor("x-session-key"),
            vendor("x-codex-session-id"),
            vendor("x-thread-id"),
            vendor("x-http-session-id"),
            vendor("x-slot-session-id"),
            vendor("x-grok-conv-group-id"),
        ],
    },
    // The thread of Codex, the session of pi; of every other client a new id for each request.
    BuiltIn {
        name: "client-request-id",
        by_default: true,
        entries: &[Entry {
            prefix: "clientreq",
            at: At::HeaderOf("x-client-request-id", &["codex", "pi"]),
        }],
    },
    BuiltIn {
        name: "body-session",
        by_default: true,
        entries: &[
            body("session", "session_id"),
            body("session", "sessionId"),
            // Gemini CLI and Antigravity, both through Code Assist.
            body("session", "request.session_id"),
            body("session", "request.sessionId"),
            body("session", "litellm_session_id"),
            body("session", "metadata.session_id"),
            body("session", "metadata.sessionId"),
            body("session", "metadata.conversation_id"),
            body("session", "metadata.cursorConversationId"),
            body("session", "client_metadata.session_id"),
            body("session", "thread_id"),
            body("session", "chat_id"),
            // Gemini CLI's main turns: the session, eight hashes, the number of the prompt.
            Entry { prefix: "session", at: At::BodyPart("user_prompt_id", "(?s-u)^(.+?)########") },
        ],
    },
    BuiltIn {
        name: "prompt-cache-key",
        by_default: true,
        entries: &[body("pck", "prompt_cache_key")],
    },
    BuiltIn {
        name: "conversation",
        by_default: true,
        entries: &[body("conv", "conversation"), body("conv", "conversation.id")],
    },
    BuiltIn { name: "user-id", by_default: true, entries: &[body("user", "metadata.user_id")] },
    BuiltIn {
        name: "conversation-id",
        by_default: true,
        entries: &[body("conv", "conversation_id")],
    },
    // Coarse: one end user, or one value for a whole tenant, would sit on one credential.
    BuiltIn {
        name: "end-user",
        by_default: false,
        entries: &[
            body("enduser", "user"),
            body("enduser", "user_id"),
            body("enduser", "safety_identifier"),
            header("enduser", "x-openwebui-user-id"),
        ],
    },
    BuiltIn {
        name: "message-hash",
        by_default: true,
        entries: &[Entry { prefix: "msg", at: At::MessageHash }],
    },
];

/// The sources of the reference, in its order.
pub(super) const REFERENCE: &[&str] =
    &["claude-code", "session-id-header", "amp", "user-id", "conversation-id", "message-hash"];

impl BuiltIn {
    /// The group's sources, their paths added to those that are looked for.
    pub(super) fn sources<'p>(&self, paths: &'p mut Paths) -> impl Iterator<Item = Source> + 'p {
        self.entries.iter().map(|entry| {
            let path = |path: &'static str, paths: &mut Paths| paths.add(path.split('.'));
            let place = match entry.at {
                At::Header(name) | At::HeaderOf(name, _) | At::HeaderJson(name, _) => {
                    SourceLocation::Header(Cow::Borrowed(name))
                }
                At::Body(name) | At::BodyPart(name, _) => SourceLocation::Body(path(name, paths)),
                At::Claude => SourceLocation::Claude(path("metadata.user_id", paths)),
                At::MessageHash => SourceLocation::MessageHash,
            };
            let mut source = Source::new(entry.prefix, place);
            match entry.at {
                At::HeaderOf(_, clients) => source.clients = clients,
                At::HeaderJson(_, member) => source.json = vec![member.to_owned()],
                At::BodyPart(_, pattern) => source.pattern = Regex::new(pattern).ok(),
                _ => {}
            }
            source
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_of_the_table_compiles_and_has_one_group() {
        for entry in BUILT_IN.iter().flat_map(|group| group.entries) {
            if let At::BodyPart(_, pattern) = entry.at {
                assert_eq!(Regex::new(pattern).unwrap().captures_len(), 2, "{pattern}");
            }
        }
    }

    #[test]
    fn the_references_sources_keep_their_order_in_the_recommended_one() {
        let place = |name: &&str| {
            BUILT_IN.iter().position(|group| group.name == *name && group.by_default).unwrap()
        };
        assert!(REFERENCE.iter().map(place).is_sorted());
    }
}
