//! Rules for what a credential may be sent: nothing while it waits for an announced end, nothing
//! when it is disabled.

use std::collections::{BTreeMap, HashMap};

use super::facts::{Facts, known};
use super::{Rule, Tolerance, Verdict};
use crate::gateway::{COOLDOWN_MAX, COOLDOWN_TOLD};
use crate::history::{Did, End, Name, SECOND, State, Time};

/// Requests that come so close together may be one probe.
const TOGETHER: Time = SECOND;

/// An announced limit, from when it was known for certain.
struct Told {
    /// The request that met it.
    request: Option<u64>,
    began: Time,
    /// `None` if perhaps nobody has learned it.
    known: Option<Time>,
    until: Time,
    probed: Option<Time>,
}

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    told(facts, verdict);
    disabled(facts, verdict);
}

fn told(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut limits: BTreeMap<(Name, &str), Vec<Told>> = BTreeMap::new();
    for arrival in &facts.history.arrivals {
        let Some(credential) = arrival.credential() else {
            continue;
        };
        let request = arrival.request.and_then(|id| facts.request(id));
        if request.is_none_or(|request| request.may_be_refused) {
            // Which model a hostile body names is a question of reading.
            continue;
        }
        let key = (credential, arrival.model.as_str());
        let open = limits.entry(key).or_default();
        open.retain(|told| told.until > arrival.at);
        if let Some(decided) = facts.decided(arrival) {
            // Several limits are one to the filter, and the first one says when a probe is due.
            let last = open.iter().map(|told| told.probed.unwrap_or(told.began)).min();
            let due = last.unwrap_or_default() + COOLDOWN_MAX * SECOND;
            let mut probed = open.iter().filter_map(|told| told.probed);
            let is_together = probed.any(|probed| arrival.at < probed + TOGETHER);
            let is_due = arrival.at + TOGETHER / 10 >= due;
            let is_known = |told: &&mut Told| told.known.is_some_and(|known| known < decided);
            let mut is_probe = false;
            for told in open.iter_mut().filter(is_known) {
                if is_together || is_due {
                    is_probe = true;
                    verdict.tolerates(Tolerance::Probe);
                } else {
                    let story = |id: Option<u64>| {
                        let request = id.and_then(|id| facts.request(id));
                        request.map(|request| facts.story(request)).unwrap_or_default()
                    };
                    let story = format!(
                        "{credential} had said at {:.3} s to wait until {:.3} s: {}\n  after {:?}: {}",
                        crate::run::seconds(told.began),
                        crate::run::seconds(told.until),
                        story(arrival.request),
                        told.request,
                        story(told.request),
                    );
                    verdict.breaks(Rule::Told, arrival.request, story);
                }
            }
            if is_probe && !is_together {
                open.iter_mut().for_each(|told| told.probed = Some(arrival.at));
            }
        }
        // One that was sent after the limit began ends it with its first content, however it ends.
        let may_have_content = matches!(arrival.did, Did::Cut { has_content: true } | Did::Left);
        if arrival.did.is_served() || may_have_content {
            open.clear();
        }
        if let Did::Answered { status: 429, retry_after: Some(wait), .. } = arrival.did {
            let request = arrival.request.and_then(|id| facts.request(id));
            // If the client left, a VM trapped, or the credential was on its way out or in, nobody
            // may have learned it.
            let is_learned = request.is_some_and(|request| {
                matches!(request.end, End::Answered(_))
                    && facts.state(credential, request.began, request.ended) == Ok(None)
                    && !facts.has_trapped(request.began, request.ended)
            });
            if is_learned {
                verdict.judged(Rule::Told);
            }
            open.push(Told {
                request: arrival.request,
                began: arrival.at,
                known: request.filter(|_| is_learned).map(|request| known(request, arrival)),
                until: arrival.at + wait.min(COOLDOWN_TOLD) * SECOND,
                probed: None,
            });
        }
    }
}

fn disabled(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut known: HashMap<(u64, Name), ()> = HashMap::new();
    for arrival in &facts.history.arrivals {
        let (Some(credential), Some(id)) = (arrival.credential(), arrival.request) else {
            continue;
        };
        let Some(request) = facts.request(id) else {
            continue;
        };
        let is_new = known.insert((request.session, credential), ()).is_none();
        let state = facts.state(credential, request.began, arrival.at);
        let is_right = match state {
            Ok(None) => true,
            Ok(Some(State::Draining)) => !is_new,
            Ok(Some(State::Disabled | State::Absent)) => false,
            Err(()) => {
                verdict.tolerates(Tolerance::UpdateRace);
                continue;
            }
        };
        verdict.judged(Rule::Disabled);
        if !is_right {
            let story = format!("{credential} was {state:?}: {}", facts.story(request));
            verdict.breaks(Rule::Disabled, Some(id), story);
        }
    }
}
