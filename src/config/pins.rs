//! The section `pins`: which state of providers is followed.

use super::Profile;
use super::fields::Fields;
use crate::body::Paths;
use crate::pins::{IdPaths, KindId};

/// The section `pins`.
#[derive(Debug)]
pub struct PinConfig {
    /// The most pins that are kept; the least recently used of a row gives way. 0 to 16,777,216,
    /// default 65,536; with 0 there are none.
    pub max: u32,
    /// What a request is to do whose state is with a credential that cannot serve.
    pub when_blocked: WhenBlocked,
    /// Where ids are in a request.
    pub ids: IdPaths,
    kinds: Vec<KindId>,
}

/// What a request is to do whose state is with a credential that cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBlocked {
    /// Its client waits: it gets a 429 with the end of the block.
    Wait,
    /// It goes where it would go without the id.
    Elsewhere,
}

impl PinConfig {
    pub(super) fn read(mut fields: Fields<'_>, profile: Profile, paths: &mut Paths) -> Self {
        let max = fields.integer_within("max", 0, 1 << 24);
        if profile == Profile::Reference && max.is_some_and(|max| max > 0) {
            fields.problem("max", "the profile reference has no pins");
        }
        let max = max.unwrap_or(if profile == Profile::Recommended { 65_536 } else { 0 });
        let mut kinds = Vec::new();
        let names = fields.strings("kinds");
        for name in &names {
            match KindId::named(name) {
                Some(kind) => kinds.push(kind),
                None => {
                    let known: Vec<_> = KindId::all().map(|(_, kind)| kind.name).collect();
                    fields.problem("kinds", format!("{name:?} is none of {}", known.join(", ")));
                }
            }
        }
        if names.is_empty() {
            kinds.extend(KindId::all().map(|(id, _)| id));
        }
        let words = [("wait", WhenBlocked::Wait), ("elsewhere", WhenBlocked::Elsewhere)];
        let when_blocked = fields.one_of("when_blocked", &words).unwrap_or(WhenBlocked::Wait);
        fields.finish();
        Self { max: max as u32, when_blocked, ids: IdPaths::new(paths), kinds }
    }

    /// Whether state of a kind is followed.
    pub fn follows(&self, kind: KindId) -> bool {
        self.max > 0 && self.kinds.contains(&kind)
    }
}
