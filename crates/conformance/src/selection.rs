//! Scripted selections: the real core over shared data in memory, in virtual time.
//!
//! The pool of a scenario changes during it. So each step has its own router, made from the pool at
//! that step, over the same shared data: as after an update of the configuration.

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::availability::Unready;
use session_affinity::binding::Binding;
use session_affinity::config::{Config, Credential};
use session_affinity::cooldown::{Observation, ReferenceState, ReferenceStates, WHOLE};
use session_affinity::hash::Seed;
use session_affinity::request::{Headers, Request};
use session_affinity::router::{Decision, Router};
use session_affinity::shared::{Cas, InMemory, SharedData};
use session_affinity::table::Entry;
use session_affinity::time::Timestamp;

use super::case;

/// When virtual time begins.
const BEGIN: Timestamp = Timestamp::from_secs(1_000_000);

/// Plays a scenario: its results must be the expected ones, or one of several such lists.
pub(super) fn check(case: &Value) -> (String, Result<(), String>) {
    let result = play(case).and_then(|results| compare(case, &results));
    (case::text(case, "group").to_owned(), result)
}

fn play(case: &Value) -> Result<Vec<Value>, String> {
    let mut world = World::new(&case["config"]);
    for auth in elements(&case["auths"]) {
        world.add(auth)?;
    }
    elements(&case["steps"]).iter().map(|step| world.step(step)).collect()
}

fn compare(case: &Value, results: &[Value]) -> Result<(), String> {
    let any_of = match case["expect_any_of"].as_array() {
        Some(lists) => lists.clone(),
        None => vec![case["expect"].clone()],
    };
    if any_of.iter().any(|expected| all_match(elements(expected), results)) {
        return Ok(());
    }
    let first = elements(any_of.first().unwrap_or(&Value::Null));
    let at = first
        .iter()
        .zip(results)
        .position(|(expected, result)| !matches(expected, result))
        .unwrap_or(first.len());
    let [expected, result] = [first, results].map(|list| list.get(at).unwrap_or(&Value::Null));
    Err(format!("step {at}: expected {expected}, got {result}"))
}

fn all_match(expected: &[Value], results: &[Value]) -> bool {
    expected.len() == results.len()
        && expected.iter().zip(results).all(|(expected, result)| matches(expected, result))
}

/// Whether a result is as expected. Of states, only the expected fields count, and not `status`, a
/// word of the reference without any effect.
fn matches(expected: &Value, result: &Value) -> bool {
    match result.get("auth_state") {
        Some(_) => ["model_state", "auth_state"]
            .iter()
            .all(|name| state_matches(&expected[name], &result[name])),
        None => expected == result,
    }
}

fn state_matches(expected: &Value, state: &Value) -> bool {
    let mut fields = expected.as_object().into_iter().flatten();
    fields.all(|(field, value)| field == "status" || state[field] == *value)
}

fn contains(list: &Value, id: &str) -> bool {
    elements(list).iter().any(|listed| listed == id)
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

struct World {
    config: Value,
    auths: Vec<Value>,
    shared: InMemory,
    now: Timestamp,
}

impl World {
    fn new(config: &Value) -> Self {
        Self { config: config.clone(), auths: Vec::new(), shared: InMemory::default(), now: BEGIN }
    }

    fn step(&mut self, step: &Value) -> Result<Value, String> {
        let id = case::text(step, "id");
        match case::text(step, "op") {
            "pick" => return self.pick(step),
            "result" => return self.result(step),
            "advance" => {
                self.now += Duration::from_millis(step["ms"].as_u64().ok_or("advance without ms")?);
            }
            "add_auth" => self.add(&step["auth"])?,
            "set_auth" => self.set(&step["auth"])?,
            "remove_auth" => self.auths.retain(|auth| auth["id"] != id),
            "invalidate_auth" => {
                let router = self.router("")?;
                if let Some(credential) = find(&router, id) {
                    let id = credential.fingerprint;
                    self.retain(&router, |binding| binding.home.credential != id);
                }
            }
            "cleanup" => {
                let router = self.router("")?;
                let ttl = router.config().routing.ttl;
                let left = self.retain(&router, |binding| self.now <= binding.used + ttl);
                return Ok(json!({"cache_entries": left}));
            }
            other => return Err(format!("unknown step {other:?}")),
        }
        Ok(json!({}))
    }

    fn pick(&self, step: &Value) -> Result<Value, String> {
        // The configuration of this step has only the candidates.
        let router = self.router_of(case::text(step, "provider"), |id| {
            !contains(&step["exclude"], id)
                && (!step["only"].is_array() || contains(&step["only"], id))
        })?;
        let mut headers: Vec<(String, Vec<u8>)> =
            vec![(":path".into(), path_for(case::text(step, "model")).into())];
        headers.extend(
            case::headers(step).iter().map(|(name, value)| (name.to_owned(), value.to_vec())),
        );
        if step["websocket"] == true {
            headers.push(("upgrade".into(), "websocket".into()));
        }
        let headers: Headers = headers.into_iter().collect();
        let body = router.read_body(case::text(step, "body").as_bytes());
        let request = Request::new(&headers, body);
        let decision = router.route(&request, &self.shared, self.now);
        let mut result = match &decision {
            Decision::Route(route) => json!({"auth": self.auth_of(&route.credential.id)}),
            Decision::Reply(refusal) => json!({"error": error(refusal.unready, &refusal.reply)}),
            Decision::Pass => return Err("no pool serves the request".to_owned()),
        };
        if self.config["session_affinity"] == true {
            if let Decision::Route(route) = &decision {
                result["event"] = json!(route.outcome.as_str());
            }
            if let Some(session) = router.config().session.sources.identify(&request) {
                result["session"] = json!(String::from_utf8_lossy(&session.primary));
            }
        }
        Ok(result)
    }

    fn result(&self, step: &Value) -> Result<Value, String> {
        let router = self.router("")?;
        let (id, model) = (case::text(step, "id"), case::text(step, "model"));
        let Some(credential) = find(&router, id) else {
            return Ok(json!({"model_state": null, "auth_state": null}));
        };
        let status =
            if step["success"] == true { 200 } else { step["status"].as_u64().unwrap_or(0) as u16 };
        let observation = Observation {
            status,
            message: case::text(step, "message").to_owned(),
            wait: step["retry_after_ms"].as_u64().map(Duration::from_millis),
        };
        router.reference_cooldowns().learn(&self.shared, credential, model, &observation, self.now);
        let states = ReferenceStates::decode(&self.shared.get(&credential.cooldown_key).value);
        let of_model = if model.is_empty() {
            None
        } else {
            states.get(router.reference_cooldowns().model_key(model))
        };
        let of_auth = states.get(WHOLE).unwrap_or_default();
        Ok(
            json!({"model_state": of_model.map(|state| self.shown(state)), "auth_state": self.shown(of_auth)}),
        )
    }

    /// Drops the bindings that are not to be kept, and counts the others. The filter itself never
    /// walks its table: entries expire when they are read.
    fn retain(&self, router: &Router, keep: impl Fn(&Binding) -> bool) -> usize {
        let mut left = 0;
        for key in router.bindings().keys() {
            let stored = self.shared.get(&key);
            let mut entries = Entry::decode_row(&stored.value);
            entries.retain(|entry| keep(&Binding::from(*entry)));
            left += entries.len();
            if !stored.value.is_empty() {
                let _alone = self.shared.set(&key, &Entry::encode_row(&entries), stored.cas);
            }
        }
        left
    }

    fn shown(&self, state: ReferenceState) -> Value {
        json!({
            "unavailable": state.unavailable,
            "retry_in_ms": state.retry_at.map(|time| self.until(time)),
            "quota_exceeded": state.exceeded,
            "quota_recover_in_ms": state.recover_at.map(|time| self.until(time)),
            "backoff_level": state.level,
        })
    }

    /// The milliseconds until a time, negative if it has passed.
    fn until(&self, time: Timestamp) -> i64 {
        time.as_millis().cast_signed() - self.now.as_millis().cast_signed()
    }

    /// The time that is this many milliseconds from now.
    fn at(&self, from_now: &Value) -> Option<Timestamp> {
        let millis = self.now.as_millis().saturating_add_signed(from_now.as_i64()?);
        Some(Timestamp::from_millis(millis))
    }

    fn auth_of(&self, id: &str) -> &Value {
        let auth = self.auths.iter().find(|auth| id_of(case::text(auth, "id")) == id);
        auth.map_or(&Value::Null, |auth| &auth["id"])
    }

    fn add(&mut self, auth: &Value) -> Result<(), String> {
        self.auths.retain(|known| known["id"] != auth["id"]);
        self.auths.push(auth.clone());
        self.write_states(auth, ReferenceStates::default())
    }

    fn set(&mut self, changed: &Value) -> Result<(), String> {
        let known = self
            .auths
            .iter_mut()
            .find(|auth| auth["id"] == changed["id"])
            .ok_or("set_auth of an unknown id")?;
        for (name, value) in changed.as_object().into_iter().flatten() {
            known[name] = value.clone();
        }
        let key = self.cooldown_key(case::text(changed, "id"))?;
        self.write_states(changed, ReferenceStates::decode(&self.shared.get(&key).value))
    }

    /// Writes the state that the description of a credential contains.
    fn write_states(&self, auth: &Value, mut states: ReferenceStates) -> Result<(), String> {
        let router = self.router("")?;
        if ["unavailable", "retry_in_ms", "quota"].iter().any(|name| !auth[name].is_null()) {
            states.set(WHOLE, self.state_of(auth), self.now);
        }
        for (model, state) in auth["model_states"].as_object().into_iter().flatten() {
            states.set(
                router.reference_cooldowns().model_key(model),
                self.state_of(state),
                self.now,
            );
        }
        let key = self.cooldown_key(case::text(auth, "id"))?;
        self.shared.set(&key, &states.encode(), Cas(0)).map_err(|refused| format!("{refused:?}"))
    }

    fn state_of(&self, value: &Value) -> ReferenceState {
        let quota = &value["quota"];
        ReferenceState {
            unavailable: value["unavailable"] == true,
            disabled: value["status"] == "disabled",
            retry_at: self.at(&value["retry_in_ms"]),
            exceeded: quota["exceeded"] == true,
            recover_at: self.at(&quota["recover_in_ms"]),
            level: quota["backoff_level"].as_u64().map_or(0, |level| level.min(255) as u8),
        }
    }

    fn cooldown_key(&self, id: &str) -> Result<String, String> {
        let router = self.router("")?;
        Ok(find(&router, id).ok_or_else(|| format!("no credential {id:?}"))?.cooldown_key.clone())
    }

    fn router(&self, provider: &str) -> Result<Router, String> {
        self.router_of(provider, |_| true)
    }

    /// A router whose pool has the credentials with these ids.
    fn router_of(
        &self,
        provider: &str,
        is_member: impl Fn(&str) -> bool,
    ) -> Result<Router, String> {
        let members = self.auths.iter().filter(|auth| is_member(case::text(auth, "id")));
        let mut credentials: Vec<_> = members.map(credential).collect();
        let is_empty = credentials.is_empty();
        if is_empty {
            // A pool needs a credential to be valid. This one is removed again.
            credentials.push(json!({"id": "placeholder", "cluster": "placeholder"}));
        }
        let mut routing = json!({
            "strategy": self.config["strategy"],
            "session_affinity": self.config["session_affinity"],
        });
        if let Some(ttl) = self.config["ttl_ms"].as_i64().filter(|ttl| *ttl > 0) {
            routing["session_affinity_ttl"] = json!(format!("{ttl}ms"));
        }
        if let Some(cap) = self.config["max_cursor_keys"].as_u64() {
            routing["max_rotations"] = json!(cap);
        }
        let config = json!({
            "profile": "reference",
            "disable_cooling": self.config["disable_cooling"] == true,
            "routing": routing,
            "pools": [{"name": "pool", "credentials": credentials}],
        });
        let mut config = Config::parse(config.to_string().as_bytes())
            .map_err(|problems| format!("{problems:?}"))?;
        if is_empty {
            config.pools[0].credentials.clear();
        }
        // A provider of the reference may be empty, that of a configuration may not.
        config.pools[0].provider = Some(provider.to_owned());
        // The model is that of the step, whatever the body contains.
        config.body.model = config.body.paths.add(["no member of any body"]);
        Ok(Router::new(config, Seed::agree(&self.shared, [7; 16])))
    }
}

fn find<'r>(router: &'r Router, id: &str) -> Option<&'r Credential> {
    router.config().pools[0].credentials.iter().find(|credential| credential.id == id_of(id))
}

/// A path that names a model, as with Azure: so the body need not.
fn path_for(model: &str) -> String {
    let encoded: String = model.bytes().map(|byte| format!("%{byte:02x}")).collect();
    match model {
        "" => "/v1/chat/completions".to_owned(),
        _ => format!("/openai/deployments/{encoded}/chat/completions"),
    }
}

/// An id for the configuration. Those of the reference may contain spaces; digits keep their order.
fn id_of(id: &str) -> String {
    id.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A credential of the configuration, from the reference's attributes and metadata.
fn credential(auth: &Value) -> Value {
    let (attributes, metadata) = (&auth["attributes"], &auth["metadata"]);
    let is_disabled = auth["disabled"] == true || auth["status"] == "disabled";
    let mut credential = json!({
        "id": id_of(case::text(auth, "id")),
        "cluster": "cluster",
        "websockets": go_bool(&attributes["websockets"]).or(go_bool(&metadata["websockets"])).unwrap_or(false),
        "state": if is_disabled { "disabled" } else { "active" },
    });
    for (name, attribute) in [("priority", "priority"), ("parent", "gemini_virtual_parent")] {
        if let Some(text) = attributes[attribute].as_str().filter(|text| !text.is_empty()) {
            credential[name] = json!(text);
        }
    }
    let disable_cooling =
        ["disable_cooling", "disable-cooling"].iter().find_map(|name| flag(&metadata[name]));
    if let Some(disable_cooling) = disable_cooling {
        credential["disable_cooling"] = json!(disable_cooling);
    }
    credential
}

/// Go's `strconv.ParseBool`, for a text or a boolean.
fn go_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.trim() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn flag(value: &Value) -> Option<bool> {
    value.as_f64().map(|number| number != 0.0).or(go_bool(value))
}

fn error(unready: Unready, reply: &session_affinity::reply::LocalReply) -> Value {
    match unready {
        Unready::RateLimited(_) => json!({
            "code": "model_cooldown",
            "http_status": reply.status,
            "retry_after": reply.retry_after.unwrap_or(0).to_string(),
            "body": serde_json::from_str::<Value>(&reply.body).unwrap_or(Value::Null),
        }),
        Unready::Unavailable(_) => {
            json!({"code": "auth_unavailable", "message": "no auth available", "http_status": reply.status})
        }
        Unready::NotFound => {
            json!({"code": "auth_not_found", "message": "no auth candidates", "http_status": reply.status})
        }
    }
}
