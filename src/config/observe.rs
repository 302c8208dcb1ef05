//! The section `observe`: what is shown of what the filter does.

use super::fields::Fields;
use super::prices::Prices;
use super::{Pool, Problems, Profile};

/// Up to so many credentials are counted one by one, where the configuration does not say.
const COUNTED_BY_DEFAULT: usize = 64;

/// The section `observe`.
#[derive(Debug)]
pub struct ObserveConfig {
    /// Whether metrics say which credential they are of. By default, if there are at most 64.
    pub by_credential: bool,
    /// Which responses are read for the tokens that they have cost.
    pub usage: UsageReading,
    /// Which decisions are put into words.
    pub decision: Words,
    /// What tokens cost; nothing is known of those that are not in it.
    pub prices: Prices,
}

/// Which responses are read for the tokens that they have cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageReading {
    /// None.
    Off,
    /// Those that are not compressed.
    Plain,
    /// All: providers are asked not to compress them.
    Identity,
}

impl UsageReading {
    fn read(fields: &mut Fields<'_>, profile: Profile) -> Self {
        let words = [("off", Self::Off), ("plain", Self::Plain), ("identity", Self::Identity)];
        let usage = fields.one_of("usage", &words);
        if profile == Profile::Recommended {
            return usage.unwrap_or(Self::Identity);
        }
        if usage.is_some_and(|usage| usage != Self::Off) {
            fields.problem("usage", "the profile reference reads no usage");
        }
        Self::Off
    }
}

/// Which decisions are put into words, for access logs and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Every one.
    Always,
    /// Those that are more than a session at its home, or a request without one, and those whose
    /// credential failed.
    OnChange,
    /// None.
    Off,
}

/// What is written in the section, before the pools are known.
pub(super) struct Written {
    by_credential: Option<bool>,
    usage: UsageReading,
    decision: Words,
    prices: Prices,
}

impl Written {
    pub(super) fn read(mut fields: Fields<'_>, profile: Profile) -> Self {
        let by_credential = fields.boolean("by_credential");
        let usage = UsageReading::read(&mut fields, profile);
        let words =
            [("always", Words::Always), ("on_change", Words::OnChange), ("off", Words::Off)];
        let decision = fields.one_of("decision", &words).unwrap_or(Words::Always);
        let prices = Prices::read(fields.object("prices"));
        fields.finish();
        Self { by_credential, usage, decision, prices }
    }

    pub(super) fn settle(self, pools: &[Pool], problems: &mut Problems) -> ObserveConfig {
        self.prices.check(pools, problems);
        let credentials: usize = pools.iter().map(|pool| pool.credentials.len()).sum();
        let by_credential = self.by_credential.unwrap_or(credentials <= COUNTED_BY_DEFAULT);
        let Self { usage, decision, prices, .. } = self;
        ObserveConfig { by_credential, usage, decision, prices }
    }
}
