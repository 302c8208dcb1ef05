//! Which session a request belongs to.
//!
//! Clients name their session in different places. The places are an ordered list of
//! [`Source`]s, and the first that says something decides. The profile `recommended` knows the
//! places of some thirty clients (the module `built_in`), the profile `reference` the six of the
//! reference; an operator can give a list of his own.
//!
//! Last in the list is a hash of how the conversation was opened, for clients that send no id. In
//! the profile `recommended` a request may have several of them, of which the shared data decides
//! (the module `opening`). In the profile `reference` the hash changes once, because the first turn
//! has no assistant text yet; so it comes with a fallback, the hash without that text, under which
//! the first turn was bound. The only other fallback is that of `prompt_cache_key`: the
//! conversation id, which some clients send without the key at first.
//!
//! A stream whose body is never read, a WebSocket, may have no id at all: it goes by its caller
//! (the module `caller`). Sub-agents use the session of their parent, and say who they are beside
//! it (the module `subagent`).

mod built_in;
mod caller;
mod claude;
mod id;
mod message_hash;
mod opening;
mod part;
mod source;
mod subagent;
mod tenant;
mod typed;

use std::fmt;

pub use caller::caller;
pub use message_hash::hash as message_hash;
pub use source::{Rules, Source, SourceLocation};
pub use subagent::Subagents;
pub use tenant::{ScopePart, ScopeSource, lacks_required, tenant_scope};

use crate::api::Api;
use crate::body::{Body, Paths};
use crate::request::{Headers, Request};
use message_hash::MessagePaths;
use opening::OpeningPaths;

/// Whether a session of that id is bound.
pub type IsBound<'f> = dyn Fn(&[u8]) -> bool + 'f;

/// The places to look at, in their order.
#[derive(Clone, Debug)]
pub struct Sources {
    list: Vec<Source>,
    rules: Rules,
    subagents: Subagents,
    messages: MessagePaths,
    opening: OpeningPaths,
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
        Self {
            list,
            rules,
            subagents: Subagents::default(),
            messages: MessagePaths::new(paths),
            opening: OpeningPaths::new(paths),
        }
    }

    /// The same sources with another way to treat sub-agents.
    pub fn with_subagents(self, subagents: Subagents) -> Self {
        Self { subagents, ..self }
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

    /// The words for the places, which are the prefixes of the ids.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|source| source.name.as_ref())
    }

    /// The session of a request; `None` if nothing in it names one.
    pub fn identify(&self, request: &Request<'_>) -> Option<Session<'_>> {
        self.list.iter().enumerate().find_map(|(at, source)| {
            if source.location == SourceLocation::MessageHash {
                return self.hashed(&source.name, request);
            }
            let mut id = source.id(request, self.rules)?;
            let mut agent = None;
            if self.rules == Rules::Recommended {
                match self.subagents {
                    Subagents::Own => agent = subagent::agent(request.headers),
                    Subagents::Parent => id = subagent::parent(source, request).unwrap_or(id),
                }
            }
            let fallback =
                if source.name == "pck" { self.conversation_behind(at, request) } else { None };
            let primary = prefixed(&source.name, &id);
            Some(Session { agent, ..Session::new(&source.name, primary, fallback) })
        })
    }

    /// The session of a request under the id that it is bound under. Where a hash identifies it,
    /// there may be several: the first counts that is bound, or else the last. Where `is_bound` is
    /// `None`, bindings do not matter: every Envoy has to find the same.
    pub fn identify_bound(
        &self,
        request: &Request<'_>,
        is_bound: Option<&IsBound<'_>>,
    ) -> Option<Session<'_>> {
        let session = self.identify(request)?;
        if !session.is_first_of_several || is_bound.is_some_and(|it| it(&session.primary)) {
            return Some(session);
        }
        let ids = self.opening.ids(request);
        let mut primary = session.primary;
        match is_bound {
            Some(is_bound) => {
                for id in ids.all {
                    primary = prefixed(session.source, id.as_bytes());
                    if is_bound(&primary) {
                        break;
                    }
                }
            }
            None => primary = prefixed(session.source, ids.of_question()?.as_bytes()),
        }
        Some(Session { primary, ..session })
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

    #[inline(never)]
    fn hashed<'s>(&self, source: &'s str, request: &Request<'_>) -> Option<Session<'s>> {
        match self.rules {
            Rules::Recommended if self.opening.is_continued(&request.body) => None,
            Rules::Recommended => {
                let id = self.opening.first_id(request)?;
                let session = Session::new(source, prefixed(source, id.as_bytes()), None);
                Some(Session { is_first_of_several: true, ..session })
            }
            Rules::Reference => {
                let (id, fallback) = self.messages.first_texts(&request.body).hashes()?;
                let fallback = fallback.map(|id| prefixed(source, id.as_bytes()));
                Some(Session::new(source, prefixed(source, id.as_bytes()), fallback))
            }
        }
    }

    /// The first conversation id that the sources behind this one find.
    fn conversation_behind(&self, at: usize, request: &Request<'_>) -> Option<Vec<u8>> {
        let behind = self.list.iter().skip(at + 1).filter(|source| source.name == "conv");
        let (source, id) =
            behind.filter_map(|source| Some((source, source.id(request, self.rules)?))).next()?;
        Some(prefixed(&source.name, &id))
    }
}

#[inline(never)]
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
    /// The sub-agent that has a binding of its own in this session.
    pub agent: Option<Vec<u8>>,
    is_first_of_several: bool,
}

impl<'s> Session<'s> {
    /// A session that has one id, and perhaps a fallback.
    pub fn new(source: &'s str, primary: Vec<u8>, fallback: Option<Vec<u8>>) -> Self {
        Self { source, primary, fallback, agent: None, is_first_of_several: false }
    }

    /// The same session with its sub-agent as a part of its ids.
    #[must_use]
    pub fn of_agent(mut self) -> Self {
        if let Some(agent) = self.agent.take() {
            for id in [Some(&mut self.primary), self.fallback.as_mut()].into_iter().flatten() {
                // No id holds a zero byte.
                id.push(0);
                id.extend_from_slice(&agent);
            }
        }
        self
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("source", &self.source).finish_non_exhaustive()
    }
}
