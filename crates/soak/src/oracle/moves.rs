//! The rule that a session stays where it is, unless its home fails, is away, or was.
//!
//! A session whose requests refer to state goes where that is: see [`super::pins`].
//!
//! What the home of a session is cannot always be seen: after a failure it may be the credential
//! that failed or the one that stood in. So this keeps the set of credentials that may be home. The
//! set becomes one again when a session is served although all others of it could have served it.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Rule, Verdict};
use crate::history::{End, Name, Request, SECOND, Time};

/// For so long a session may avoid its home after an error that reached the client.
const AVOIDANCE: Time = 65 * SECOND;

#[derive(Default)]
struct Session {
    homes: Vec<Name>,
    /// Whether its last request did not end well.
    is_disturbed: bool,
    avoids_until: Time,
    /// When its last request began.
    last: Time,
    /// The stories of its requests so far.
    past: Vec<String>,
}

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut by_session: BTreeMap<u64, Vec<&Request>> = BTreeMap::new();
    for request in facts.history.requests.iter().filter(|request| !request.may_be_refused) {
        by_session.entry(request.session).or_default().push(request);
    }
    by_session.retain(|_, requests| requests.iter().all(|request| request.refers_to.is_none()));
    for requests in by_session.values_mut() {
        requests.sort_by_key(|request| request.began);
        let mut session = Session::default();
        for request in requests {
            session.judge(facts, request, verdict);
            session.follow(facts, request);
            session.past.push(facts.story(request));
        }
    }
}

impl Session {
    /// Whether a credential could certainly have served the session.
    fn could_serve(&self, facts: &Facts<'_>, name: Name, request: &Request, to: Time) -> bool {
        facts.state(name, self.last.min(request.began), to) == Ok(None)
            && !facts.may_be_blocked(name, &request.model, request.began, to)
    }

    fn judge(&self, facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
        let Some(first) = facts.arrivals(request.id).first() else {
            return;
        };
        let Some(credential) = first.credential() else {
            return;
        };
        let is_unseen = facts.may_be_closed(request.pool, request.began, first.at);
        if self.homes.is_empty() || self.is_disturbed || is_unseen {
            return;
        }
        let all_could =
            self.homes.iter().all(|home| self.could_serve(facts, home, request, first.at));
        if !all_could {
            return;
        }
        verdict.judged(Rule::Move);
        if !self.homes.contains(&credential) {
            let past = self.past.join("\n    before: ");
            let now = facts.story(request);
            let story = format!("home {:?}: {now}\n    before: {past}", self.homes);
            verdict.breaks(Rule::Move, Some(request.id), story);
        }
    }

    /// What the request says about where the session is at home.
    fn follow(&mut self, facts: &Facts<'_>, request: &Request) {
        let arrivals = facts.arrivals(request.id);
        let is_well = match &request.end {
            End::Answered(answer) => answer.status < 400 && answer.is_whole,
            _ => false,
        };
        let served = facts.answered(request).filter(|it| is_well && it.did.is_served());
        let is_first = arrivals.len() == 1;
        match served {
            Some(arrival) if is_first => {
                let others = self.homes.iter().filter(|home| Some(**home) != arrival.credential());
                let mut others = others.copied().collect::<Vec<_>>().into_iter();
                let is_settled = request.began > self.avoids_until
                    && others.all(|it| self.could_serve(facts, it, request, arrival.at));
                if is_settled {
                    self.homes.clear();
                }
                self.is_disturbed = false;
            }
            _ => {
                self.is_disturbed = true;
                self.avoids_until = request.ended + AVOIDANCE;
            }
        }
        for credential in arrivals.iter().filter_map(|arrival| arrival.credential()) {
            if !self.homes.contains(&credential) {
                self.homes.push(credential);
            }
        }
        self.last = request.began;
    }
}
