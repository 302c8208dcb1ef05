//! Medians with their spread, and whether a difference is one.
//!
//! The machine drifts, so values are compared in pairs: ours and the other's of the same round. A
//! difference is resolved if the rounds agree on its direction: all of them, or all but one in
//! eight. By chance alone, without any difference, five rounds agree one time in sixteen, and seven
//! of eight one time in fourteen; fewer than five rounds never resolve anything.

use serde::Serialize;

const FEWEST: usize = 5;

/// The median of some values, the smallest and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// `None` of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// On which side of a threshold some values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Below,
    Above,
    NotResolved,
}

impl Side {
    /// A value at the threshold is on neither side.
    pub(crate) fn of(values: &[f64], threshold: f64) -> Self {
        let dissenters = values.len() / 8;
        let agree = |count: usize| values.len() >= FEWEST && count + dissenters >= values.len();
        if agree(values.iter().filter(|&&value| value < threshold).count()) {
            Self::Below
        } else if agree(values.iter().filter(|&&value| value > threshold).count()) {
            Self::Above
        } else {
            Self::NotResolved
        }
    }
}

/// Ours by theirs, round by round.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// Ours less theirs, round by round.
pub(crate) fn differences(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_median_and_the_spread() {
        for (values, median, min, max) in [
            (&[3.0, 1.0, 2.0][..], 2.0, 1.0, 3.0),
            (&[4.0, 1.0, 2.0, 9.0], 3.0, 1.0, 9.0),
            (&[5.0], 5.0, 5.0, 5.0),
        ] {
            assert_eq!(Summary::of(values), Some(Summary { median, min, max }));
        }
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_difference_is_resolved_if_the_rounds_agree() {
        for (values, expected) in [
            (&[1.1, 1.2, 1.1, 1.3, 1.2][..], Side::Above),
            (&[0.9, 0.8, 0.9, 0.7, 0.8], Side::Below),
            (&[1.1, 1.2, 0.9, 1.3, 1.2], Side::NotResolved),
            (&[1.0, 1.0, 1.0, 1.0, 1.0], Side::NotResolved),
        ] {
            assert_eq!(Side::of(values, 1.0), expected, "{values:?}");
        }
    }

    #[test]
    fn one_round_of_eight_may_disagree() {
        let mut values = [1.1; 8];
        values[3] = 0.5;
        assert_eq!(Side::of(&values, 1.0), Side::Above);
        values[4] = 0.9;
        assert_eq!(Side::of(&values, 1.0), Side::NotResolved);
    }

    #[test]
    fn few_rounds_resolve_nothing() {
        assert_eq!(Side::of(&[2.0; 4], 1.0), Side::NotResolved);
        assert_eq!(Side::of(&[], 1.0), Side::NotResolved);
    }

    #[test]
    fn pairs_are_those_of_the_same_round() {
        assert_eq!(ratios(&[2.0, 9.0], &[1.0, 3.0]), [2.0, 3.0]);
        assert_eq!(differences(&[2.0, 9.0], &[1.0, 3.0]), [1.0, 6.0]);
    }
}
