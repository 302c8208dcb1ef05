//! Where a bound session goes: home, to its substitute, or elsewhere.
//!
//! The prompt of a session is cached where it was served. So a session that had to leave its home
//! returns only while the home's cache is warm; after that it is cheaper where it is, and the
//! substitute becomes its home.
//!
//! ```text
//!               home blocked                home ready again, cache warm
//!   at home ───────────────────► substitute ───────────────────────────► at home
//!                                    │ home gone, or its cache cold
//!                                    └──────────────────────────────────► substitute is the home
//! ```

use std::time::Duration;

use crate::binding::{Binding, BoundCredential};
use crate::config::Return;
use crate::time::Timestamp;

/// Where a bound session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To its home, where it was.
    Stay,
    /// Back to its home, from the substitute.
    Return,
    /// To the substitute, because the home cannot serve.
    Substitute,
    /// To the substitute, which becomes its home.
    Adopt,
    /// To another credential, because neither can serve.
    Elsewhere,
}

/// What the home of a session can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeStatus {
    /// It may serve.
    Ready,
    /// Not now, but again later.
    Blocked,
    /// Removed from the configuration, disabled, or it has never served the session.
    Gone,
}

/// What else a destination depends on.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// What the home can do.
    pub home: HomeStatus,
    /// Whether the substitute, if there is one, may serve.
    pub substitute_is_ready: bool,
    /// When sessions return.
    pub returns: Return,
    /// The time without use after which a cached prompt is cold.
    pub cache_lifetime: Duration,
    /// Now.
    pub now: Timestamp,
}

impl Circumstances {
    /// Where a session with this binding goes.
    pub fn destination(&self, binding: &Binding) -> Destination {
        let substitute = binding.substitute;
        let is_away = substitute.is_some_and(|it| it.served > binding.home.served);
        let is_usable = self.substitute_is_ready
            && substitute.is_some_and(|it| is_away || it.served.is_none() || self.is_warm(it));
        match self.home {
            HomeStatus::Ready
                if is_away && self.stays_away(binding) && self.substitute_is_ready =>
            {
                Destination::Adopt
            }
            HomeStatus::Ready if is_away => Destination::Return,
            HomeStatus::Ready => Destination::Stay,
            // A substitute that was only chosen is kept: concurrent requests should stay together.
            HomeStatus::Blocked if is_usable => Destination::Substitute,
            HomeStatus::Gone if is_usable => Destination::Adopt,
            HomeStatus::Blocked | HomeStatus::Gone => Destination::Elsewhere,
        }
    }

    fn stays_away(&self, binding: &Binding) -> bool {
        match self.returns {
            Return::WhileWarm => !self.is_warm(binding.home),
            Return::Always => false,
            Return::Never => true,
        }
    }

    fn is_warm(&self, bound: BoundCredential) -> bool {
        bound.served.is_some_and(|served| self.now < served + self.cache_lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::Destination::{Adopt, Elsewhere, Return as GoBack, Stay, Substitute};
    use super::HomeStatus::{Blocked, Gone, Ready};
    use super::*;
    use crate::config::CredentialId;

    const CIRCUMSTANCES: Circumstances = Circumstances {
        home: Ready,
        substitute_is_ready: true,
        returns: Return::WhileWarm,
        cache_lifetime: Duration::from_millis(300),
        now: Timestamp::from_millis(1_000),
    };

    fn bound(credential: u64, served: u64) -> BoundCredential {
        let served = (served != 0).then_some(Timestamp::from_millis(served));
        BoundCredential { credential: CredentialId(credential), served }
    }

    /// Where a session goes that was served at home and at its substitute at these times; 0: only
    /// chosen.
    fn goes(
        home_served: u64,
        substitute_served: Option<u64>,
        home: HomeStatus,
        substitute_is_ready: bool,
        returns: Return,
    ) -> Destination {
        let substitute = substitute_served.map(|served| bound(2, served));
        let home_of = bound(1, home_served);
        let binding = Binding { substitute, ..Binding::new(home_of, CIRCUMSTANCES.now) };
        Circumstances { home, substitute_is_ready, returns, ..CIRCUMSTANCES }.destination(&binding)
    }

    #[test]
    fn a_session_is_served_at_home() {
        for returns in [Return::WhileWarm, Return::Always, Return::Never] {
            assert_eq!(goes(900, None, Ready, false, returns), Stay);
            assert_eq!(goes(100, None, Ready, false, returns), Stay, "even if it is cold");
            assert_eq!(goes(0, None, Ready, false, returns), Stay, "even if it has not served yet");
            assert_eq!(goes(900, Some(800), Ready, true, returns), Stay, "it was back since");
            assert_eq!(goes(900, Some(0), Ready, true, returns), Stay, "no substitute served");
        }
    }

    #[test]
    fn it_comes_home_as_the_operator_says() {
        for (home_served, returns, expected, why) in [
            (701, Return::WhileWarm, GoBack, ""),
            (700, Return::WhileWarm, Adopt, "at the end of its lifetime a cache is cold"),
            (1, Return::Always, GoBack, ""),
            (989, Return::Never, Adopt, ""),
        ] {
            assert_eq!(goes(home_served, Some(990), Ready, true, returns), expected, "{why}");
        }
        let alone = goes(1, Some(990), Ready, false, Return::WhileWarm);
        assert_eq!(alone, GoBack, "the substitute cannot serve either");
    }

    #[test]
    fn while_the_home_cannot_serve_one_substitute_does() {
        for (substitute, is_ready, expected, why) in [
            (None, false, Elsewhere, ""),
            (Some(950), true, Substitute, ""),
            (Some(0), true, Substitute, "also if it was only chosen"),
            (Some(850), true, Substitute, "also the one of last time, while it is warm"),
            (Some(600), true, Elsewhere, "once it is cold any other is as good"),
            (Some(950), false, Elsewhere, ""),
        ] {
            let goes = goes(900, substitute, Blocked, is_ready, Return::WhileWarm);
            assert_eq!(goes, expected, "{why}");
        }
    }

    #[test]
    fn a_session_that_has_lost_its_home_stays_where_it_is() {
        assert_eq!(goes(900, Some(950), Gone, true, Return::WhileWarm), Adopt);
        assert_eq!(goes(900, Some(950), Gone, false, Return::WhileWarm), Elsewhere);
        assert_eq!(goes(900, None, Gone, false, Return::WhileWarm), Elsewhere);
    }
}
