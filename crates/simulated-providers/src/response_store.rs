//! The responses that `previous_response_id` continues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The histories that an account, or one WebSocket, remembers. The oldest go when there are too
/// many or they are too long.
#[derive(Debug, Default)]
pub(super) struct ResponseStore {
    histories: HashMap<String, Arc<str>>,
    oldest_first: VecDeque<String>,
    bytes: usize,
}

impl ResponseStore {
    const MAX_RESPONSES: usize = 4096;
    const MAX_BYTES: usize = 64 << 20;

    pub(super) fn get(&self, id: &str) -> Option<Arc<str>> {
        self.histories.get(id).cloned()
    }

    pub(super) fn insert(&mut self, id: String, history: Arc<str>) {
        self.bytes += history.len();
        self.oldest_first.push_back(id.clone());
        self.histories.insert(id, history);
        // The newest stays, however long: the next turn continues it.
        while self.oldest_first.len() > 1
            && (self.oldest_first.len() > Self::MAX_RESPONSES || self.bytes > Self::MAX_BYTES)
        {
            let oldest = self.oldest_first.pop_front().and_then(|id| self.histories.remove(&id));
            self.bytes -= oldest.map_or(0, |history| history.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_bounded_and_keeps_the_newest() {
        let mut store = ResponseStore::default();
        for index in 0..=ResponseStore::MAX_RESPONSES {
            store.insert(index.to_string(), "x".into());
        }
        assert!(store.get("0").is_none() && store.get("1").is_some());
        store.insert("long".into(), "x".repeat(ResponseStore::MAX_BYTES + 1).into());
        assert!(store.get("long").is_some() && store.histories.len() == 1);
    }
}
