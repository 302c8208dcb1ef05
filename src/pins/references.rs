//! The state that a request refers to, and the kind of state that it creates.

use super::kinds::{KINDS, Kind, KindId};
use crate::body::{Body, PathId, Paths};
use crate::json::{Kind as JsonKind, Value};

/// Bytes of an id that count. No real one is this long.
const LONGEST_ID: usize = 512;

/// The most ids of one request that count.
const MOST_IDS: usize = 4;

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

/// Where ids are in a body.
#[derive(Clone, Debug)]
pub struct IdPaths {
    members: Vec<(KindId, PathId)>,
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
            for path in kind.members {
                members.push((id, paths.add(path.iter().copied())));
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

    /// Whether a member of the body names an id of any kind.
    pub fn are_in(&self, body: &Body<'_>) -> bool {
        self.members.iter().any(|(_, path)| body.get(*path).is_some())
    }

    /// The ids that a request refers to, the most telling first. Ids of files stand anywhere in a
    /// body, and are looked for only if there may be any.
    pub fn find(&self, path: &str, body: &Body<'_>, may_have_files: bool) -> Vec<Id> {
        let mut ids: Vec<Id> = in_path(path).into_iter().collect();
        for (kind, path) in &self.members {
            ids.extend(body.get(*path).and_then(text_of_id).and_then(|text| id(*kind, &text)));
        }
        for (name, path) in
            [("vector_stores", self.tools), ("containers", self.tools), ("skills", self.container)]
        {
            let part = body.get(path).filter(|part| part.kind() != JsonKind::String);
            ids.extend(part.and_then(|part| first_inside(name, &part.text())));
        }
        if may_have_files {
            ids.extend(first_inside("files", body.bytes()));
            ids.extend(first_file_uri(body.bytes()));
        }
        ids.truncate(MOST_IDS);
        ids
    }

    /// The kind of state that a `POST`, or a WebSocket, creates, should it succeed.
    pub fn creates(&self, path: &str, body: &Body<'_>) -> Option<KindId> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.ends_with("/messages") {
            return body.get(self.thread).and_then(|_| KindId::named("threads"));
        }
        if path.ends_with(":batchGenerateContent") {
            return KindId::named("batches");
        }
        let path = path.strip_suffix("/compact").unwrap_or(path);
        let segment = match path.strip_suffix("/complete") {
            Some(_) => "files",
            None => path.rsplit('/').next()?,
        };
        let is_stored = body.get(self.store).is_none_or(|store| store.kind() != JsonKind::False);
        KindId::of_segment(segment).filter(|_| is_stored)
    }

    /// Whether a request may be carried out only once, and so must not be repeated after it may
    /// have been: it continues a thread, whose every message can be continued once, or it goes on
    /// in the background.
    pub fn is_once(&self, body: &Body<'_>) -> bool {
        body.get(self.thread).is_some()
            || body.get(self.background).is_some_and(|it| it.kind() == JsonKind::True)
    }
}

/// The id in a path: what stands behind the first segment that names a collection.
pub fn in_path(path: &str) -> Option<Id> {
    let mut segments = path.split('/');
    let kind = segments.find_map(KindId::of_segment)?;
    let text = segments.next().filter(|text| !NO_IDS.contains(text))?;
    id(kind, text.as_bytes())
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

/// The first string in a part of a body that begins as ids of a kind do. In a text inside the part
/// the quotation mark would be escaped.
fn first_inside(kind: &str, part: &[u8]) -> Option<Id> {
    let kind_id = KindId::named(kind)?;
    let Kind { prefixes, .. } = KINDS.get(usize::from(kind_id.0))?;
    for prefix in *prefixes {
        let quoted = [b"\"", prefix.as_bytes()].concat();
        for at in memchr::memmem::find_iter(part, &quoted) {
            if at.checked_sub(1).and_then(|before| part.get(before)) == Some(&b'\\') {
                continue;
            }
            let string = part.get(at + 1..)?;
            let (text, behind) = string.split_at(memchr::memchr(b'"', string)?);
            // The name of a member is followed by a colon; words such as `file_search` have no
            // digit, which ids always have.
            let is_name = behind.get(1..)?.trim_ascii_start().starts_with(b":");
            if !is_name && text.iter().any(u8::is_ascii_digit) {
                return id(kind_id, text);
            }
        }
    }
    None
}

/// The first file that Gemini's `fileData` names.
fn first_file_uri(body: &[u8]) -> Option<Id> {
    for name in [&b"\"fileUri\""[..], b"\"file_uri\""] {
        if let Some(at) = memchr::memmem::find(body, name) {
            let value = body.get(at + name.len()..)?.trim_ascii_start().strip_prefix(b":")?;
            let string = value.trim_ascii_start().strip_prefix(b"\"")?;
            return id(KindId::named("files")?, string.get(..memchr::memchr(b'"', string)?)?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(ids: &[Id]) -> String {
        let words = ids.iter().map(|id| {
            let kind = id.kind.kind().unwrap().name;
            format!("{kind}={}", String::from_utf8_lossy(&id.text))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn referred(path: &str, body: &str) -> String {
        let mut paths = Paths::default();
        let ids = IdPaths::new(&mut paths);
        words(&ids.find(path, &Body::read(&paths, body.as_bytes()), true))
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
        ] {
            assert_eq!(referred(path, ""), expected, "{path}");
        }
    }

    #[test]
    fn members_of_a_body_name_what_it_goes_on_with() {
        for (body, expected) in [
            (r#"{"previous_response_id":"resp_1"}"#, "responses=resp_1"),
            (r#"{"conversation":"conv_1"}"#, "conversations=conv_1"),
            (r#"{"conversation":{"id":"conv_1"}}"#, "conversations=conv_1"),
            (r#"{"thread":{"type":"continue","previous_message_id":"msg_1"}}"#, "threads=msg_1"),
            (r#"{"thread":{"type":"create"}}"#, ""),
            (r#"{"cachedContent":"cachedContents/abc"}"#, "cached_contents=abc"),
            (r#"{"previous_interaction_id":"v1_x"}"#, "interactions=v1_x"),
            (r#"{"container":"container_1"}"#, "containers=container_1"),
            (
                r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}"#,
                "vector_stores=vs_1",
            ),
            (
                r#"{"tools":[{"type":"code_interpreter","container":"cntr_1"}]}"#,
                "containers=cntr_1",
            ),
            (
                r#"{"container":{"id":"container_1","skills":[{"skill_id":"skill_1"}]}}"#,
                "containers=container_1 skills=skill_1",
            ),
            (
                r#"{"input":[{"content":[{"type":"input_file","file_id":"file-1"}]}]}"#,
                "files=file-1",
            ),
            (r#"{"file_id" : "file_2"}"#, "files=file_2"),
            (
                r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://g/v1beta/files/abc"}}]}]}"#,
                "files=abc",
            ),
            (r#"{"messages":[{"content":"\"file-1\" and \"fileUri\":\"x\""}]}"#, ""),
            (r#"{"previous_response_id":null}"#, ""),
            (r#"{"file_id":"#, ""),
        ] {
            assert_eq!(referred("/v1/x", body), expected, "{body}");
        }
    }

    #[test]
    fn a_request_names_no_more_than_a_few() {
        let body = r#"{"previous_response_id":"a","conversation":"b","cachedContent":"c",
            "previous_interaction_id":"d","container":"e"}"#;
        let words = referred("/v1/responses/resp_1", body);
        assert_eq!(words, "responses=resp_1 responses=a conversations=b interactions=d");
        assert_eq!(referred(&format!("/v1/responses/{}", "x".repeat(513)), ""), "");
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
