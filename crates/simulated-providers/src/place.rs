//! Where and when a request is served: what is known there, and what a reply leaves there.

use std::sync::Arc;
use std::time::Instant;

use axum::http::HeaderMap;
use serde_json::Value;

use super::ciphertext::Foreign;
use super::group::Group;
use super::lock::locked;
use super::objects::{Kind, Object, ObjectStore, Phase};

/// What a request meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) group: &'a Group,
    /// The memory of the WebSocket that it came on.
    pub(super) socket: Option<&'a ObjectStore>,
    pub(super) headers: &'a HeaderMap,
    pub(super) foreign: Foreign,
    pub(super) now: Instant,
}

impl Place<'_> {
    /// A copy of an object that is known here.
    pub(super) fn find(&self, kind: Kind, id: &str) -> Option<Object> {
        let on_socket = self.socket.and_then(|socket| socket.get(kind, id, self.now)).cloned();
        on_socket.or_else(|| locked(&self.group.objects).get(kind, id, self.now).cloned())
    }

    /// The prompt that an object continues.
    pub(super) fn history(&self, kind: Kind, id: &str) -> Option<Arc<str>> {
        let history = |object: &Object| Arc::clone(&object.history);
        let on_socket = self.socket.and_then(|socket| socket.get(kind, id, self.now)).map(history);
        on_socket.or_else(|| locked(&self.group.objects).get(kind, id, self.now).map(history))
    }

    pub(super) fn knows(&self, kind: Kind, id: &str) -> bool {
        self.history(kind, id).is_some()
    }

    /// Whether the request asks for this beta feature.
    pub(super) fn has_beta(&self, beta: &str) -> bool {
        let values = self.headers.get_all("anthropic-beta").iter();
        let mut names = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
        names.any(|name| name.trim() == beta)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a reply leaves behind when its first byte is about to leave.
#[derive(Debug)]
pub(super) enum Trace {
    /// An object.
    Object { id: String, object: Object },
    /// An object that is known on its WebSocket only.
    OnSocket { id: String, object: Object },
    /// What a conversation has grown by.
    Growth { conversation: String, items: Vec<Value>, history: String },
    /// The answer of a thread that this one continues.
    Continued { id: String },
}

impl Trace {
    pub(super) fn leave(self, group: &Group, socket: Option<&mut ObjectStore>, now: Instant) {
        let mut objects = locked(&group.objects);
        match self {
            Self::Object { id, object } => objects.put(id, object),
            Self::OnSocket { id, object } => {
                if let Some(socket) = socket {
                    socket.put(id, object);
                }
            }
            Self::Growth { conversation, items, history } => {
                if objects.get(Kind::Conversation, &conversation, now).is_some()
                    && let Some(mut object) = objects.take(&conversation)
                {
                    object.items.extend(items);
                    object.history = format!("{}{history}", object.history).into();
                    objects.put(conversation, object);
                }
            }
            Self::Continued { id } => objects.set_phase(&id, Phase::Continued),
        }
    }

    /// The id of what was created and outlives the connection.
    pub(super) fn created(&self) -> Option<&str> {
        match self {
            Self::Object { object, .. } if object.kind == Kind::Item => None,
            Self::Object { id, .. } => Some(id),
            Self::OnSocket { .. } | Self::Growth { .. } | Self::Continued { .. } => None,
        }
    }
}
