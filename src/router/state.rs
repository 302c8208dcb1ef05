//! What a request has to do with state that a provider keeps, and where that leads it.

use super::placement::Others;
use super::selection::Selection;
use crate::availability::{self, Unready};
use crate::codec::{Reader, Writer};
use crate::config::{Credential, CredentialId, Profile, WhenBlocked};
use crate::cooldown::Block;
use crate::group::{self, GroupId};
use crate::hash::KeyHash;
use crate::outcome::Outcome;
use crate::pins::{Id, KindId, Pin, Reference};
use crate::request::Request;
use crate::shared::SharedData;
use crate::target::Target;
use crate::time::Timestamp;

use super::Router;

/// What a request has to do with state that a provider keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateUse {
    /// What it refers to.
    pub references: Vec<Reference>,
    /// What it creates.
    pub creates: Option<KindId>,
    /// The tenant that pins are kept for.
    pub tenant: Option<KeyHash>,
    /// Whether the credential is known that has what it refers to.
    pub is_pinned: bool,
    /// Whether it must not be repeated after it may have been carried out.
    pub is_once: bool,
    /// Whether it carries what only the group of its home can read.
    pub has_ciphertext: bool,
    /// Whether a credential did not have what it needs.
    pub was_not_here: bool,
    /// The home of its session, if that has served it.
    pub home: Option<CredentialId>,
}

impl StateUse {
    /// What a request refers to and creates; nothing in the profile `reference`.
    pub(super) fn of(
        router: &Router,
        request: &Request<'_>,
        tenant: Option<KeyHash>,
        shared: &impl SharedData,
    ) -> Self {
        let pins = &router.config.pins;
        if router.config.profile == Profile::Reference {
            return Self::default();
        }
        let (headers, body) = (request.headers, &request.body);
        let posts = headers.text(":method") == "POST" || headers.ask_for_websocket();
        let creates = if posts { pins.ids.creates(headers.path(), body) } else { None };
        let is_once = pins.ids.is_once(body);
        let files = KindId::named("files").filter(|_| !body.bytes().is_empty());
        let may_have_files = files.is_some_and(|files| router.pins.may_have(shared, files));
        let ids = pins.ids.find(headers.path(), body, may_have_files);
        let references = ids
            .iter()
            .filter(|id| pins.follows(id.kind))
            .map(|id: &Id| Reference::of(id, router.seed, tenant))
            .collect();
        let creates = creates.filter(|kind| pins.follows(*kind));
        Self { references, creates, tenant, is_once, ..Self::default() }
    }

    /// Whether the request is about state alone, and so needs no model.
    pub(super) fn is_without_model(&self) -> bool {
        !self.references.is_empty() || self.creates.is_some()
    }

    pub(super) fn encode(&self, bytes: &mut Writer) {
        let flags = [self.is_pinned, self.is_once, self.has_ciphertext, self.was_not_here];
        bytes.byte(flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag)));
        bytes.byte(self.creates.map_or(u8::MAX, |kind| kind.0));
        bytes.number(self.home.map_or(0, |home| home.0));
        bytes.hash(self.tenant.map_or(0, |tenant| tenant.0));
        bytes.byte(self.references.len() as u8);
        for reference in &self.references {
            bytes.byte(reference.kind.0);
            bytes.hash(reference.key.0);
        }
    }

    pub(super) fn decode(bytes: &mut Reader<'_>) -> Option<Self> {
        let (flags, creates) = (bytes.byte()?, KindId(bytes.byte()?));
        let (home, tenant, count) = (bytes.number()?, bytes.hash()?, bytes.byte()?);
        let references: Option<Vec<_>> = (0..count)
            .map(|_| Some(Reference { kind: KindId(bytes.byte()?), key: KeyHash(bytes.hash()?) }))
            .collect();
        Some(Self {
            references: references?,
            creates: creates.kind().map(|_| creates),
            tenant: (tenant != 0).then_some(KeyHash(tenant)),
            is_pinned: flags & 1 != 0,
            is_once: flags & 2 != 0,
            has_ciphertext: flags & 4 != 0,
            was_not_here: flags & 8 != 0,
            home: (home != 0).then_some(CredentialId(home)),
        })
    }
}

impl Router {
    /// The pin of the first reference that has one.
    pub(super) fn pin_of(
        &self,
        state: &StateUse,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<(KindId, Pin)> {
        state
            .references
            .iter()
            .find_map(|reference| Some((reference.kind, self.pins.find(shared, *reference, now)?)))
    }

    /// What a request is for, given the state that it is about: a request for state alone names no
    /// model, and is for the pool that has the state, or else the first one that could.
    pub(super) fn target<'c>(
        &'c self,
        request: &Request<'_>,
        state: &StateUse,
        pin: Option<(KindId, Pin)>,
    ) -> Option<Target<'c>> {
        let pool = pin.and_then(|(_, pin)| {
            self.config.pools.iter().find(|pool| pool.fingerprint == pin.pool)
        });
        match Target::of(request, &self.config) {
            Some(target) if pool.is_none_or(|pool| pool.fingerprint == target.pool.fingerprint) => {
                Some(target)
            }
            found if state.is_without_model() => {
                Target::whatever_model(request, &self.config, pool).or(found)
            }
            found => found,
        }
    }
}

/// Where a request goes because of what it refers to.
pub(super) struct Followed<'c> {
    pub(super) credential: &'c Credential,
    pub(super) outcome: Outcome,
    pub(super) others: Others,
}

impl<'c, S: SharedData> Selection<'_, 'c, S> {
    /// Where a request goes whose state is with a known credential: there, or to a sibling. `None`
    /// if it goes where it would go without.
    ///
    /// # Errors
    /// Why it cannot be served now.
    pub(super) fn follow(&mut self, pin: Pin) -> Result<Option<Followed<'c>>, Unready> {
        let Some(owner) = availability::bound(self.target.pool, pin.credential) else {
            return Ok(None);
        };
        let Some(block) = self.block(owner) else {
            return Ok(Some(Followed::at(owner, Outcome::Pinned)));
        };
        if let Some(sibling) = self.ready_sibling(owner) {
            return Ok(Some(Followed::at(sibling, Outcome::Substitute)));
        }
        match (self.router.config.pins.when_blocked, block) {
            (WhenBlocked::Elsewhere, _) => Ok(None),
            (WhenBlocked::Wait, Block::Failing { .. }) => {
                Ok(Some(Followed::at(owner, Outcome::Probe)))
            }
            (WhenBlocked::Wait, block) => Err(block.into()),
        }
    }

    /// The first credential of the same group that may serve bound sessions, and can.
    pub(super) fn ready_sibling(&mut self, of: &Credential) -> Option<&'c Credential> {
        let group = group::of(of, self.shared)?;
        let pool = self.target.pool;
        let siblings: Vec<_> = siblings(pool.credentials.iter(), of, group, self.shared);
        siblings
            .into_iter()
            .filter(|sibling| availability::bound(pool, sibling.fingerprint).is_some())
            .find(|sibling| self.block(sibling).is_none())
    }
}

impl<'c> Followed<'c> {
    fn at(credential: &'c Credential, outcome: Outcome) -> Self {
        Self { credential, outcome, others: Others::Siblings }
    }
}

/// Those among credentials that are in a group, but for one of them.
pub(super) fn siblings<'c>(
    credentials: impl IntoIterator<Item = &'c Credential>,
    but: &Credential,
    group: GroupId,
    shared: &impl SharedData,
) -> Vec<&'c Credential> {
    let others = credentials.into_iter().filter(|other| other.fingerprint != but.fingerprint);
    others.filter(|other| group::of(other, shared) == Some(group)).collect()
}
