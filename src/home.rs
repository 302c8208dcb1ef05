//! Where a bound session goes: home, to its substitute, or elsewhere.
//!
//! The prompt of a conversation is cached where it was served. So a session that had to leave its
//! home goes back only while the home's cache is warm; after that it is cheaper where it is, and
//! the substitute becomes its home.

use crate::binding::{Binding, BoundCredential};
use crate::config::Return;

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
    /// No longer: the configuration has it no more, or disabled.
    Gone,
}

/// Where a session goes, given its binding, what its home can do, whether its substitute may serve,
/// and after how many milliseconds without use a cache is cold.
pub fn destination(
    binding: &Binding,
    home: HomeStatus,
    substitute_is_ready: impl Fn() -> bool,
    returns: Return,
    lifetime: impl Fn() -> u64,
    now: u64,
) -> Destination {
    let is_warm = |place: BoundCredential| {
        place.served.is_some_and(|served| now < served.saturating_add(lifetime()))
    };
    let substitute = binding.substitute;
    let is_away = substitute.is_some_and(|substitute| substitute.served > binding.home.served);
    let stays_away = || match returns {
        Return::WhileWarm => !is_warm(binding.home),
        Return::Always => false,
        Return::Never => true,
    };
    // One that was only chosen stays the substitute: requests that come together should stay
    // together.
    let is_sticky =
        |substitute: BoundCredential| is_away || substitute.served.is_none() || is_warm(substitute);
    match home {
        HomeStatus::Ready if is_away && stays_away() && substitute_is_ready() => Destination::Adopt,
        HomeStatus::Ready if is_away => Destination::Return,
        HomeStatus::Ready => Destination::Stay,
        HomeStatus::Blocked if substitute.is_some_and(is_sticky) && substitute_is_ready() => {
            Destination::Substitute
        }
        HomeStatus::Gone if substitute.is_some_and(is_sticky) && substitute_is_ready() => {
            Destination::Adopt
        }
        HomeStatus::Blocked | HomeStatus::Gone => Destination::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::Destination::{Adopt, Elsewhere, Stay as AtHome, Return as GoBack, Substitute};
    use super::HomeStatus::{Blocked, Gone, Ready};
    use super::*;

    const LIFETIME: u64 = 300;
    const NOW: u64 = 1_000;

    /// Where a session goes that was served at home and at its substitute at these times; 0: only
    /// chosen.
    fn goes(
        home_served: u64,
        substitute_served: Option<u64>,
        home: HomeStatus,
        ready: bool,
        returns: Return,
    ) -> Destination {
        let place = |credential, served: u64| BoundCredential {
            credential,
            served: (served != 0).then_some(served),
        };
        let substitute = substitute_served.map(|served| place(2, served));
        let binding = Binding { home: place(1, home_served), substitute, used: NOW };
        destination(&binding, home, || ready, returns, || LIFETIME, NOW)
    }

    #[test]
    fn a_session_is_served_at_home() {
        for returns in [Return::WhileWarm, Return::Always, Return::Never] {
            assert_eq!(goes(900, None, Ready, false, returns), AtHome);
            assert_eq!(goes(100, None, Ready, false, returns), AtHome, "even if it is cold");
            assert_eq!(
                goes(0, None, Ready, false, returns),
                AtHome,
                "even if it has not served yet"
            );
            assert_eq!(goes(900, Some(800), Ready, true, returns), AtHome, "it was back since");
            assert_eq!(
                goes(900, Some(0), Ready, true, returns),
                AtHome,
                "the substitute never served"
            );
        }
    }

    #[test]
    fn it_comes_home_as_the_operator_says() {
        let away = |home_served, returns| goes(home_served, Some(990), Ready, true, returns);
        assert_eq!(away(701, Return::WhileWarm), GoBack);
        assert_eq!(
            away(700, Return::WhileWarm),
            Adopt,
            "at the end of its lifetime a cache is cold"
        );
        assert_eq!(away(1, Return::Always), GoBack);
        assert_eq!(away(989, Return::Never), Adopt);
        assert_eq!(
            goes(1, Some(990), Ready, false, Return::WhileWarm),
            GoBack,
            "the substitute cannot serve either"
        );
    }

    #[test]
    fn while_the_home_cannot_serve_one_substitute_does() {
        let blocked = |substitute, ready| goes(900, substitute, Blocked, ready, Return::WhileWarm);
        assert_eq!(blocked(None, false), Elsewhere);
        assert_eq!(blocked(Some(950), true), Substitute);
        assert_eq!(blocked(Some(0), true), Substitute, "also if it was only chosen");
        assert_eq!(
            blocked(Some(850), true),
            Substitute,
            "also the one of last time, while it is warm"
        );
        assert_eq!(blocked(Some(600), true), Elsewhere, "once it is cold any other is as good");
        assert_eq!(blocked(Some(950), false), Elsewhere);
    }

    #[test]
    fn who_has_lost_its_home_stays_where_it_is() {
        assert_eq!(goes(900, Some(950), Gone, true, Return::WhileWarm), Adopt);
        assert_eq!(goes(900, Some(950), Gone, false, Return::WhileWarm), Elsewhere);
        assert_eq!(goes(900, None, Gone, false, Return::WhileWarm), Elsewhere);
    }
}
