//! The state that a request refers to, and the kind of state that it creates.

use super::kinds::{Kind, KindId};
use crate::body::{Body, PathId, Paths};
use crate::json::{Kind as JsonKind, Value, has_name};
use crate::steps;

/// Bytes of an id that count. No real one is this long.
const LONGEST_ID: usize = 512;

/// How every name of a member begins that holds the id or the address of a file. (Tools of agents
/// are full of `file_path`.)
const FILES: [&[u8]; 3] = [b"\"file_id", b"\"fileUri\"", b"\"file_uri\""];

/// What stands behind a collection in a path, and is no id.
const NO_IDS: [&str; 3] = ["compact", "input_tokens", "search"];

/// An id that a request names, or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// What it is the id of.
    pub kind: KindId,
    /// The id itself, without the names of collections before it.
    pub text: Vec<u8>,
}

/// Segments behind which a collection begins; every other one may be the operator's.
const PARENTS: [&str; 9] =
    ["v1", "v1beta", "v1alpha", "openai", "messages", "fine_tuning", "agents", "live", "managed"];

/// Where ids are in a body.
#[derive(Clone, Debug)]
pub struct IdPaths {
    members: Vec<(KindId, &'static [&'static str], PathId)>,
    tools: PathId,
    container: PathId,
    thread: PathId,
    store: PathId,
    background: PathId,
}

impl IdPaths {
    /// Adds the paths to those that are looked for.
    pub fn new(paths: &mut Paths) -> Self {
        let mut members = Vec::new();
        for (id, kind) in KindId::all() {
            for member in kind.members {
                members.push((id, member.apis, paths.add(member.path.iter().copied())));
            }
        }
        Self {
            members,
            tools: paths.add(["tools"]),
            container: paths.add(["container"]),
            thread: paths.add(["thread"]),
            store: paths.add(["store"]),
            background: paths.add(["background"]),
        }
    }

    /// The ids that the body of a `POST` refers to, the most telling first. Ids of files stand
    /// anywhere in a body, and are looked for only if there may be any.
    pub fn in_body(&self, path: &str, body: &Body<'_>, may_have_files: bool) -> Vec<Id> {
        let mut ids = Vec::new();
        for (kind, apis, member) in &self.members {
            let Some(member) = body.get(*member) else { continue };
            if apis.iter().any(|end| path.ends_with(end)) {
                ids.extend(text_of_id(member).and_then(|text| id(*kind, &text)));
            }
        }
        for (name, part) in
            [("vector_stores", self.tools), ("containers", self.tools), ("skills", self.container)]
        {
            let Some(part) = body.get(part) else { continue };
            if part.kind() != JsonKind::String {
                ids.extend(first_inside(name, &part.text()));
            }
        }
        if may_have_files && has_name(&FILES, body.bytes()) {
            ids.extend(first_inside("files", body.bytes()));
            ids.extend(first_file_uri(body.bytes()));
        }
        ids
    }

    /// The kind of state that a `POST`, or a WebSocket, creates, should it succeed.
    pub fn creates(&self, path: &str, body: &Body<'_>) -> Option<KindId> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.ends_with("/messages") {
            return KindId::named("threads").filter(|_| has(body, self.thread));
        }
        if path.ends_with(":batchGenerateContent") {
            return KindId::named("batches");
        }
        let is_stored = body.get(self.store).is_none_or(|store| store.kind() != JsonKind::False);
        if let Some(path) = path.strip_suffix("/complete") {
            return in_path(path).and_then(|_| KindId::named("files"));
        }
        let path = path.strip_suffix("/compact").unwrap_or(path);
        collection(path).filter(|(_, rest)| rest.is_none() && is_stored).map(|(kind, _)| kind)
    }

    /// Whether a request may be carried out only once, and so must not be repeated after it may
    /// have been: it continues a thread, whose every message can be continued once, or it goes on
    /// in the background.
    pub fn is_once(&self, body: &Body<'_>) -> bool {
        has(body, self.thread)
            || body.get(self.background).is_some_and(|it| it.kind() == JsonKind::True)
    }
}

fn has(body: &Body<'_>, path: PathId) -> bool {
    body.get(path).is_some_and(|value| value.kind() != JsonKind::Null)
}

/// The id in a path: what follows the first segment that names a collection.
pub fn in_path(path: &str) -> Option<Id> {
    let (kind, text) = collection(path)?;
    id(kind, text.filter(|text| !NO_IDS.contains(text))?.as_bytes())
}

/// The first collection in a path, and the segment that follows it, if there is one.
fn collection(path: &str) -> Option<(KindId, Option<&str>)> {
    let mut before = ["", ""];
    let mut segments = path.split('/');
    while let Some(segment) = segments.next() {
        let [parent, grandparent] = before;
        let begins = PARENTS.contains(&parent) || grandparent == "locations";
        if let Some(kind) = begins.then(|| KindId::of_segment(segment)).flatten() {
            return Some((kind, segments.next().filter(|next| !next.is_empty())));
        }
        before = [segment, parent];
    }
    None
}

/// The ids that a response says were created: a document, the events of a stream, or a message of a
/// WebSocket, as far as it is there.
pub fn created(creates: KindId, beginning: &[u8]) -> Vec<Id> {
    let Some(kind) = creates.kind() else { return Vec::new() };
    let mut ids = Vec::new();
    for document in documents(beginning) {
        ids.extend(kind.created.iter().find_map(|path| id_at(creates, document, path)));
        for (beside, paths) in beside(kind) {
            ids.extend(paths.iter().find_map(|path| id_at(beside, document, path)));
        }
        if !ids.is_empty() {
            break;
        }
    }
    ids
}

/// What a response names beside what it is: a conversation, a container that was made for it.
fn beside(kind: &Kind) -> impl Iterator<Item = (KindId, &'static [&'static [&'static str]])> {
    let (name, paths): (&str, &[&[&str]]) = match kind.name {
        "responses" => ("conversations", &[&["conversation"], &["response", "conversation"]]),
        "threads" => ("containers", &[&["container"]]),
        _ => ("", &[]),
    };
    KindId::named(name).map(|id| (id, paths)).into_iter()
}

/// The documents at the beginning of a response.
fn documents(bytes: &[u8]) -> impl Iterator<Item = Value<'_>> {
    let is_document = bytes.trim_ascii_start().starts_with(b"{");
    let whole = Value::document(bytes).filter(|_| is_document);
    let lines = bytes.split(|&byte| byte == b'\n').take(if is_document { 0 } else { usize::MAX });
    // Behind the header of a WebSocket's frame the message begins.
    let starts = lines.filter_map(|line| line.get(memchr::memmem::find(line, b"{\"")?..));
    whole.into_iter().chain(starts.filter_map(Value::document))
}

fn id_at(kind: KindId, document: Value<'_>, path: &[&str]) -> Option<Id> {
    let value = path.iter().try_fold(document, |value, name| value.get(name))?;
    text_of_id(value).and_then(|text| id(kind, &text))
}

/// The text of an id: a string, or the `id` of an object.
fn text_of_id(value: Value<'_>) -> Option<Vec<u8>> {
    let value = match value.kind() {
        JsonKind::Object => value.get("id")?,
        _ => value,
    };
    (value.kind() == JsonKind::String).then(|| value.text().into_owned())
}

/// An id as it is compared: `files/abc`, `projects/p/cachedContents/abc` and an address that ends
/// in `/abc` are `abc`.
fn id(kind: KindId, text: &[u8]) -> Option<Id> {
    let text = text.rsplit(|&byte| byte == b'/').next()?;
    let text = text.split(|&byte| matches!(byte, b':' | b'?')).next()?;
    (!text.is_empty() && text.len() <= LONGEST_ID).then(|| Id { kind, text: text.to_vec() })
}

/// The first id that a member of a kind holds, at any depth of a part of a body. In a text inside
/// the part the quotation marks would be escaped.
fn first_inside(kind: &str, part: &[u8]) -> Option<Id> {
    let kind_id = KindId::named(kind)?;
    kind_id.kind()?.deep.iter().find_map(|name| {
        let quoted = [b"\"", name.as_bytes(), b"\""].concat();
        let values = behind(part, &quoted);
        let strings = values.filter_map(|value| {
            let value = value.strip_prefix(b"[").map_or(value, <[u8]>::trim_ascii_start);
            string(value)
        });
        strings.filter_map(|text| id(kind_id, text)).next()
    })
}

/// The first file of Gemini's own that `fileData` names: other addresses are those of videos, or
/// of anything on the web.
fn first_file_uri(body: &[u8]) -> Option<Id> {
    let names: [&[u8]; 2] = [b"\"fileUri\"", b"\"file_uri\""];
    names.into_iter().find_map(|name| {
        let uris = behind(body, name).filter_map(string);
        let files = uris.filter(|uri| {
            let mut segments = uri.rsplit(|&byte| byte == b'/').skip(1);
            segments.next() == Some(b"files")
        });
        files.filter_map(|uri| id(KindId::named("files")?, uri)).next()
    })
}

/// The values of members with a name, in quotation marks, as far as they are looked for.
fn behind<'b>(bytes: &'b [u8], name: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    const MOST: usize = 64;
    steps::count(bytes.len());
    let places = memchr::memmem::find_iter(bytes, name).take(MOST);
    places.filter_map(|at| {
        let value = bytes.get(at + name.len()..)?.trim_ascii_start().strip_prefix(b":")?;
        Some(value.trim_ascii_start())
    })
}

/// The text of a string without escapes that a value is.
fn string(value: &[u8]) -> Option<&[u8]> {
    let text = value.strip_prefix(b"\"")?;
    steps::count(LONGEST_ID.min(text.len()));
    text.get(..=LONGEST_ID).unwrap_or(text).split(|&byte| byte == b'"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_files_begin_as_the_search_for_any_of_them_expects() {
        let kind = KindId::named("files").unwrap();
        for name in kind.kind().unwrap().deep.iter().chain(&["fileUri", "file_uri"]) {
            assert!(has_name(&FILES, format!("\"{name}\"").as_bytes()), "{name}");
        }
    }

    fn words(ids: &[Id]) -> String {
        let words = ids.iter().map(|id| {
            let kind = id.kind.kind().unwrap().name;
            format!("{kind}={}", String::from_utf8_lossy(&id.text))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The ids in a path, and in the body of a request with that path.
    fn referred(path: &str, body: &str) -> String {
        let mut paths = Paths::default();
        let ids = IdPaths::new(&mut paths);
        let body = Body::read(&paths, body.as_bytes());
        let mut found: Vec<Id> = in_path(path).into_iter().collect();
        found.extend(ids.in_body(path, &body, true));
        words(&found)
    }

    fn creates(path: &str, body: &str) -> Option<&'static str> {
        let mut paths = Paths::default();
        let ids = IdPaths::new(&mut paths);
        let kind = ids.creates(path, &Body::read(&paths, body.as_bytes()))?;
        Some(kind.kind()?.name)
    }

    #[test]
    fn a_path_names_what_it_is_about() {
        for (path, expected) in [
            ("/v1/responses/resp_1", "responses=resp_1"),
            ("/v1/responses/resp_1/cancel", "responses=resp_1"),
            ("/openai/v1/responses/resp_1/input_items", "responses=resp_1"),
            ("/v1/responses", ""),
            ("/v1/responses/", ""),
            ("/v1/responses/compact", ""),
            ("/v1/responses/input_tokens", ""),
            ("/v1/conversations/conv_1/items/msg_1", "conversations=conv_1"),
            ("/v1/files/file-1/content", "files=file-1"),
            ("/v1/messages/batches/msgbatch_1/results", "batches=msgbatch_1"),
            ("/v1/containers/cntr_1/files/cfile_1", "containers=cntr_1"),
            ("/v1beta/cachedContents/abc", "cached_contents=abc"),
            ("/v1/projects/p/locations/l/cachedContents/12", "cached_contents=12"),
            ("/v1beta/files/abc", "files=abc"),
            ("/v1beta/interactions/v1_x/cancel", "interactions=v1_x"),
            ("/v1/messages", ""),
            ("/v1/fine_tuning/jobs/ftjob-1", "jobs=ftjob-1"),
            ("/jobs/team/v1/chat/completions", ""),
            ("/files/v1/responses/resp_1", "responses=resp_1"),
            (&format!("/v1/responses/{}", "x".repeat(513)), ""),
        ] {
            assert_eq!(referred(path, ""), expected, "{path}");
        }
    }

    #[test]
    fn members_of_a_body_name_what_it_goes_on_with() {
        let (responses, messages) = ("/v1/responses", "/v1/messages");
        let generate = "/v1beta/models/gemini-3:generateContent";
        for (path, body, expected) in [
            (responses, r#"{"previous_response_id":"resp_1"}"#, "responses=resp_1"),
            (responses, r#"{"conversation":"conv_1"}"#, "conversations=conv_1"),
            (responses, r#"{"conversation":{"id":"conv_1"}}"#, "conversations=conv_1"),
            (messages, r#"{"conversation":"conv_1"}"#, ""),
            (
                messages,
                r#"{"thread":{"type":"continue","previous_message_id":"msg_1"}}"#,
                "threads=msg_1",
            ),
            (messages, r#"{"thread":{"type":"create"}}"#, ""),
            (generate, r#"{"cachedContent":"cachedContents/abc"}"#, "cached_contents=abc"),
            ("/v1beta/interactions", r#"{"previous_interaction_id":"v1_x"}"#, "interactions=v1_x"),
            (messages, r#"{"container":"container_1"}"#, "containers=container_1"),
            (
                responses,
                r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}"#,
                "vector_stores=vs_1",
            ),
            (responses, r#"{"tools":[{"name":"vs_code_2","container":{"type":"auto"}}]}"#, ""),
            (
                responses,
                r#"{"tools":[{"type":"code_interpreter","container":"cntr_1"}]}"#,
                "containers=cntr_1",
            ),
            (
                messages,
                r#"{"container":{"id":"container_1","skills":[{"skill_id":"skill_1"}]}}"#,
                "containers=container_1 skills=skill_1",
            ),
            (
                responses,
                r#"{"input":[{"content":[{"type":"input_file","file_id":"file-1"}]}]}"#,
                "files=file-1",
            ),
            (messages, r#"{"file_id" : "file_2"}"#, "files=file_2"),
            (messages, r#"{"file_ids" : [ "file_2", "file_3" ]}"#, "files=file_2"),
            (messages, r#"{"input":{"path":"file_2.txt"}}"#, ""),
            (generate, r#"{"fileUri":"https://www.youtube.com/watch?v=1"}"#, ""),
            (generate, r#"{"fileUri":"gs://bucket/v.mp4"}"#, ""),
            (
                generate,
                r#"{"fileUri":"https://example.com/a.mp4","x":{"fileUri":"https://g/v1/files/abc"}}"#,
                "files=abc",
            ),
            (
                generate,
                r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://g/v1beta/files/abc"}}]}]}"#,
                "files=abc",
            ),
            (messages, r#"{"messages":[{"content":"\"file_id\":\"file_1\""}]}"#, ""),
            (responses, r#"{"previous_response_id":null}"#, ""),
            (responses, r#"{"file_id":"#, ""),
        ] {
            assert_eq!(referred(path, body), expected, "{path} {body}");
        }
    }

    #[test]
    fn what_a_request_creates_is_known_from_path_and_body() {
        for (path, body, expected) in [
            ("/v1/responses", "{}", Some("responses")),
            ("/v1/responses/", "{}", Some("responses")),
            ("/v1/responses", r#"{"store":false}"#, None),
            ("/v1/responses/compact", "{}", Some("responses")),
            ("/v1/responses/resp_1/cancel", "", None),
            ("/v1/messages", "{}", None),
            ("/v1/messages", r#"{"thread":{"type":"create"}}"#, Some("threads")),
            ("/v1/messages", r#"{"thread":null}"#, None),
            ("/v1/messages/batches", "{}", Some("batches")),
            ("/v1/uploads/upload_1/complete", "{}", Some("files")),
            ("/upload/v1beta/files", "", Some("files")),
            ("/v1beta/cachedContents", "{}", Some("cached_contents")),
            ("/v1beta/models/gemini-3:batchGenerateContent", "{}", Some("batches")),
            ("/v1/chat/completions", "{}", None),
        ] {
            assert_eq!(creates(path, body), expected, "{path} {body}");
        }
    }

    #[test]
    fn the_beginning_of_a_response_names_what_was_created() {
        for (kind, response, expected) in [
            ("responses", r#"{"id":"resp_1","object":"response"#, "responses=resp_1"),
            (
                "responses",
                r#"{"id":"resp_1","conversation":{"id":"conv_1"}}"#,
                "responses=resp_1 conversations=conv_1",
            ),
            (
                "responses",
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":\
                 {\"id\":\"resp_1\"}}\n\nevent: x\ndata: {\"response\":{\"id\":\"resp_2\"}}\n\n",
                "responses=resp_1",
            ),
            (
                "responses",
                "\u{81}~{\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}",
                "responses=resp_1",
            ),
            (
                "threads",
                r#"{"id":"msg_1","container":{"id":"container_1"}}"#,
                "threads=msg_1 containers=container_1",
            ),
            (
                "threads",
                ": hello\n\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\"}}\n\n",
                "threads=msg_1",
            ),
            ("interactions", "data: {\"interaction\":{\"id\":\"v1_x\"}}\n\n", "interactions=v1_x"),
            ("cached_contents", r#"{"name":"cachedContents/abc"}"#, "cached_contents=abc"),
            ("files", r#"{"file":{"name":"files/abc","uri":"https://x"}}"#, "files=abc"),
            ("files", r#"{"object":"file","id":"file-1"}"#, "files=file-1"),
            ("batches", r#"{"id":"batch_1"}"#, "batches=batch_1"),
            ("responses", r#"{"id":7}"#, ""),
            ("responses", r#"{"id":"res"#, ""),
            ("responses", "data: {\"type\":\"ping\"}\n\n", ""),
            ("responses", "\u{fffd}", ""),
        ] {
            let kind = KindId::named(kind).unwrap();
            assert_eq!(words(&created(kind, response.as_bytes())), expected, "{response}");
        }
    }
}
