//! JSON Schemas, for editors: of the input, and of the filter's own configuration.
//!
//! They say what a document looks like. What its parts have to do with each other (two credentials
//! with one id, a mode that forbids a field) only the parsers know. The tests let both judge the same
//! documents.

use super::apis::Api;
use serde_json::{Map, Value, json};
use session_affinity::pins::KindId;
use session_affinity::session::Sources;
use session_affinity::signals::Class;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Durations as Go writes them.
const DURATION: &str = r"^(?=.*[1-9])\s*([0-9]*\.?[0-9]+(ns|us|µs|μs|ms|s|m|h))+\s*$";
/// The name of a header.
const HEADER: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
/// Visible ASCII.
const WORD: &str = r"^[!-~]{1,256}$";
/// A text that is not blank.
const NAME: &str = r"\S";
/// The name of an environment variable.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// A whole number as text, which only the profile `reference` takes for one.
const NUMBER: &str = r"^\s*[+-]?[0-9]+\s*$";
/// An address and a port.
const SOCKET: &str = r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$";

/// An address of the loopback interface and a port.
const LOOPBACK: &str = r"^(127(\.[0-9]{1,3}){3}|\[[0:]*:0*1\]):[0-9]{1,5}$";

/// The schema of the generator's input.
pub fn of_providers() -> Value {
    let mut members = object(json!({
        "$schema": any_text("This schema, for editors"),
        "listener": pattern(SOCKET, "Where Envoy listens for clients"),
        "admin": pattern(SOCKET, "Where Envoy's admin interface listens"),
        "operator": pattern(LOOPBACK, "Where the operator's page listens; without it there is none"),
        "stats": pattern(SOCKET, "Where metrics and readiness can be asked for, and nothing else of the admin interface"),
        "module": any_text("The path of the module, relative to where Envoy is started"),
        "ca_certificates": any_text("The certificates by which Envoy trusts providers"),
        "secrets": pattern("^/", "The directory of the files with keys, as Envoy sees it"),
        "clients": clients(),
        "show_decision": boolean("Clients see the decision in a response header: for trying, not for production"),
        "max_connections": integer(1, 4_294_967_295, "How many connections clients may have"),
        "max_heap_bytes": {"type": "integer", "minimum": 1, "description": "How large Envoy's heap may get"},
        "filter": filter(filter_sections()),
        "pools": {"type": "array", "minItems": 1, "items": input_pool(), "description": "Credentials that can serve the same requests"},
    }));
    require(&mut members, &["pools"]);
    with_dialect("The input of session-affinity-config", members)
}

/// The schema of the filter's configuration.
pub fn of_filter() -> Value {
    let mut sections = filter_sections();
    let pools = json!({"type": "array", "minItems": 1, "items": filter_pool(), "description": "The first whose `match` fits serves a request"});
    sections.insert("pools".to_owned(), pools);
    let mut members = filter(sections);
    require(&mut members, &["pools"]);
    with_dialect("The configuration of the filter session_affinity", members)
}

/// A schema as the text of its file.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn with_dialect(title: &str, members: Value) -> Value {
    let mut schema = object_map(json!({"$schema": DIALECT, "title": title}));
    schema.extend(object_map(members));
    schema.into()
}

/// All sections of the filter's configuration but its pools.
fn filter_sections() -> Map<String, Value> {
    let sources: Vec<_> = Sources::names().collect();
    let kinds: Vec<_> = KindId::all().map(|(_, kind)| kind.name).collect();
    object_map(json!({
        "profile": one_of(&["recommended", "reference"], "The rules: our own, or exactly those of the reference"),
        "mode": one_of(&["route", "shadow"], "Whether requests are routed, or only watched"),
        "routing": filter(object_map(json!({
            "strategy": pattern(
                r"^\s*((?i:round[-_]?robin|rr|weighted-round-robin|weightedroundrobin|wrr|consistent|headroom|fill[-_]?first|ff))\s*$",
                "How the credential of a new session is chosen: round-robin, fill-first, consistent or headroom"
            ),
            "spare_at": share("From this used share of a limit on a credential gets no new session while another one is below"),
            "shed_at": share("From this used share of a limit on a session leaves that may not be cached any more"),
            "session_affinity": boolean("Whether sessions are kept together"),
            "claude_code_session_affinity": deprecated(boolean("Write session_affinity")),
            "session_affinity_ttl": duration("A binding ends when it is not used for so long"),
            "max_rotations": integer(1, 1 << 20, "Only in the profile reference"),
            "header": pattern(HEADER, "The request header that names the cluster"),
            "seed": string("A secret that keys the strategy consistent"),
            "filter_state": pattern(WORD, "The filter state that names the cluster"),
        }))),
        "session": filter(object_map(json!({
            "max_bindings": integer(16, 1 << 24, "How many bindings are kept"),
            "sources": {"type": "array", "items": {"anyOf": [one_of(&sources, "A built-in source"), source()]}, "description": "Where session ids are found, in order"},
            "scope": {"type": "array", "items": scope(), "description": "What separates tenants"},
            "subagents": one_of(&["own", "parent"], "Where sub-agents go"),
            "strict": boolean("A session that has a home is served there or not at all"),
        }))),
        "body": filter(object_map(json!({
            "max_bytes": integer(1, 1 << 30, "How many bytes of a body are held and read"),
            "read": one_of(&["needed", "always"], "Whether bodies are read where headers would do"),
        }))),
        "failover": filter(object_map(json!({
            "max_attempts": integer(1, 16, "How many credentials a request is sent to at most"),
            "return": one_of(&["while-warm", "always", "never"], "When a session returns home"),
            "give_up_after": duration("A failure that comes later is passed on"),
            "first_event": filter(object_map(json!({
                "wait": duration("For how long a stream may be held until its first event"),
                "bytes": integer(0, 1 << 16, "How many bytes of it; 0 turns it off"),
            }))),
            "ciphertext": one_of(&["prefer_group", "same_group", "any"], "Where a request with encrypted reasoning may go"),
        }))),
        "disable_cooling": boolean("Errors start no cooldown"),
        "cooldown": filter(object_map(json!({
            "max": duration("The longest cooldown whose end was not announced"),
            "max_told": duration("The longest that a provider may announce"),
            "transient": duration("The longest after server errors and failed connections"),
            "denied": duration("The longest after a refused key"),
            "not_found": duration("The longest of a missing model"),
            "statuses": {
                "type": "object",
                "patternProperties": {"^(0|[45][0-9][0-9])$": classes()},
                "additionalProperties": false,
                "description": "Statuses to classify otherwise; 0 is an attempt without a response"
            },
            "rules": {"type": "array", "items": rule(), "description": "Responses to classify otherwise"},
        }))),
        "pins": filter(object_map(json!({
            "max": integer(0, 1 << 24, "How many pieces of state are followed"),
            "kinds": {"type": "array", "items": one_of(&kinds, "A kind"), "description": "Which kinds are followed"},
            "when_blocked": one_of(&["wait", "elsewhere"], "What a request does whose state is with a blocked credential"),
        }))),
        "observe": filter(object_map(json!({
            "usage": one_of(&["off", "plain", "identity"], "Which responses are read for their tokens"),
            "by_credential": boolean("Whether counters have the credential as a label"),
            "decision": one_of(&["always", "on_change", "off"], "Which decisions are put into words"),
            "prices": prices(),
        }))),
        "operator": filter(object_map(json!({
            "hosts": strings("Hosts by which the operator's page may be called, besides the loopback interface"),
        }))),
        "privacy": filter(object_map(json!({
            "hide_account_headers": boolean("Response headers that name the account do not reach clients"),
        }))),
    }))
}

/// A part of a whole.
fn share(description: &str) -> Value {
    json!({"type": "number", "minimum": 0.01, "maximum": 1, "description": description})
}

fn prices() -> Value {
    let count = |of: &str| json!({"type": "number", "minimum": 0, "maximum": 1_000_000, "description": format!("What a million tokens cost: {of}")});
    let mut price = filter(object_map(json!({
        "pools": strings("Names of pools; none means all"),
        "models": strings("Patterns with *; none means all"),
        "input": count("of the prompt, not cached"),
        "cache_read": count("of the prompt, read from a cache"),
        "cache_write": count("of the prompt, written to a cache"),
        "output": count("of the output"),
    })));
    require(&mut price, &["input", "output"]);
    let either = ["cache_read", "cache_write"].map(
        |name| json!({"anyOf": [{"required": [name]}, {"required": [name.replace('_', "-")]}]}),
    );
    set(&mut price, "allOf", json!(either));
    let mut prices = filter(object_map(json!({
        "currency": pattern(WORD, "What they are paid in"),
        "of": {"type": "array", "items": price, "description": "The first that is for the pool and the model counts"},
    })));
    set(&mut prices, "dependentRequired", json!({"of": ["currency"]}));
    prices
}

fn source() -> Value {
    let mut source = filter(object_map(json!({
        "name": pattern(WORD, "Its name in logs"),
        "header": pattern(HEADER, "The request header with the id"),
        "body": string("The path in the body, with dots"),
        "json": string("The path in the text that was found"),
        "pattern": string("A regular expression with one group"),
    })));
    one_required(&mut source, &["header", "body"]);
    source
}

fn scope() -> Value {
    let mut property = strings("The path of a property");
    set(&mut property, "minItems", json!(1));
    let mut scope = filter(object_map(json!({
        "header": pattern(HEADER, "A request header"),
        "property": property,
        "required": boolean("Requests without it are refused"),
    })));
    one_required(&mut scope, &["header", "property"]);
    scope
}

fn rule() -> Value {
    let mut rule = filter(object_map(json!({
        "provider": pattern(WORD, "Only of this provider"),
        "status": integer(100, 599, "The status"),
        "code": string("The code in the body"),
        "contains": string("A text in the body"),
        "header": pattern(HEADER, "A response header"),
        "value": string("Its value"),
        "class": classes(),
        "scope": one_of(&["credential", "model"], "What cools down"),
        "wait": duration("For how long"),
    })));
    require(&mut rule, &["class"]);
    let signs = ["code", "header", "contains"];
    let one_sign = signs.map(|sign| json!({"required": [sign]}));
    let [code, header, contains] = one_sign.clone();
    let two = [
        json!({"allOf": [code, header]}),
        json!({"allOf": [header, contains]}),
        json!({"allOf": [code, contains]}),
    ];
    set(&mut rule, "not", json!({"anyOf": two}));
    let mut any = one_sign.to_vec();
    any.push(json!({"required": ["status"]}));
    set(&mut rule, "anyOf", any.into());
    set(&mut rule, "dependentRequired", json!({"value": ["header"]}));
    rule
}

fn classes() -> Value {
    one_of(&Class::ALL.map(Class::as_str), "What the response means")
}

/// What a pool has in both documents.
fn pool() -> Map<String, Value> {
    object_map(json!({
        "name": pattern(WORD, "Unique"),
        "provider": pattern(WORD, "The provider's name in errors and in the key of bindings"),
        "match": {"anyOf": [matching(), {"type": "array", "items": matching()}], "description": "Which requests it serves"},
        "session": filter(object_map(json!({"strict": boolean("As session.strict, for this pool")}))),
        "cache_lifetime": duration("How long the provider keeps a prompt cached"),
    }))
}

fn matching() -> Value {
    let mut header = filter(object_map(json!({
        "name": string("It must be present"),
        "value": string("And have this value"),
    })));
    require(&mut header, &["name"]);
    filter(object_map(json!({
        "path_prefixes": strings("Prefixes of the path, as whole segments"),
        "methods": strings("Methods"),
        "hosts": strings("Hosts without port; *.example.com matches every name below"),
        "headers": {"type": "array", "items": header, "description": "All of them"},
        "models": strings("Patterns with *"),
    })))
}

/// What a credential has in both documents.
fn credential() -> Map<String, Value> {
    object_map(json!({
        "id": pattern(WORD, "Unique in the pool; bindings refer to it"),
        "priority": {"type": ["integer", "string"], "pattern": NUMBER, "description": "Higher goes first"},
        "weight": integer(0, 1_000_000, "Its share of new sessions"),
        "max_concurrent": integer(1, 65_535, "The most requests at once; beyond it new sessions go elsewhere"),
        "disable_cooling": boolean("Overrides the top, in either direction"),
        "parent": string("Credentials of one parent share its turn"),
        "group": pattern(WORD, "Credentials of one organization share what the provider keeps"),
        "websockets": boolean("Preferred for WebSockets"),
        "state": one_of(&["active", "drain", "disabled"], "drain keeps its sessions and takes no new one"),
        "endpoint": pattern(SOCKET, "The address of a replica"),
    }))
}

fn filter_pool() -> Value {
    let mut header = filter(object_map(json!({
        "name": pattern(HEADER, "The header that carries the key"),
        "environment": pattern("^[A-Z0-9_]{1,128}$", "The variable with the key"),
        "header": pattern(HEADER, "The header that an injector has filled"),
        "prefix": pattern("^[ -~]+$", "What stands in front of the key"),
    })));
    require(&mut header, &["name"]);
    one_required(&mut header, &["environment", "header"]);
    let mut credential = credential();
    credential.insert("cluster".to_owned(), pattern(WORD, "The cluster of Envoy"));
    credential.insert("headers".to_owned(), json!({"type": "array", "items": header}));
    let mut credential = filter(credential);
    require(&mut credential, &["id", "cluster"]);
    let mut pool = pool();
    pool.insert("credentials".to_owned(), list_of(credential));
    let mut pool = filter(pool);
    require(&mut pool, &["name", "credentials"]);
    pool
}

fn input_pool() -> Value {
    let mut credential = credential();
    credential.insert("upstream".to_owned(), upstream());
    credential.insert(
        "key".to_owned(),
        pattern(VARIABLE, "The variable with the whole value of the header; never the key"),
    );
    credential.insert("aws".to_owned(), aws());
    let mut credential = object(credential.into());
    require(&mut credential, &["id"]);
    let mut pool = pool();
    pool.insert(
        "mode".to_owned(),
        one_of(
            &["clusters", "keys", "replicas", "next-request"],
            "How Envoy learns which credential serves a request",
        ),
    );
    let api = "The API whose paths it serves; `match` then has only models, hosts or headers";
    pool.insert("api".to_owned(), one_of(&Api::NAMES, api));
    pool.insert("upstream".to_owned(), upstream());
    pool.insert("key_header".to_owned(), pattern(HEADER, "The request header that carries the key; without it requests keep what the client sent"));
    pool.insert("credentials".to_owned(), list_of(credential));
    let mut pool = object(pool.into());
    require(&mut pool, &["name", "credentials"]);
    pool
}

fn clients() -> Value {
    let file = pattern(
        "^/.*[^/]$",
        "The file with the keys of clients, as Envoy sees it; `session-affinity-config clients` prints it",
    );
    let mut keys = object(json!({"api_keys": file}));
    require(&mut keys, &["api_keys"]);
    let mut token = object(json!({
        "issuer": pattern(NAME, "Who has issued the tokens"),
        "audiences": {"type": "array", "items": {"type": "string", "pattern": NAME}, "description": "For which they are"},
        "jwks": pattern("^(/|https?://)", "The URL of the issuer's public keys, or the path of a file"),
        "claim": pattern(NAME, "The claim that names the tenant; `sub` if absent"),
    }));
    require(&mut token, &["issuer", "jwks"]);
    let mut tokens = object(json!({"jwt": token}));
    require(&mut tokens, &["jwt"]);
    json!({"anyOf": [keys, tokens], "description": "Who may use the gateway; everyone who reaches it if absent"})
}

fn aws() -> Value {
    let mut signing = object(json!({
        "region": any_text("The region of the endpoint"),
        "service": any_text("What the signature is for; `bedrock` if absent"),
        "credentials_file": pattern("^/.*[^/]$", "A file of AWS credentials, as Envoy sees it; else its environment or its role has them"),
        "profile": any_text("The profile in that file"),
    }));
    require(&mut signing, &["region"]);
    set(&mut signing, "description", json!("Envoy signs its requests (SigV4), in place of a key"));
    signing
}

fn upstream() -> Value {
    let url = pattern(
        "^https?://",
        "Scheme, host, port, and the path that the provider documents as base URL",
    );
    let mut more = object(json!({
        "url": url,
        "sni": string("The name in the certificate, if not the host"),
        "ca_certificates": any_text("The certificates that may have signed it"),
        "http2": boolean("HTTP/2 to the upstream"),
        "replaces": pattern("^/", "The beginning of a path in whose place that of the URL comes"),
        "idle_timeout": pattern("^[0-9]+s$", "How long a connection without a request is kept"),
    }));
    require(&mut more, &["url"]);
    json!({"anyOf": [url, more], "description": "Where the provider is"})
}

/// An object of the filter, whose keys may also be written with hyphens.
fn filter(members: Map<String, Value>) -> Value {
    let mut all = Map::new();
    for (name, schema) in members {
        let hyphens = name.replace('_', "-");
        if hyphens != name {
            all.insert(hyphens, schema.clone());
        }
        all.insert(name, schema);
    }
    object(all.into())
}

fn object(members: Value) -> Value {
    json!({"type": "object", "properties": members, "additionalProperties": false})
}

fn object_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn list_of(items: Value) -> Value {
    json!({"type": "array", "minItems": 1, "items": items})
}

fn string(description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": description})
}

fn any_text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn strings(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string", "minLength": 1}, "description": description})
}

fn pattern(pattern: &str, description: &str) -> Value {
    json!({"type": "string", "pattern": pattern, "description": description})
}

fn duration(description: &str) -> Value {
    pattern(DURATION, &format!("{description}; a duration such as 1h30m or 90s"))
}

fn boolean(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn integer(least: u64, most: u64, description: &str) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most, "description": description})
}

fn one_of(words: &[&str], description: &str) -> Value {
    json!({"enum": words, "description": description})
}

fn deprecated(mut schema: Value) -> Value {
    set(&mut schema, "deprecated", true.into());
    schema
}

fn require(schema: &mut Value, names: &[&str]) {
    set(schema, "required", json!(names));
}

/// Exactly one of two members.
fn one_required(schema: &mut Value, names: &[&str; 2]) {
    set(schema, "oneOf", names.map(|name| json!({"required": [name]})).to_vec().into());
}

fn set(schema: &mut Value, name: &str, value: Value) {
    if let Some(members) = schema.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
