//! One line in the log for every change: a cooldown, a home that moves, a probe, a suspicion.
//!
//! Changes are rare, and a provider that fails makes many at once. So a VM writes no more than a few
//! lines a second, and says how many it has left out.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use super::host::{self, Host};
use crate::config::Credential;
use crate::cooldown::Change;
use crate::outcome::Outcome;
use crate::router::{Plan, Route, Router, short};

/// Lines that a VM writes in a second.
const LINES: u32 = 20;

/// The log of changes of a VM.
#[derive(Default)]
pub(super) struct Changes {
    written: Cell<u32>,
}

impl Changes {
    /// A second has passed.
    pub(super) fn pass_second(&self) {
        let dropped = self.written.replace(0).saturating_sub(LINES);
        if dropped > 0 {
            log::info!("{dropped} more changes in one second");
        }
    }

    /// A cooldown has begun or ended.
    pub(super) fn cooldown(&self, pool: &str, credential: &Credential, change: &Change) {
        let scope = if change.is_whole { "credential" } else { "model" };
        let (id, class) = (&credential.id, change.class.as_str());
        match change.length {
            Some(length) => self.write(format_args!(
                "cooldown begins: pool={pool} credential={id} class={class} scope={scope} \
                 status={} code={} length={} until={}",
                change.status,
                dash(&change.code),
                short(length),
                seconds(length)
            )),
            None => self.write(format_args!(
                "cooldown ends: pool={pool} credential={id} class={class} scope={scope}"
            )),
        }
    }

    /// A credential has failed, and whether that was its fault is not known.
    pub(super) fn suspicion(&self, pool: &str, credential: &Credential, plan: &Plan) {
        let Some(failed) = plan
            .failures
            .last()
            .filter(|failed| failed.credential == credential.fingerprint && !failed.is_learned)
        else {
            return;
        };
        let fault = &failed.fault;
        self.write(format_args!(
            "credential suspect: pool={pool} credential={} class={} status={} code={}",
            credential.id,
            fault.class.as_str(),
            fault.status,
            dash(&fault.code)
        ));
    }

    /// A request was decided: whether by it a home moves, or a credential is tried.
    pub(super) fn decision(&self, route: &Route<'_>) {
        let (pool, id) = (&route.pool.name, &route.credential.id);
        if route.is_probe {
            self.write(format_args!("probe: pool={pool} credential={id}"));
        }
        if matches!(route.outcome, Outcome::Rebind | Outcome::Cold)
            && let (Some((_, session)), Some((home, why))) = (route.session, route.absent)
        {
            let from = home.map_or("-", |home| home.id.as_str());
            self.write(format_args!(
                "home moves: pool={pool} gen_ai.conversation.id={:08x} from={from} to={id} why={}",
                session.tag(),
                why.as_str()
            ));
        }
    }

    /// Credentials have begun to be spared, or have room again.
    pub(super) fn sparing(&self, router: &Router) {
        for (pool, credential, is_spared, limits) in router.sparing(&Host, host::now()) {
            let (id, percent) = (&credential.id, limits.used / 10);
            match is_spared {
                true => self.write(format_args!(
                    "sparing begins: pool={pool} credential={id} used={percent}% until={}",
                    limits.reset.as_millis() / 1000
                )),
                false => self.write(format_args!(
                    "sparing ends: pool={pool} credential={id} used={percent}%"
                )),
            }
        }
    }

    fn write(&self, line: fmt::Arguments<'_>) {
        let written = self.written.get();
        self.written.set(written.saturating_add(1));
        if written < LINES {
            log::info!("{line}");
        }
    }
}

/// A provider's code, or a dash in place of none.
fn dash(code: &str) -> &str {
    if code.is_empty() { "-" } else { code }
}

/// When a duration that begins now will be over, in seconds since the epoch.
fn seconds(length: Duration) -> u64 {
    (host::now() + length).as_millis() / 1000
}
