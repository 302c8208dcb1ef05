//! What clients send: sessions with turns, as the seed has them.

use bytes::Bytes;
use envoy_harness::Mode;
use serde_json::{Value, json};

use crate::client::{Manner, Stage};
use crate::dialect::{self, text};
use crate::fault::Fault;
use crate::history::{End, HTTP2, Kept};
use crate::socket;
use crate::world::{self, Dialect, Pool};
use simulate::random::Random;

/// The largest body: what the filter reads at most.
const LARGEST: usize = 8 << 20;

/// Where the session is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamedBy {
    Header,
    Body,
    /// Nowhere: it goes by its first message.
    Opening,
}

/// How a session is hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hostility {
    /// An id that is no text.
    Id,
    /// An id of four kilobytes.
    LongId,
    /// A model that nobody has.
    Model,
    /// A model of two kilobytes.
    LongModel,
    /// Two models in one body.
    TwoModels,
    /// The headers between the filter and Envoy, and those of Envoy itself.
    Internal,
    /// A body that is no JSON.
    NoJson,
}

const HOSTILITIES: [Hostility; 7] = [
    Hostility::Id,
    Hostility::LongId,
    Hostility::Model,
    Hostility::LongModel,
    Hostility::TwoModels,
    Hostility::Internal,
    Hostility::NoJson,
];

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    seed: u64,
    pub(crate) pool: &'static Pool,
    dialect: Dialect,
    named_by: NamedBy,
    hostility: Option<Hostility>,
    pub(crate) model: String,
    pub(crate) is_http2: bool,
    is_stream: bool,
    /// Whether its provider keeps its responses, and each turn says which one it follows instead of
    /// all that was said.
    is_chain: bool,
    /// Whether each turn is a WebSocket with some messages.
    is_socket: bool,
    pub(crate) turns: usize,
    /// The length of what the client says first.
    first: usize,
}

/// What is sent in one turn.
pub(crate) struct Turn {
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) body: Bytes,
    /// The same in messages, if they are sent on a WebSocket.
    pub(crate) messages: Vec<String>,
    pub(crate) manner: Manner,
    pub(crate) named_by: &'static str,
    pub(crate) may_be_refused: bool,
    /// Whether the connection is closed before it.
    pub(crate) on_new_connection: bool,
    /// How long the client thinks before it.
    pub(crate) pause: std::time::Duration,
}

impl Session {
    pub(crate) fn new(seed: u64, number: u64, mode: Mode) -> Self {
        let mut random = Random::of(&[seed, number]);
        let pools = world::pools(mode);
        let pool = pools.get(random.below(pools.len())).unwrap_or(&world::POOLS[0]);
        let dialect = random.pick(pool.dialects).unwrap_or(Dialect::Chat);
        let named_by = match random.below(10) {
            0..5 => NamedBy::Header,
            5..8 => NamedBy::Body,
            _ => NamedBy::Opening,
        };
        let hostility = random.percent(4).then(|| random.pick(&HOSTILITIES)).flatten();
        let model = match hostility {
            Some(Hostility::Model) => "'; drop \u{1f600} %00 {{}}".to_owned(),
            Some(Hostility::LongModel) => "m".repeat(2000),
            _ => random.pick(pool.models).unwrap_or_default().to_owned(),
        };
        let first = match random.below(200) {
            0 => random.between(1 << 20, LARGEST - (64 << 10)),
            1..6 => random.between(64 << 10, 1 << 20),
            6..40 => random.between(4 << 10, 64 << 10),
            _ => random.between(200, 4 << 10),
        };
        let turns = if first > 1 << 20 { 2 } else { 1 + random.below(12) };
        let is_chain = dialect == Dialect::Responses && hostility.is_none() && random.percent(50);
        let is_socket =
            dialect == Dialect::Responses && hostility.is_none() && !is_chain && random.percent(60);
        Self {
            number,
            seed,
            pool,
            dialect,
            named_by,
            hostility,
            model,
            is_http2: random.percent(40) && !is_socket,
            is_stream: random.percent(50),
            is_chain,
            is_socket,
            turns: if is_chain { turns + 3 } else { turns },
            first,
        }
    }

    /// What the first turn follows: some chains go on with what another gateway has begun.
    pub(crate) fn beginning(&self) -> Option<Kept> {
        let mut random = Random::of(&[self.seed, self.number, u64::MAX]);
        let owner = random.pick(self.pool.credentials)?;
        let is_elsewhere = self.is_chain && random.percent(40);
        is_elsewhere.then_some(Kept::Elsewhere { owner, session: self.number })
    }

    /// What the next turn follows, if that changes by how a turn ended. A client that is told that
    /// its response is not there begins anew with all that was said.
    pub(crate) fn previous(&self, request: u64, end: &End) -> Option<Option<Kept>> {
        let End::Answered(answer) = end else { return None };
        let is_whole = answer.is_whole && !answer.is_left;
        match answer.arrival {
            Some(attempt) if is_whole && answer.is_kept => {
                Some(Some(Kept::Here { request, attempt }))
            }
            _ if answer.text.contains(dialect::NOT_HERE) => Some(None),
            _ => None,
        }
    }

    /// A turn, from zero, that follows a response if there is one to follow.
    pub(crate) fn turn(&self, turn: usize, previous: Option<Kept>) -> Turn {
        let mut random = Random::of(&[self.seed, self.number, turn as u64 + 1]);
        let manner = manner(&mut random);
        let faults = faults(&mut random);
        let mut headers = vec![
            ("content-type", b"application/json".to_vec()),
            ("authorization", self.client_key()),
            ("x-api-key", b"sk-client".to_vec()),
            ("cookie", b"a=b".to_vec()),
        ];
        if !faults.is_empty() {
            headers.push(("x-soak-faults", faults.into_bytes()));
        }
        if self.is_stream {
            headers.push(("x-soak-stream", b"1".to_vec()));
        }
        if self.is_chain {
            headers.push(("x-soak-keep", b"1".to_vec()));
        }
        let previous = previous.map(Kept::id);
        if let Some(previous) = &previous {
            headers.push(("x-soak-previous", previous.clone().into_bytes()));
        }
        if random.percent(70) {
            headers.push(("accept-encoding", b"gzip, deflate, br".to_vec()));
        }
        if self.named_by == NamedBy::Header || self.hostility == Some(Hostility::Id) {
            // A chain may be taken up by somebody else: then its session leads nowhere.
            let is_another = self.is_chain && turn > 0 && random.percent(40);
            let suffix = if is_another { format!("-{turn}") } else { String::new() };
            headers.push(("x-session-id", [self.id(), suffix.into_bytes()].concat()));
        }
        if self.is_socket {
            let asks = socket::ASKS.iter();
            headers.extend(asks.map(|(name, value)| (*name, value.as_bytes().to_vec())));
        }
        if self.hostility == Some(Hostility::Internal) {
            for (name, value) in [
                ("x-session-affinity-cluster", "anthropic_b"),
                ("x-session-affinity-retry", "1"),
                ("x-session-affinity-attempt", "9"),
                ("x-envoy-max-retries", "50"),
                ("x-envoy-retry-on", "5xx,reset"),
                ("x-envoy-retriable-header-names", "x-soak-arrival"),
                ("x-envoy-upstream-rq-timeout-ms", "1"),
                ("x-envoy-hedge-on-per-try-timeout", "true"),
            ] {
                headers.push((name, value.as_bytes().to_vec()));
            }
        }
        let (messages, body) = match self.is_socket {
            true => self.messages(turn),
            false => (vec![], self.body(turn, previous.as_deref()).into()),
        };
        Turn {
            path: self.path(),
            headers,
            messages,
            body,
            manner,
            named_by: match (self.hostility, self.named_by) {
                (Some(_), _) => "hostile",
                (None, _) if previous.is_some() => "response before",
                (None, NamedBy::Header) => "header",
                (None, _) if self.is_socket => "caller",
                (None, NamedBy::Body) => "body",
                (None, NamedBy::Opening) => "first message",
            },
            may_be_refused: self.hostility.is_some(),
            on_new_connection: random.percent(15),
            pause: std::time::Duration::from_millis(random.between(0, 400) as u64),
        }
    }

    /// A WebSocket that names no session goes by the key of its client: then each session has its
    /// own.
    fn client_key(&self) -> Vec<u8> {
        let own = if self.is_socket { self.uuid() } else { String::new() };
        format!("Bearer sk-client{own}").into_bytes()
    }

    fn messages(&self, turn: usize) -> (Vec<String>, Bytes) {
        let mut random = Random::of(&[self.seed, self.number, turn as u64, 98]);
        let lengths: Vec<_> = (0..1 + random.below(3)).map(|_| random.between(20, 8000)).collect();
        socket::messages(lengths.into_iter().map(text), &self.model)
    }

    /// By which protocol it is sent: a word.
    pub(crate) fn protocol(&self) -> &'static str {
        match (self.is_socket, self.is_http2) {
            (true, _) => "WebSocket",
            (false, true) => HTTP2,
            (false, false) => "HTTP/1.1",
        }
    }

    fn id(&self) -> Vec<u8> {
        let id = format!("soak-{}-{}", self.seed, self.number);
        match self.hostility {
            Some(Hostility::Id) => [b"\xff\xfe\x80'\"\\;,".as_slice(), id.as_bytes()].concat(),
            Some(Hostility::LongId) => [vec![b'x'; 4000], id.into_bytes()].concat(),
            _ => id.into_bytes(),
        }
    }

    fn path(&self) -> String {
        match self.dialect {
            Dialect::Chat => "/v1/chat/completions".to_owned(),
            Dialect::Responses => "/v1/responses".to_owned(),
            Dialect::Messages => "/v1/messages".to_owned(),
            Dialect::Gemini => {
                let model = self
                    .model
                    .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "_");
                let method = match self.is_stream {
                    true => "streamGenerateContent?alt=sse",
                    false => "generateContent",
                };
                format!("/v1beta/models/{model}:{method}")
            }
        }
    }

    /// What was said so far, and one more message; that alone, if it follows a response.
    fn body(&self, turn: usize, previous: Option<&str>) -> String {
        if self.hostility == Some(Hostility::NoJson) {
            return format!("{{\"model\": \"{}\", \"messages\": [[[[ {}", self.model, self.number);
        }
        let hello = format!("session {} of {}: {}", self.number, self.seed, text(self.first));
        let mut said = vec![("user", hello)];
        for past in 1..=turn {
            let mut random = Random::of(&[self.seed, self.number, past as u64, 99]);
            said.push(("assistant", text(random.between(50, 1500))));
            said.push(("user", text(random.between(20, 2000))));
        }
        if previous.is_some() {
            said.drain(..said.len() - 1);
        }
        let id = String::from_utf8_lossy(&self.id()).into_owned();
        let is_named = self.named_by == NamedBy::Body;
        let messages = |(role, text): &(&str, String)| json!({"role": role, "content": text});
        let mut body = match self.dialect {
            Dialect::Chat => {
                let messages: Vec<Value> = said.iter().map(messages).collect();
                json!({"model": self.model, "stream": self.is_stream, "messages": messages})
            }
            Dialect::Responses => {
                let input: Vec<Value> = said.iter().map(messages).collect();
                json!({"model": self.model, "stream": self.is_stream, "store": self.is_chain,
                    "input": input})
            }
            Dialect::Messages => {
                let messages: Vec<Value> = said.iter().map(messages).collect();
                json!({"model": self.model, "stream": self.is_stream, "max_tokens": 1000,
                    "messages": messages})
            }
            Dialect::Gemini => {
                let contents: Vec<Value> = said
                    .iter()
                    .map(|(role, text)| {
                        let role = if *role == "user" { "user" } else { "model" };
                        json!({"role": role, "parts": [{"text": text}]})
                    })
                    .collect();
                json!({"contents": contents})
            }
        };
        if let (true, Value::Object(body)) = (is_named, &mut body) {
            match self.dialect {
                Dialect::Messages => {
                    let user = format!("user_{:064x}_account__session_{}", 7, self.uuid());
                    body.insert("metadata".to_owned(), json!({"user_id": user}));
                }
                _ => {
                    body.insert("prompt_cache_key".to_owned(), json!(id));
                }
            }
        }
        if let (Some(previous), Value::Object(body)) = (previous, &mut body) {
            body.insert("previous_response_id".to_owned(), json!(previous));
        }
        let text = body.to_string();
        match self.hostility {
            Some(Hostility::TwoModels) => text.replacen('{', "{\"model\":\"another\",", 1),
            _ => text,
        }
    }

    fn uuid(&self) -> String {
        let hex = format!("{:016x}{:016x}", self.seed, self.number);
        let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
        parts.map(|(from, to)| hex.get(from..to).unwrap_or_default()).join("-")
    }
}

fn manner(random: &mut Random) -> Manner {
    match random.below(100) {
        0 => Manner::Abort(Stage::Headers),
        1 => Manner::Abort(Stage::Upload),
        2..4 => Manner::Abort(Stage::Waiting(random.between(0, 60) as u64)),
        4..6 => Manner::Abort(Stage::Response),
        6..9 => Manner::SlowUpload,
        9..12 => Manner::SlowReader,
        _ => Manner::Plain,
    }
}

/// The faults of the attempts, in order.
fn faults(random: &mut Random) -> String {
    if !random.percent(7) {
        return String::new();
    }
    let mut fault = || {
        let fault = match random.below(30) {
            0 => Some(Fault::Limit(random.between(1, 3) as u64)),
            1 => Some(Fault::Denied),
            _ => random.pick(&Fault::OF_REQUESTS),
        };
        fault.map(Fault::code).unwrap_or_default()
    };
    let first = fault();
    let (second, third) = (fault(), fault());
    match random.below(10) {
        0 => format!("{first},{second},{third}"),
        1..3 => format!("{first},{second}"),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_follows_from_the_seed() {
        let sent = |seed| {
            let sessions = (0..50).map(|number| Session::new(seed, number, Mode::Clusters));
            let turns = sessions.map(|session| {
                let turn = session.turn(session.turns - 1, None);
                (turn.path, turn.headers, turn.body)
            });
            turns.collect::<Vec<_>>()
        };
        assert_eq!(sent(1), sent(1));
        assert_ne!(sent(1), sent(2));
    }

    #[test]
    fn bodies_grow_and_begin_alike() {
        let session = (0..100)
            .map(|number| Session::new(1, number, Mode::Clusters))
            .find(|it| it.turns > 4 && it.hostility.is_none() && it.dialect == Dialect::Chat)
            .unwrap();
        let [first, later] = [0, 3].map(|turn| session.body(turn, None));
        assert!(later.starts_with(first.trim_end_matches("]}")));
        assert!(later.len() > first.len());
    }
}
