//! Things with numbers that are used again.

/// Things, each at its number.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, thing: T) -> usize {
        let at = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(at) {
            Some(place) => *place = Some(thing),
            None => self.places.push(Some(thing)),
        }
        at
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.places.get_mut(at)?.as_mut()
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let thing = self.places.get_mut(at)?.take()?;
        self.free.push(at);
        Some(thing)
    }

    /// Removes all that are meant, in the order of their numbers. The numbers are not used again:
    /// events may still name them.
    pub(crate) fn remove_all(&mut self, is_meant: impl Fn(&T) -> bool) -> Vec<T> {
        let meant = self.places.iter_mut().filter(|place| place.as_ref().is_some_and(&is_meant));
        meant.filter_map(Option::take).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_unless_events_may_name_them() {
        let mut slab = Slab::default();
        let numbers = ["a", "b", "c"].map(|thing| slab.insert(thing));
        assert_eq!(slab.remove(numbers[1]), Some("b"));
        assert_eq!(slab.remove(numbers[1]), None);
        assert_eq!(slab.insert("d"), numbers[1]);
        assert_eq!(slab.remove_all(|thing| *thing < "d"), ["a", "c"]);
        assert_eq!(slab.insert("e"), 3);
        assert_eq!(slab.get_mut(numbers[1]), Some(&mut "d"));
        assert!(!slab.is_empty());
    }
}
