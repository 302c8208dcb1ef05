//! A few of many credentials, drawn by weight.
//!
//! To read what is known of a credential costs two calls of the host, and of a thousand credentials
//! milliseconds. Of a few that are drawn anew for every session the best is nearly as good as of all:
//! with sixteen of two hundred no credential gets three sessions more than another.

use crate::config::Credential;
use crate::hash::KeyHash;

/// The most credentials that are compared where one of them has room.
pub(super) const MOST: usize = 16;

/// At least one of them and at most [`MOST`], in their order: for each equal part of all weights
/// the one at a place in it that is drawn. Where one has the weight of many, it is drawn as often.
pub(super) fn of<'p>(candidates: &[&'p Credential], draw: KeyHash) -> Vec<&'p Credential> {
    let total: f64 = candidates.iter().map(|it| f64::from(it.weight)).sum();
    let part = total / MOST as f64;
    let mut drawn = 0;
    let mut weights = 0.0;
    let mut few = Vec::with_capacity(MOST);
    for credential in candidates {
        weights += f64::from(credential.weight);
        let before = drawn;
        while drawn < MOST && (drawn as f64 + fraction(draw, drawn)) * part < weights {
            drawn += 1;
        }
        if drawn > before {
            few.push(*credential);
        }
    }
    few
}

/// One of the numbers of a draw, from 0 to less than 1.
fn fraction(draw: KeyHash, number: usize) -> f64 {
    f64::from((draw.0 as u64).rotate_left(4 * number as u32) as u32) / (1_u64 << 32) as f64
}
