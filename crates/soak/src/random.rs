//! Random numbers that depend on names alone: the seed, a session, a turn.
//!
//! What is sent follows from them. When it is sent does not: that depends on the machine.

/// A generator: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator of a thing that these numbers name.
    pub(crate) fn of(names: &[u64]) -> Self {
        let mut random = Self(0);
        for name in names {
            random.0 = random.draw() ^ name;
        }
        Self(random.draw())
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of so many, which are at least one.
    pub(crate) fn below(&mut self, many: usize) -> usize {
        ((u128::from(self.draw()) * many as u128) >> 64) as usize
    }

    /// A number of a range, both ends included.
    pub(crate) fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Whether something happens that happens so often in a hundred cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        list.get(self.below(list.len().max(1))).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_give_the_same_numbers() {
        let draw = |names: &[u64]| {
            let mut random = Random::of(names);
            [random.below(1000), random.between(5, 9), random.below(7)]
        };
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        assert!((0..100).all(|seed| (5..=9).contains(&Random::of(&[seed]).between(5, 9))));
    }
}
