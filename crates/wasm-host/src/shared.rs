//! Shared data: the map that all VMs of one `vm_id` see, with the rules of Envoy's host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Shared data; a clone is the same map.
#[derive(Clone, Debug, Default)]
pub struct SharedData(Rc<RefCell<Map>>);

#[derive(Debug, Default)]
struct Map {
    values: BTreeMap<String, (Vec<u8>, u32)>,
    /// The token of the latest write of any key.
    last_cas: u32,
}

/// A lost compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CasMismatch;

impl SharedData {
    /// The value of a key and its token.
    pub fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.borrow().values.get(key).cloned()
    }

    /// Writes a key. Zero writes in any case, and a key that is missing takes any token.
    ///
    /// # Errors
    /// If the key was written since the token was read.
    pub fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        let mut map = self.0.borrow_mut();
        if let Some((_, current)) = map.values.get(key)
            && cas != 0
            && cas != *current
        {
            return Err(CasMismatch);
        }
        map.last_cas = map.last_cas.wrapping_add(1).max(1);
        let next = map.last_cas;
        map.values.insert(key.to_owned(), (value.to_vec(), next));
        Ok(())
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.0.borrow().values.keys().cloned().collect()
    }

    /// How many bytes keys and values have.
    pub fn size(&self) -> usize {
        self.0.borrow().values.iter().map(|(key, (value, _))| key.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_with_an_old_token_is_refused() {
        let shared = SharedData::default();
        shared.set("key", b"first", u32::MAX).unwrap();
        let (_, token) = shared.get("key").unwrap();
        shared.set("key", b"second", token).unwrap();
        assert_eq!(shared.set("key", b"third", token), Err(CasMismatch));
        shared.set("key", b"fourth", 0).unwrap();
        assert_eq!(shared.get("key").unwrap().0, b"fourth");
    }

    #[test]
    fn a_clone_sees_what_the_other_writes() {
        let shared = SharedData::default();
        shared.clone().set("key", b"value", 0).unwrap();
        assert_eq!(shared.keys(), ["key"]);
        assert_eq!(shared.size(), 8);
    }
}
