//! What a request is for: its pool, its provider and its model.

use std::borrow::Cow;

use crate::api::{Api, model_in_path, percent_decoded};
use crate::config::{Config, Match, Pool, Profile};
use crate::json::Value;
use crate::operation::Operation;
use crate::request::{Headers, Request};
use crate::steps;

/// Bytes of a model's name that count. No real name is this long, but a client may send one, and
/// the name goes into replies and plans.
const LONGEST_MODEL: usize = 512;

/// What a request is for.
#[derive(Clone, Debug)]
pub struct Target<'c> {
    /// The first pool of the configuration that the request matches.
    pub pool: &'c Pool,
    /// The provider of the pool, or what path and host tell.
    pub provider: &'c str,
    /// The API that the client speaks.
    pub api: Api,
    /// What is asked for.
    pub operation: Operation,
    /// The model as the client wrote it, at most 512 bytes of it; empty if it did not, or if the
    /// body was not read.
    pub model: String,
    /// The model without a suffix in parentheses: `m(high)` and `m(16384)` are the model `m` with
    /// other settings, on the same quota and the same prompt cache.
    pub canonical_model: String,
}

impl<'c> Target<'c> {
    /// Finds the pool of a request; `None` if no pool serves it.
    pub fn of(request: &Request<'_>, config: &'c Config) -> Option<Self> {
        let headers = request.headers;
        let asked = Asked::of(headers)?;
        let model = model_of(request, config);
        let pool = config.pools.iter().find(|pool| {
            asked.ways_into(pool).any(|it| it.is_none_or(|it| names_model(it, &model)))
        })?;
        Some(Self::for_request(&asked, pool, model))
    }

    /// What a request is for that names state and no model: a pool that is given, or the first one
    /// that it matches but for the model.
    pub fn whatever_model(
        request: &Request<'_>,
        config: &'c Config,
        pool: Option<&'c Pool>,
    ) -> Option<Self> {
        let asked = Asked::of(request.headers)?;
        let mut pools = config.pools.iter().filter(|pool| asked.ways_into(pool).next().is_some());
        let pool = match pool {
            Some(given) => pools.find(|pool| pool.fingerprint == given.fingerprint)?,
            None => pools.next()?,
        };
        Some(Self::for_request(&asked, pool, String::new()))
    }

    fn for_request(asked: &Asked<'_>, pool: &'c Pool, model: String) -> Self {
        let api = Api::of(asked.path, &asked.host);
        let operation = Operation::of(asked.method, asked.path, asked.is_upgrade);
        Self::new(pool, api, operation, model)
    }

    /// A request whose pool, API and model are known.
    pub fn new(pool: &'c Pool, api: Api, operation: Operation, model: String) -> Self {
        Self {
            pool,
            provider: pool.provider.as_deref().unwrap_or(api.as_str()),
            api,
            operation,
            canonical_model: canonical(&model).to_owned(),
            model,
        }
    }
}

/// What a cooldown may cover: the model and the operation of a request.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The model without a suffix in parentheses; empty if it is not known.
    pub model: &'a str,
    pub operation: Operation,
}

impl Target<'_> {
    /// What a cooldown may cover.
    pub fn subject(&self) -> Subject<'_> {
        Subject { model: &self.canonical_model, operation: self.operation }
    }
}

/// The model of a request; empty if it is not known.
fn model_of(request: &Request<'_>, config: &Config) -> String {
    let mut model = match model_in_path(request.headers.path()) {
        Some(model) => model,
        // Of two models providers read the last, the reference the first: neither is certain.
        None if config.profile == Profile::Recommended
            && request.body.is_repeated(config.body.model) =>
        {
            String::new()
        }
        None => request.body.get(config.body.model).map(text).unwrap_or_default(),
    };
    model.truncate(model.floor_char_boundary(LONGEST_MODEL));
    model
}

fn text(value: Value<'_>) -> String {
    // A cut in a character is behind what is kept.
    let text = value.text_up_to(LONGEST_MODEL + 4);
    let near = text.get(..LONGEST_MODEL + 4).unwrap_or(&text);
    String::from_utf8_lossy(near).into_owned()
}

/// A model without a suffix in parentheses.
pub fn canonical(model: &str) -> &str {
    let model = model.trim();
    let base = model.strip_suffix(')').and_then(|rest| Some(rest.rsplit_once('(')?.0.trim()));
    base.filter(|base| !base.is_empty()).unwrap_or(model)
}

/// What headers alone tell of the pool that serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// None does, whatever the body says.
    NoPool,
    /// It is settled.
    Pool,
    /// It depends on the model, and only the body can tell that.
    PoolOfModel,
}

impl Knowledge {
    /// What these headers tell.
    pub fn of(headers: &Headers, pools: &[Pool]) -> Self {
        let Some(asked) = Asked::of(headers) else {
            return Self::NoPool;
        };
        let mut serving = pools.iter().map(|pool| asked.ways_into(pool)).filter_map(|mut ways| {
            let first = ways.next()?;
            Some(ways.chain([first]).any(|way| way.is_none_or(|it| it.models.is_empty())))
        });
        match serving.next() {
            None => Self::NoPool,
            Some(is_any_model) if is_any_model || model_in_path(headers.path()).is_some() => {
                Self::Pool
            }
            Some(_) => Self::PoolOfModel,
        }
    }
}

/// What of a request's headers decides on its pool, read once.
struct Asked<'a> {
    headers: &'a Headers,
    host: String,
    path: &'a str,
    method: &'a str,
    is_upgrade: bool,
}

impl<'a> Asked<'a> {
    /// `None` for what no pool may serve: what only asks for an echo or a tunnel, or has a path that
    /// leads elsewhere.
    fn of(headers: &'a Headers) -> Option<Self> {
        let (path, method) = (headers.path(), headers.text(":method"));
        let is_upgrade = headers.ask_for_websocket();
        let is_tunnel = matches!(method, "TRACE" | "CONNECT") && !is_upgrade;
        let is_servable = !is_tunnel && !has_dot_segment(path);
        is_servable.then(|| Self { headers, host: headers.host(), path, method, is_upgrade })
    }

    /// The ways in which a pool serves the request, whatever its model; one that asks for nothing is
    /// `None`.
    fn ways_into<'c>(&self, pool: &'c Pool) -> impl Iterator<Item = Option<&'c Match>> {
        let any = pool.matches.is_empty().then_some(None);
        let ways = pool.matches.iter().filter(|matches| self.meets(matches));
        any.into_iter().chain(ways.map(Some))
    }

    fn meets(&self, matches: &Match) -> bool {
        any_or_none_given(&matches.path_prefixes, |prefix| has_prefix(self.path, prefix))
            && (self.is_upgrade
                || self.method.is_empty()
                || any_or_none_given(&matches.methods, |it| it == self.method))
            && any_or_none_given(&matches.hosts, |pattern| is_host(pattern, &self.host))
            && matches.headers.iter().all(|(name, value)| match (self.headers.first(name), value) {
                (Some(sent), Some(value)) => sent == value.as_bytes(),
                (sent, None) => sent.is_some(),
                (None, Some(_)) => false,
            })
    }
}

/// Whether a path begins with a prefix, as whole segments. Behind a prefix that ends with a slash
/// something has to follow.
fn has_prefix(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) if prefix.len() > 1 && prefix.ends_with('/') => {
            rest.bytes().any(|byte| byte != b'/') && !is_slashes(rest)
        }
        Some(rest) => rest.is_empty() || rest.starts_with('/') || prefix.ends_with(is_separator),
        None => false,
    }
}

/// Whether a text is nothing but slashes, for a provider that undoes escapes before it looks for them.
#[inline(never)]
fn is_slashes(text: &str) -> bool {
    memchr::memchr(b'%', text.as_bytes()).is_some()
        && percent_decoded(text).split(SLASHES).all(str::is_empty)
}

/// What separates segments, for some server.
const SLASHES: [char; 2] = ['/', '\\'];

/// Characters after which a segment may go on.
fn is_separator(character: char) -> bool {
    !character.is_ascii_alphanumeric()
}

/// Whether a path leads out of where it seems to be, for an upstream that resolves it.
fn has_dot_segment(path: &str) -> bool {
    steps::count(path.len());
    if memchr::memchr2(b'.', b'%', path.as_bytes()).is_none() {
        return false;
    }
    let mut path = Cow::Borrowed(path);
    // Some undo escapes twice.
    for _ in 0..2 {
        if memchr::memchr(b'%', path.as_bytes()).is_some() {
            path = Cow::Owned(percent_decoded(&path));
        }
    }
    // Some servers take off what stands behind a semicolon.
    let mut segments = path.split(SLASHES).filter_map(|segment| segment.split(';').next());
    segments.any(|segment| matches!(segment, "." | ".."))
}

fn names_model(matches: &Match, model: &str) -> bool {
    any_or_none_given(&matches.models, |pattern| pattern.is_match(model))
}

fn any_or_none_given<T>(given: &[T], meets: impl Fn(&T) -> bool) -> bool {
    given.is_empty() || given.iter().any(meets)
}

fn is_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(ending) => host.len() > ending.len() && host.ends_with(ending),
        None => host == pattern,
    }
}
