//! Scripted selections: the real core over shared data in memory, in virtual time.
//!
//! A scenario's pool of credentials changes as it goes on. Each step is therefore decided by a
//! router of its own, made from the pool as it is then, over the same shared data: as after an
//! update of the configuration.

use serde_json::{Value, json};
use session_affinity::availability::Unready;
use session_affinity::config::{Config, Credential};
use session_affinity::cooldown::{Observation, State, States, WHOLE};
use session_affinity::hash::Seed;
use session_affinity::request::{Headers, Request};
use session_affinity::route::{Decision, Router};
use session_affinity::shared::{Cas, InMemory, SharedData};

use super::case;

/// When virtual time begins, in milliseconds.
const BEGIN: u64 = 1_000_000_000;

/// Plays a scenario: its results must be those expected, or one of the lists that are.
pub(super) fn check(case: &Value) -> Vec<(String, Result<(), String>)> {
    let result = play(case).and_then(|results| compare(case, &results));
    vec![(case::text(case, "group").to_owned(), result)]
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
    let fits = |expected: &Value| {
        let expected = elements(expected);
        expected.len() == results.len()
            && expected.iter().zip(results).all(|(expected, result)| is_as(expected, result))
    };
    if any_of.iter().any(fits) {
        return Ok(());
    }
    let first = elements(any_of.first().unwrap_or(&Value::Null));
    let at = first
        .iter()
        .zip(results)
        .position(|(expected, result)| !is_as(expected, result))
        .unwrap_or(first.len());
    let show = |list: &[Value]| list.get(at).unwrap_or(&Value::Null).to_string();
    Err(format!("step {at}: expected {}, got {}", show(first), show(results)))
}

/// Whether a result is as expected. States are compared by what is expected of them, but for
/// `status`, a word of the reference that nothing follows from.
fn is_as(expected: &Value, result: &Value) -> bool {
    let of_state = |name: &str| {
        let fields = expected[name].as_object().into_iter().flatten();
        fields.into_iter().all(|(field, value)| field == "status" || result[name][field] == *value)
    };
    match result.get("auth_state") {
        Some(_) => of_state("model_state") && of_state("auth_state"),
        None => expected == result,
    }
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

struct World {
    config: Value,
    auths: Vec<Value>,
    shared: InMemory,
    now: u64,
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
            "advance" => self.now += step["ms"].as_u64().ok_or("advance without ms")?,
            "add_auth" => self.add(&step["auth"])?,
            "set_auth" => self.set(&step["auth"])?,
            "remove_auth" => self.auths.retain(|auth| auth["id"] != id),
            "invalidate_auth" => {
                let router = self.router("")?;
                if let Some(credential) = find(&router, id) {
                    router.bindings().release(&self.shared, credential.fingerprint);
                }
            }
            "cleanup" => {
                let left = self.router("")?.bindings().sweep(&self.shared, self.now);
                return Ok(json!({"cache_entries": left}));
            }
            other => return Err(format!("unknown step {other:?}")),
        }
        Ok(json!({}))
    }

    fn pick(&self, step: &Value) -> Result<Value, String> {
        let router = self.router(case::text(step, "provider"))?;
        let credentials = &router.config().pools[0].credentials;
        let among = |list: &Value, id: &str| elements(list).iter().any(|listed| listed == id);
        let is_out = |id: &str| {
            among(&step["exclude"], id) || (step["only"].is_array() && !among(&step["only"], id))
        };
        let is_candidate = |id: &str| {
            self.auths.iter().any(|auth| {
                let known = case::text(auth, "id");
                id_of(known) == id && !is_out(known)
            })
        };
        let tried: Vec<_> = credentials
            .iter()
            .filter(|it| !is_candidate(&it.id))
            .map(|it| it.fingerprint)
            .collect();

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
        let request = Request { headers: &headers, body, tried: &tried, properties: &[] };
        let decision = router.route(&request, &self.shared, self.now);
        let mut result = match &decision {
            Decision::Route(route) => json!({"auth": self.auth_of(&route.credential.id)}),
            Decision::Reply(unready, reply) => json!({"error": error(*unready, reply)}),
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
            message: case::text(step, "message"),
            wait: step["retry_after_ms"].as_u64(),
            whole: false,
            sent: self.now,
        };
        router.cooldowns().learn(&self.shared, credential, model, &observation, self.now);
        let states = States::decode(&self.shared.get(&credential.cooldown_key).value);
        let of_model =
            if model.is_empty() { None } else { states.get(router.cooldowns().model_key(model)) };
        let of_auth = states.get(WHOLE).unwrap_or_default();
        Ok(
            json!({"model_state": of_model.map(|state| self.shown(state)), "auth_state": self.shown(of_auth)}),
        )
    }

    fn shown(&self, state: State) -> Value {
        let from_now = |time: Option<u64>| time.map(|time| time as i64 - self.now as i64);
        json!({
            "unavailable": state.unavailable,
            "retry_in_ms": from_now(state.retry_at),
            "quota_exceeded": state.exceeded,
            "quota_recover_in_ms": from_now(state.recover_at),
            "backoff_level": state.level,
        })
    }

    fn auth_of(&self, id: &str) -> &Value {
        let auth = self.auths.iter().find(|auth| id_of(case::text(auth, "id")) == id);
        auth.map_or(&Value::Null, |auth| &auth["id"])
    }

    fn add(&mut self, auth: &Value) -> Result<(), String> {
        self.auths.retain(|known| known["id"] != auth["id"]);
        self.auths.push(auth.clone());
        self.write_states(auth, States::default())
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
        self.write_states(changed, States::decode(&self.shared.get(&key).value))
    }

    /// Writes what a credential's description says of its state.
    fn write_states(&self, auth: &Value, mut states: States) -> Result<(), String> {
        let router = self.router("")?;
        if ["unavailable", "retry_in_ms", "quota"].iter().any(|name| !auth[name].is_null()) {
            states.set(WHOLE, self.state_of(auth), self.now);
        }
        for (model, state) in auth["model_states"].as_object().into_iter().flatten() {
            states.set(router.cooldowns().model_key(model), self.state_of(state), self.now);
        }
        let key = self.cooldown_key(case::text(auth, "id"))?;
        self.shared.set(&key, &states.encode(), Cas(0)).map_err(|refused| format!("{refused:?}"))
    }

    fn state_of(&self, value: &Value) -> State {
        let at =
            |value: &Value| value.as_i64().map(|from_now| self.now.saturating_add_signed(from_now));
        let quota = &value["quota"];
        State {
            unavailable: value["unavailable"] == true,
            disabled: value["status"] == "disabled",
            retry_at: at(&value["retry_in_ms"]),
            exceeded: quota["exceeded"] == true,
            recover_at: at(&quota["recover_in_ms"]),
            level: quota["backoff_level"].as_u64().map_or(0, |level| level.min(255) as u8),
        }
    }

    fn cooldown_key(&self, id: &str) -> Result<String, String> {
        let router = self.router("")?;
        Ok(find(&router, id).ok_or_else(|| format!("no credential {id:?}"))?.cooldown_key.clone())
    }

    fn router(&self, provider: &str) -> Result<Router, String> {
        let mut credentials: Vec<_> = self.auths.iter().map(credential).collect();
        if credentials.is_empty() {
            // A pool without a credential is no configuration. This one is not known, so it counts
            // as tried.
            credentials.push(json!({"id": "nobody", "cluster": "nobody"}));
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
        // The reference's providers may be empty, which no configuration may.
        config.pools[0].provider = Some(provider.to_owned());
        // The model is the step's, whatever the body says.
        config.body.model = config.body.paths.add(["no member of any body"]);
        Ok(Router::new(config, Seed::agree(&self.shared, [7; 16])))
    }
}

fn find<'r>(router: &'r Router, id: &str) -> Option<&'r Credential> {
    router.config().pools[0].credentials.iter().find(|credential| credential.id == id_of(id))
}

/// A path that names a model, as Azure's do: so it need not stand in the body.
fn path_for(model: &str) -> String {
    let encoded: String = model.bytes().map(|byte| format!("%{byte:02x}")).collect();
    match model {
        "" => "/v1/chat/completions".to_owned(),
        _ => format!("/openai/deployments/{encoded}/chat/completions"),
    }
}

/// An id as the configuration takes it. The reference's may hold blanks; digits keep their order.
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
        Unready::Cooldown(_) => json!({
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
