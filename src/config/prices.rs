//! The section `observe.prices`: what the operator pays for tokens.

use serde_json::Value;

use super::fields::Fields;
use super::{Pattern, Pool, Problems};
use crate::outcome::TokenType;

/// What tokens cost, by pool and model.
#[derive(Debug, Default)]
pub struct Prices {
    /// What they are paid in: a word for metrics.
    pub currency: String,
    of: Vec<PriceOf>,
}

/// A price, and what it is of.
#[derive(Debug)]
struct PriceOf {
    /// No name means every pool.
    pools: Vec<String>,
    /// No pattern means every model, also one that is not known.
    models: Vec<Pattern>,
    price: Price,
}

/// What a token costs, by its type: in millionths of what a million of them cost in the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price([u64; 4]);

/// The unit of a [`Price`], and the most that one may be: a million for a million tokens.
const UNIT: f64 = 1e6;

impl Price {
    /// What tokens cost, in millionths of the currency, to the nearest one.
    pub fn of(self, tokens: impl Iterator<Item = (TokenType, u64)>) -> u64 {
        rounded(tokens.map(|(kind, count)| self.of_one(kind).saturating_mul(count)))
    }

    /// How much more they would have cost without a cache to read from.
    pub fn saved(self, tokens: impl Iterator<Item = (TokenType, u64)>) -> u64 {
        let more = self.of_one(TokenType::Input).saturating_sub(self.of_one(TokenType::CacheRead));
        let read = tokens.filter(|(kind, _)| *kind == TokenType::CacheRead);
        rounded(read.map(|(_, count)| more.saturating_mul(count)))
    }

    fn of_one(self, kind: TokenType) -> u64 {
        let mut known = TokenType::ALL.into_iter().zip(self.0);
        known.find(|(known, _)| *known == kind).map_or(0, |(_, price)| price)
    }
}

fn rounded(parts: impl Iterator<Item = u64>) -> u64 {
    const UNIT: u64 = 1_000_000;
    parts.fold(UNIT / 2, u64::saturating_add) / UNIT
}

impl Prices {
    pub(super) fn read(mut fields: Fields<'_>) -> Self {
        let elements = fields.array("of");
        if !elements.is_empty() {
            fields.require("currency");
        }
        let currency = fields.word("currency").unwrap_or_default();
        let of = elements.into_iter();
        let of = of.map(|(path, value)| PriceOf::read(path, value, fields.problems())).collect();
        fields.finish();
        Self { currency, of }
    }

    /// Reports names of pools that are none.
    pub(super) fn check(&self, pools: &[Pool], problems: &mut Problems) {
        for (at, of) in self.of.iter().enumerate() {
            for name in of.pools.iter().filter(|name| pools.iter().all(|it| it.name != **name)) {
                let path = format!("observe.prices.of[{at}].pools");
                problems.add(&path, format!("{name:?} is no pool"));
            }
        }
    }

    /// The price of a model in a pool: the first that is for both.
    pub fn find(&self, pool: &str, model: &str) -> Option<Price> {
        let is_it = |of: &&PriceOf| {
            (of.pools.is_empty() || of.pools.iter().any(|name| name == pool))
                && (of.models.is_empty() || of.models.iter().any(|it| it.is_match(model)))
        };
        self.of.iter().find(is_it).map(|of| of.price)
    }
}

impl PriceOf {
    fn read(path: String, value: Value, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(path, value, problems);
        let pools = fields.strings("pools");
        let models = fields.strings("models").into_iter().map(Pattern).collect();
        let price = TokenType::ALL.map(|kind| {
            fields.require(kind.as_str());
            let price = fields.number_within(kind.as_str(), 0.0, UNIT).unwrap_or(0.0);
            // Rounded to the nearest; it is not negative.
            (price * UNIT + 0.5) as u64
        });
        fields.finish();
        Self { pools, models, price: Price(price) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cost_to_a_millionth() {
        // 3, 0.3, 3.75 and 15 for a million.
        let price = Price([3_000_000, 300_000, 3_750_000, 15_000_000]);
        let tokens = || TokenType::ALL.into_iter().zip([10, 1_000, 100, 2]);
        assert_eq!(price.of(tokens()), 30 + 300 + 375 + 30);
        assert_eq!(price.saved(tokens()), 2_700);
        let one = || [(TokenType::CacheRead, 1)].into_iter();
        assert_eq!((price.of(one()), price.saved(one())), (0, 3));
        // Where reading costs more than not to, nothing was saved.
        assert_eq!(Price([1, 2, 0, 0]).saved(tokens()), 0);
    }
}
