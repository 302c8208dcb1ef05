//! Random numbers that depend on a seed alone.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Every
//! turn of every session has a generator of its own, so two strategies meet the same sessions, the
//! same pauses and the same choices of an Envoy, whatever came before.

use std::f64::consts::TAU;

/// A generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a thing that these numbers name.
    pub fn of(names: &[u64]) -> Self {
        let mut random = Self(0);
        for name in names {
            random.0 = random.draw() ^ name;
        }
        Self(random.draw())
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        ((self.draw() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// One of so many, which are at least one.
    pub fn below(&mut self, many: usize) -> usize {
        ((u128::from(self.draw()) * many as u128) >> 64) as usize
    }

    /// A number of a range, both ends included.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Whether something happens that happens so often in a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of a list; `None` if that is empty.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        list.get(self.below(list.len().max(1))).copied()
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponentially distributed.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(self.unit())
    }

    /// Log-normally distributed.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let (radius, angle) = (self.unit(), self.unit());
        let normal = libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(TAU * angle);
        median * libm::exp(sigma * normal)
    }

    /// Geometrically distributed, at least 1.
    pub fn geometric(&mut self, mean: f64) -> u32 {
        if mean <= 1.0 {
            return 1;
        }
        1 + (libm::log(self.unit()) / libm::log(1.0 - 1.0 / mean)) as u32
    }

    /// Sixteen bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        ((u128::from(self.draw()) << 64) | u128::from(self.draw())).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_medians_are_what_they_are_called() {
        let mut random = Random::of(&[1, 2]);
        let many = 100_000;
        let mean = |total: f64| total / f64::from(many);
        let exponential = mean((0..many).map(|_| random.exponential(3.0)).sum());
        let geometric = mean((0..many).map(|_| f64::from(random.geometric(2.5))).sum());
        let above = (0..many).filter(|_| random.log_normal(7.0, 1.3) > 7.0).count();
        assert!((2.95..3.05).contains(&exponential), "{exponential}");
        assert!((2.47..2.53).contains(&geometric), "{geometric}");
        assert!((49_000..51_000).contains(&above), "{above}");
    }

    #[test]
    fn a_number_of_a_range_may_be_both_ends() {
        let numbers = (0..100).map(|seed| Random::of(&[seed]).between(5, 9));
        let different: std::collections::BTreeSet<_> = numbers.collect();
        assert_eq!(different.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_generator_depends_on_every_name() {
        let first = Random::of(&[1, 2]).draw();
        assert_eq!(first, Random::of(&[1, 2]).draw());
        assert_ne!(first, Random::of(&[1, 3]).draw());
        assert_ne!(first, Random::of(&[2, 2]).draw());
        assert_ne!(first, Random::of(&[2, 1]).draw());
    }
}
