//! Which session a request belongs to.
//!
//! Clients name their session in different places. The places are an ordered list of
//! [`Source`]s, and the first that says something decides. The profile `recommended` knows the
//! places of some thirty clients (the module `built_in`), the profile `reference` the six of the
//! reference; an operator can give a list of his own.
//!
//! Last in the list is a hash of the first messages, for clients that send no id. Only this id
//! changes as a session grows, and only once: the first turn has no assistant text yet. So it
//! comes with a fallback, the hash without that text, under which the first turn was bound. The
//! only other fallback is that of `prompt_cache_key`: the conversation id, which some clients send
//! without the key at first.

mod built_in;
mod claude;
mod id;
mod message_hash;
mod source;
mod tenant;

use std::fmt;

pub use message_hash::hash as message_hash;
pub use source::{Rules, Source, SourceLocation};
pub use tenant::{ScopePart, ScopeSource, lacks_required, tenant_scope};

use crate::api::Api;
use crate::body::{Body, Paths};
use crate::request::{Headers, Request};
use message_hash::MessagePaths;

/// The places to look at, in their order.
#[derive(Clone, Debug)]
pub struct Sources {
    list: Vec<Source>,
    rules: Rules,
    messages: MessagePaths,
}

impl Sources {
    /// The sources of the profile `recommended`.
    pub fn recommended(paths: &mut Paths) -> Self {
        let groups = built_in::BUILT_IN.iter().filter(|group| group.by_default);
        let list = groups.flat_map(|group| group.sources(paths).collect::<Vec<_>>()).collect();
        Self::new(list, Rules::Recommended, paths)
    }

    /// The sources of the profile `reference`.
    pub fn reference(paths: &mut Paths) -> Self {
        let list = built_in::REFERENCE
            .iter()
            .flat_map(|name| Self::named(name, paths).unwrap_or_default())
            .collect();
        Self::new(list, Rules::Reference, paths)
    }

    /// A list of sources.
    pub fn new(list: Vec<Source>, rules: Rules, paths: &mut Paths) -> Self {
        Self { list, rules, messages: MessagePaths::new(paths) }
    }

    /// The built-in sources of a name; `None` if there is no such name.
    pub fn named(name: &str, paths: &mut Paths) -> Option<Vec<Source>> {
        let group = built_in::BUILT_IN.iter().find(|group| group.name == name)?;
        Some(group.sources(paths).collect())
    }

    /// The names of the built-in sources.
    pub fn names() -> impl Iterator<Item = &'static str> {
        built_in::BUILT_IN.iter().map(|group| group.name)
    }

    /// The session of a request; `None` if nothing in it names one.
    pub fn identify(&self, request: &Request<'_>) -> Option<Session<'_>> {
        self.list.iter().enumerate().find_map(|(at, source)| {
            if source.location == SourceLocation::MessageHash {
                return self.hashed(&source.name, request);
            }
            let id = source.id(request, self.rules)?;
            let fallback =
                if source.name == "pck" { self.conversation_behind(at, request) } else { None };
            Some(Session { source: &source.name, primary: prefixed(&source.name, &id), fallback })
        })
    }

    /// Whether these headers settle which session it is, whatever the body says. A source in the
    /// body overrules the headers behind it; but Claude Code's field only in an API that Claude
    /// Code speaks.
    pub fn are_settled_by(&self, headers: &Headers, api: Api) -> bool {
        let request = Request::new(headers, Body::default());
        for source in &self.list {
            match source.location {
                SourceLocation::Header(_) if source.id(&request, self.rules).is_some() => {
                    return true;
                }
                SourceLocation::Header(_) => {}
                SourceLocation::Claude(_)
                    if !api.is_claudes() && self.rules == Rules::Recommended => {}
                SourceLocation::Claude(_)
                | SourceLocation::Body(_)
                | SourceLocation::MessageHash => return false,
            }
        }
        true
    }

    fn hashed<'s>(&self, source: &'s str, request: &Request<'_>) -> Option<Session<'s>> {
        let (id, fallback) = self.messages.first_texts(&request.body, self.rules).hashes()?;
        let primary = prefixed(source, id.as_bytes());
        let fallback = fallback.map(|id| prefixed(source, id.as_bytes()));
        Some(Session { source, primary, fallback })
    }

    /// The first conversation id that the sources behind this one find.
    fn conversation_behind(&self, at: usize, request: &Request<'_>) -> Option<Vec<u8>> {
        let behind = self.list.iter().skip(at + 1).filter(|source| source.name == "conv");
        let (source, id) =
            behind.filter_map(|source| Some((source, source.id(request, self.rules)?))).next()?;
        Some(prefixed(&source.name, &id))
    }
}

fn prefixed(prefix: &str, id: &[u8]) -> Vec<u8> {
    [prefix.as_bytes(), b":", id].concat()
}

/// The identity of a session. It cannot be printed: ids belong to clients and reach no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Session<'s> {
    /// The word for where it was found.
    pub source: &'s str,
    /// The id with its prefix: what a binding is kept under.
    pub primary: Vec<u8>,
    /// The id under which an earlier turn of the same session may have been bound.
    pub fallback: Option<Vec<u8>>,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("source", &self.source).finish_non_exhaustive()
    }
}
