//! The section `observe`: what is shown of what the filter does.

use super::Pool;
use super::fields::Fields;

/// Up to so many credentials are counted one by one, where the configuration does not say.
const COUNTED_BY_DEFAULT: usize = 64;

/// The section `observe`.
#[derive(Debug)]
pub struct ObserveConfig {
    /// Whether metrics say which credential they are of. By default, if there are at most 64.
    pub by_credential: bool,
}

/// What is written in the section, before the pools are known.
pub(super) struct Written {
    by_credential: Option<bool>,
}

impl Written {
    pub(super) fn read(mut fields: Fields<'_>) -> Self {
        let by_credential = fields.boolean("by_credential");
        fields.finish();
        Self { by_credential }
    }

    pub(super) fn settle(self, pools: &[Pool]) -> ObserveConfig {
        let credentials: usize = pools.iter().map(|pool| pool.credentials.len()).sum();
        let by_credential = self.by_credential.unwrap_or(credentials <= COUNTED_BY_DEFAULT);
        ObserveConfig { by_credential }
    }
}
