//! What a request has to do with state that a provider keeps, and where that leads it.

use super::selection::Selection;
use crate::api::model_in_path;
use crate::availability::{self, Unready};
use crate::codec::{Reader, Writer};
use crate::config::{Credential, CredentialId, Profile, WhenBlocked};
use crate::cooldown::Block;
use crate::group::{self, GroupId};
use crate::hash::KeyHash;
use crate::operation::Operation;
use crate::outcome::{Absence, Outcome};
use crate::pins::{self, KindId, Pin, Pins, Reference};
use crate::request::Request;
use crate::shared::SharedData;
use crate::target::Target;
use crate::time::Timestamp;

use super::Router;

/// A body in which everything is looked for, in bytes.
const SHORT: usize = 16 << 10;

/// The most ids of one request that count.
const MOST_REFERENCES: usize = 4;

/// What a request has to do with state that a provider keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateUse {
    /// What it refers to; if it is known who has one of them, that one alone.
    pub references: Vec<Reference>,
    /// What it creates.
    pub creates: Option<KindId>,
    /// The tenant that pins are kept for.
    pub tenant: Option<KeyHash>,
    /// The home of its session, if that has served it.
    pub home: Option<CredentialId>,
    /// Whether its path names what it refers to.
    pub is_by_path: bool,
    /// Whether it refers to nothing else: then that is what is missing, should something be.
    pub is_sole: bool,
    /// Whether the credential is known that has what it refers to.
    pub is_pinned: bool,
    /// Whether other credentials may have what it refers to.
    pub may_search: bool,
    /// Whether it must not be repeated after it may have been carried out.
    pub is_once: bool,
    /// Whether it carries what only the group of its home can read, as far as is known.
    pub has_ciphertext: bool,
    /// Whether the credential of the last attempt did not have what it needs.
    pub was_not_here: bool,
    /// Whether that could not read its ciphertext.
    pub was_unreadable: bool,
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
        let path = headers.path();
        let posts = headers.text(":method") == "POST" || headers.ask_for_websocket();
        let in_path = pins::in_path(path);
        let is_by_path = in_path.is_some();
        let ids = match in_path {
            Some(id) => vec![id],
            None if posts => {
                let may_have_files = match body.bytes().len() {
                    0 => false,
                    // To look is cheaper than to ask whether there is anything to look for.
                    1..SHORT => true,
                    _ => router.pins.may_have_files(shared),
                };
                pins.ids.in_body(path, body, may_have_files)
            }
            None => Vec::new(),
        };
        let ids = ids.iter().filter(|id| pins.follows(id.kind)).take(MOST_REFERENCES);
        let references: Vec<_> = ids.map(|id| Reference::of(id, router.seed, tenant)).collect();
        let creates = if posts { pins.ids.creates(path, body) } else { None };
        Self {
            may_search: !references.is_empty(),
            is_sole: references.len() == 1,
            references,
            creates: creates.filter(|kind| pins.follows(*kind)),
            tenant,
            is_by_path,
            is_once: posts && pins.ids.is_once(body),
            ..Self::default()
        }
    }

    /// Finds who has what the request refers to; `None` if that is not known.
    pub(super) fn find(
        &mut self,
        pins: &Pins,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<Pin> {
        for reference in self.references.clone() {
            match pins.find(shared, reference, now) {
                Some(pin) if pin.is_nowhere() => self.may_search = false,
                Some(pin) => {
                    self.references = vec![reference];
                    return Some(pin);
                }
                None => {}
            }
        }
        None
    }

    pub(super) fn encode(&self, bytes: &mut Writer) {
        let flags = [
            self.is_by_path,
            self.is_sole,
            self.is_pinned,
            self.may_search,
            self.is_once,
            self.has_ciphertext,
            self.was_not_here,
            self.was_unreadable,
        ];
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
            home: (home != 0).then_some(CredentialId(home)),
            is_by_path: flags & 1 != 0,
            is_sole: flags & 2 != 0,
            is_pinned: flags & 4 != 0,
            may_search: flags & 8 != 0,
            is_once: flags & 16 != 0,
            has_ciphertext: flags & 32 != 0,
            was_not_here: flags & 64 != 0,
            was_unreadable: flags & 128 != 0,
        })
    }
}

impl Router {
    /// What a request is for. One that is about state alone and runs no model names none: it is for
    /// the pool that has the state, or else the first one that could.
    pub(super) fn target<'c>(
        &'c self,
        request: &Request<'_>,
        state: &StateUse,
        pin: Option<Pin>,
    ) -> Option<Target<'c>> {
        if !self.is_without_model(request, state) {
            return Target::of(request, &self.config);
        }
        let pool =
            pin.and_then(|pin| self.config.pools.iter().find(|pool| pool.fingerprint == pin.pool));
        Target::whatever_model(request, &self.config, pool)
    }

    fn is_without_model(&self, request: &Request<'_>, state: &StateUse) -> bool {
        let headers = request.headers;
        let operation =
            Operation::of(headers.text(":method"), headers.path(), headers.ask_for_websocket());
        let creates = state.creates.and_then(KindId::kind);
        matches!(operation, Operation::Read | Operation::Write)
            && (state.is_by_path || creates.is_some_and(|kind| kind.needs_no_model))
            && model_in_path(headers.path()).is_none()
            && request.body.get(self.config.body.model).is_none()
    }
}

/// Where a request goes because of what it refers to.
pub(super) struct Followed<'c> {
    pub(super) credential: &'c Credential,
    pub(super) outcome: Outcome,
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
        let block = match self.block(owner) {
            None => return Ok(Some(Followed { credential: owner, outcome: Outcome::Pinned })),
            Some(Block::Disabled) => return Ok(None),
            Some(block) => block,
        };
        self.home = Some((Some(owner), Absence::Blocked(block.class())));
        if let Some(sibling) = self.ready_sibling(owner) {
            return Ok(Some(Followed { credential: sibling, outcome: Outcome::Substitute }));
        }
        match (self.router.config.pins.when_blocked, block) {
            (WhenBlocked::Elsewhere, _) => Ok(None),
            (WhenBlocked::Wait, Block::Failing { .. }) => {
                Ok(Some(Followed { credential: owner, outcome: Outcome::Probe }))
            }
            (WhenBlocked::Wait, block) => Err(block.into()),
        }
    }

    /// The first credential of the same group that may serve bound sessions, and can.
    pub(super) fn ready_sibling(&mut self, of: &Credential) -> Option<&'c Credential> {
        self.siblings_of(of).into_iter().find(|sibling| self.block(sibling).is_none())
    }

    /// The credentials of the same group that may serve bound sessions.
    pub(super) fn siblings_of(&self, of: &Credential) -> Vec<&'c Credential> {
        let Some(group) = group::of(of, self.shared) else { return Vec::new() };
        let pool = self.target.pool;
        let bound = pool.credentials.iter();
        let bound = bound.filter(|it| availability::bound(pool, it.fingerprint).is_some());
        siblings(bound, of, group, self.shared)
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
