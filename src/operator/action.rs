//! What an operator can do.
//!
//! | action | what it means |
//! |---|---|
//! | `drain` | the credential takes no new session for a time, as with `state: drain` |
//! | `release` | the credential gets no request for a time, as with `state: disabled`: its sessions get new homes |
//! | `activate` | ends either |
//! | `clear` | ends a cooldown, or all of the credential |
//! | forget | a session loses its binding, and is placed anew by its next request |

use std::time::Duration;

use serde_json::{Map, Value};

use super::Reply;
use super::changes::{self, Entry, What};
use super::json::{Json, hex};
use crate::api::Api;
use crate::config::{Availability, Credential, Pool, Profile};
use crate::cooldown::{LONGEST_OVERRIDE, Override, Wish};
use crate::hash::KeyHash;
use crate::router::Router;
use crate::shared::SharedData;
use crate::target::canonical;
use crate::time::Timestamp;

/// For so long an override lasts if the operator does not say.
const DEFAULT_MINUTES: u64 = 60;

const LONGEST_MINUTES: u64 = LONGEST_OVERRIDE.as_secs() / 60;

/// A credential and its pool.
pub(super) type Named<'c> = (&'c Pool, &'c Credential);

pub(super) fn is_known(action: &str) -> bool {
    matches!(action, "drain" | "release" | "activate" | "clear")
}

/// The credential of a path; both of its parts are percent-encoded.
pub(super) fn credential<'c>(router: &'c Router, pool: &str, id: &str) -> Option<Named<'c>> {
    let (pool, id) = (decoded(pool)?, decoded(id)?);
    let pool = router.config().pools.iter().find(|it| it.name.as_bytes() == pool)?;
    let credential = pool.credentials.iter().find(|it| it.id.as_bytes() == id)?;
    Some((pool, credential))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

/// Does something to a credential.
pub(super) fn act(
    router: &Router,
    (pool, credential): Named<'_>,
    action: &str,
    body: &[u8],
    shared: &impl SharedData,
    now: Timestamp,
) -> Result<Reply, Reply> {
    if router.config().profile == Profile::Reference {
        return Err(Reply::error(409, "the profile reference has no actions on credentials"));
    }
    let fields = Fields::read(body)?;
    let mut until = Timestamp::EPOCH;
    let (what, wish) = match action {
        "clear" => (What::Cleared, Wish::Clear(fields.tag("block")?)),
        "activate" => (What::Activated, Wish::Override(None)),
        _ => {
            until = now + fields.minutes()?;
            let (what, availability) = match action {
                "drain" => (What::Drained, Availability::Drain),
                _ => (What::Released, Availability::Disabled),
            };
            (what, Wish::Override(Some(Override { availability, until })))
        }
    };
    fields.finish(&["block", "minutes"])?;
    let updated = router.cooldowns().operate(shared, credential, wish, now);
    if !updated.written {
        return Err(Reply::error(503, "other workers wrote at the same time: try again"));
    }
    let changed = updated.result;
    if changed > 0 {
        let entry = Entry::of_operator(what, until, now);
        let (pool, credential) = (pool.fingerprint, credential.fingerprint);
        changes::note(shared, Entry { pool, credential, ..entry });
    }
    let minutes = (until.since(now).as_secs() / 60).to_string();
    let done = [
        "operator: what=",
        what.as_str(),
        " pool=",
        &pool.name,
        " credential=",
        &credential.id,
        " minutes=",
        &minutes,
    ];
    Ok(Reply::done(changed_json(changed), done.concat()))
}

/// Forgets a session: by the digits that the access log shows, or by its id.
pub(super) fn forget(
    router: &Router,
    body: &[u8],
    shared: &impl SharedData,
    now: Timestamp,
) -> Result<Reply, Reply> {
    let fields = Fields::read(body)?;
    let tag = fields.tag("session")?;
    let (id, model) = (fields.text("id")?, fields.text("model")?);
    fields.finish(&["session", "id", "model"])?;
    let keys = match (tag, id) {
        (Some(tag), None) => keys_of_tag(router, tag, shared),
        (None, Some(id)) => keys_of_id(router, id, model.unwrap_or_default()),
        _ => return Err(Reply::error(400, "expected either `session` or `id`")),
    };
    let (mut forgotten, mut digits) = (0, String::new());
    for key in keys {
        if router.bindings().forget(shared, key, now).result {
            forgotten += 1;
            digits = hex(key.tag());
        }
    }
    if forgotten == 0 {
        return Err(Reply::error(
            404,
            "no such session is bound; beside an id, name the model too",
        ));
    }
    changes::note(shared, Entry::of_operator(What::Forgotten, Timestamp::EPOCH, now));
    let done = ["operator: what=forgotten session=", &digits].concat();
    Ok(Reply::done(changed_json(forgotten), done))
}

fn changed_json(number: u64) -> Json {
    let mut json = Json::default();
    json.open('{').key("changed").number(number).close('}');
    json
}

/// The keys in the table that end with these digits.
fn keys_of_tag(router: &Router, tag: u32, shared: &impl SharedData) -> Vec<KeyHash> {
    let (table, mut keys) = (router.bindings().table(), Vec::new());
    for row in 0..table.rows() {
        for entry in table.row(shared, row) {
            if entry.key.tag() == tag {
                keys.push(entry.key);
            }
        }
    }
    keys
}

/// Every key that an id may have without a tenant: in any pool, by any source, with this model or
/// for all.
fn keys_of_id(router: &Router, id: &str, model: &str) -> Vec<KeyHash> {
    let config = router.config();
    let models = ["", canonical(model)];
    let models = models.into_iter().take(1 + usize::from(!model.is_empty()));
    let mut keys = Vec::new();
    for pool in &config.pools {
        let providers = match &pool.provider {
            Some(provider) => vec![provider.as_str()],
            None => Api::ALL.map(Api::as_str).to_vec(),
        };
        for provider in providers {
            for word in config.session.sources.words() {
                let id = [word, ":", id].concat();
                for model in models.clone() {
                    let id = id.as_bytes();
                    keys.push(router.seed.session(&pool.name, None, provider, id, model));
                }
            }
        }
    }
    keys
}

/// The members of a body.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Reply> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            _ => Err(Reply::error(400, "expected a JSON object")),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Reply> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(Reply::error(400, "expected a string that is not empty")),
        }
    }

    fn tag(&self, name: &str) -> Result<Option<u32>, Reply> {
        let wrong = || Reply::error(400, "expected eight hexadecimal digits");
        let Some(text) = self.text(name)? else { return Ok(None) };
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u32::from_str_radix(text, 16).map(Some).map_err(|_| wrong())
    }

    fn minutes(&self) -> Result<Duration, Reply> {
        let minutes = self.0.get("minutes").map_or(Some(DEFAULT_MINUTES), Value::as_u64);
        match minutes {
            Some(minutes @ 1..=LONGEST_MINUTES) => Ok(Duration::from_mins(minutes)),
            _ => Err(Reply::error(400, "expected 1 to 1440 minutes")),
        }
    }

    fn finish(&self, known: &[&str]) -> Result<(), Reply> {
        match self.0.keys().all(|key| known.contains(&key.as_str())) {
            true => Ok(()),
            false => Err(Reply::error(400, "there is an unknown key")),
        }
    }
}
