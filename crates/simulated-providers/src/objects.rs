//! State that a provider keeps for its customers: responses, conversations, files and the like.
//!
//! Every object is known by its id. The store is bounded: those that were written longest ago go
//! when there are too many or they are too long.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

/// What an object is. Ids of one kind are unknown as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Batch,
    CachedContent,
    Container,
    Conversation,
    File,
    Interaction,
    /// An item of a response or a conversation.
    Item,
    Response,
    Skill,
    /// An answer of Anthropic that a later request may continue, once.
    Thread,
    Upload,
    VectorStore,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    /// As a request for it sees it; of a thread the request that an answer completes.
    pub(super) shown: Value,
    /// The items in it, or those that it was made from.
    pub(super) items: Vec<Value>,
    /// The prompt that a later request continues.
    pub(super) history: Arc<str>,
    /// `None` for those that stay until they are deleted.
    pub(super) expires: Option<Instant>,
    pub(super) phase: Phase,
}

/// How far an object has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing more happens to it by itself.
    Ready,
    /// Work in the background that the next look at it finds done.
    Queued,
    /// A thread that a request continues, which is not answered yet.
    InFlight,
    /// A thread that has been continued.
    Continued,
}

impl Object {
    pub(super) fn new(kind: Kind, shown: Value) -> Self {
        Self {
            kind,
            shown,
            items: Vec::new(),
            history: "".into(),
            expires: None,
            phase: Phase::Ready,
        }
    }

    fn length(&self) -> usize {
        let items: usize = self.items.iter().map(|item| item.to_string().len()).sum();
        self.history.len() + self.shown.to_string().len() + items
    }
}

/// The objects of a group, or of one WebSocket.
#[derive(Debug, Default)]
pub(super) struct ObjectStore {
    objects: HashMap<String, Stored>,
    oldest_first: BTreeMap<u64, String>,
    /// The number of the next object.
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Stored {
    number: u64,
    length: usize,
    object: Object,
}

impl ObjectStore {
    const MAX_OBJECTS: usize = 65_536;
    const MAX_BYTES: usize = 64 << 20;

    /// An object that has not expired.
    pub(super) fn get(&self, kind: Kind, id: &str, now: Instant) -> Option<&Object> {
        let object = self.objects.get(id).map(|stored| &stored.object);
        object.filter(|object| object.kind == kind && !is_over(object, now))
    }

    /// Puts an object in, in place of the one with the same id.
    pub(super) fn put(&mut self, id: String, object: Object) {
        self.take(&id);
        let (number, length) = (self.next, object.length());
        self.next += 1;
        self.bytes += length;
        self.oldest_first.insert(number, id.clone());
        self.objects.insert(id, Stored { number, length, object });
        // The newest stays, however long: the next turn continues it.
        while self.objects.len() > 1
            && (self.objects.len() > Self::MAX_OBJECTS || self.bytes > Self::MAX_BYTES)
        {
            let Some((_, oldest)) = self.oldest_first.pop_first() else { return };
            self.take(&oldest);
        }
    }

    /// Takes an object out, expired or not.
    pub(super) fn take(&mut self, id: &str) -> Option<Object> {
        let stored = self.objects.remove(id)?;
        self.oldest_first.remove(&stored.number);
        self.bytes -= stored.length;
        Some(stored.object)
    }

    /// Sets the phase of an object that is there.
    pub(super) fn set_phase(&mut self, id: &str, phase: Phase) {
        if let Some(stored) = self.objects.get_mut(id) {
            stored.object.phase = phase;
        }
    }

    /// What a list of one kind shows, oldest first.
    pub(super) fn list(&self, kind: Kind, now: Instant) -> Vec<Value> {
        let objects = self.oldest_first.values().filter_map(|id| self.get(kind, id, now));
        objects.map(|object| object.shown.clone()).collect()
    }
}

fn is_over(object: &Object, now: Instant) -> bool {
    object.expires.is_some_and(|expires| now >= expires)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn file(history: &str) -> Object {
        Object { history: history.into(), ..Object::new(Kind::File, json!({})) }
    }

    #[test]
    fn the_store_is_bounded_and_keeps_the_newest() {
        let (mut store, now) = (ObjectStore::default(), Instant::now());
        for index in 0..=ObjectStore::MAX_OBJECTS {
            store.put(index.to_string(), file("x"));
        }
        assert!(store.get(Kind::File, "0", now).is_none());
        assert!(store.get(Kind::File, "1", now).is_some());
        store.put("long".into(), file(&"x".repeat(ObjectStore::MAX_BYTES + 1)));
        assert!(store.get(Kind::File, "long", now).is_some() && store.objects.len() == 1);
        assert_eq!(store.oldest_first.len(), 1);
    }

    #[test]
    fn an_object_is_known_as_what_it_is_until_it_expires() {
        let (mut store, now) = (ObjectStore::default(), Instant::now());
        let expires = Some(now + Duration::from_secs(300));
        store.put("a".into(), Object { expires, ..file("") });
        assert!(store.get(Kind::File, "a", now).is_some());
        assert!(store.get(Kind::Batch, "a", now).is_none());
        assert!(store.get(Kind::File, "a", now + Duration::from_secs(300)).is_none());
    }

    #[test]
    fn an_object_put_again_counts_once() {
        let (mut store, now) = (ObjectStore::default(), Instant::now());
        store.put("a".into(), file("xx"));
        store.put("a".into(), file("x"));
        assert_eq!(store.list(Kind::File, now).len(), 1);
        assert_eq!(store.bytes, file("x").length());
        store.take("a");
        assert_eq!((store.bytes, store.oldest_first.len()), (0, 0));
    }
}
