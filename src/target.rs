//! What a request is for: its pool, and its model.

use crate::config::{Match, Pool};
use crate::request::Request;

/// The pool that serves a request, and the model it asks for.
#[derive(Clone, Debug)]
pub struct Target<'c> {
    /// The first pool of the configuration that the request matches.
    pub pool: &'c Pool,
    /// The model as the client wrote it; empty if it did not, or if the body was not read.
    pub model: String,
}

impl<'c> Target<'c> {
    /// Finds the pool of a request; `None` if no pool serves it.
    pub fn of(request: &Request<'_>, pools: &'c [Pool]) -> Option<Self> {
        let model = model_of(request);
        let pool = pools.iter().find(|pool| serves(&pool.matches, request, &model))?;
        Some(Self { pool, model })
    }

    /// The model without a suffix in parentheses: `m(high)` and `m(16384)` are the model `m` with other settings, on the
    /// same prompt cache.
    pub fn canonical_model(&self) -> &str {
        let model = self.model.trim();
        match model.strip_suffix(')').and_then(|rest| rest.rfind('(')) {
            Some(suffix) => model.get(..suffix).map(str::trim).filter(|base| !base.is_empty()).unwrap_or(model),
            None => model,
        }
    }
}

/// The model in the body, or in the path as Gemini has it: `/v1beta/models/<model>:generateContent`.
fn model_of(request: &Request<'_>) -> String {
    let in_body = request.body.model.map(|value| String::from_utf8_lossy(&value.text()).into_owned());
    let in_path = || {
        let (_, after) = request.path().rsplit_once("/models/")?;
        let (model, _verb) = after.split_once(':')?;
        Some(model.to_owned())
    };
    in_body.filter(|model| !model.is_empty()).or_else(in_path).unwrap_or_default()
}

fn serves(matches: &Match, request: &Request<'_>, model: &str) -> bool {
    let path = request.path();
    let host = request.host().to_ascii_lowercase();
    let header = |(name, value): &(String, Option<String>)| match (request.headers.first(name), value) {
        (Some(sent), Some(value)) => sent == value.as_bytes(),
        (sent, None) => sent.is_some(),
        (None, Some(_)) => false,
    };
    any_or_none_given(&matches.path_prefixes, |prefix| path.starts_with(prefix.as_str()))
        && any_or_none_given(&matches.hosts, |pattern| is_host(pattern, &host))
        && any_or_none_given(&matches.models, |pattern| pattern.is_match(model))
        && matches.headers.iter().all(header)
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
