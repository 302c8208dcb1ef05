//! The requests that are under way in this VM, for credentials that take only so many at once.

use std::cell::RefCell;

use super::host::{self, Host};
use crate::config::Credential;
use crate::headroom::Flights;

thread_local! {
    /// All configurations of a VM share them: a request outlives its configuration.
    static FLIGHTS: RefCell<Option<Flights>> = const { RefCell::new(None) };
}

/// A request is sent to a credential. Returns its ticket.
pub(super) fn begin(credential: &Credential) -> u32 {
    FLIGHTS.with_borrow_mut(|flights| {
        let flights = flights.get_or_insert_with(|| {
            let [a, b, c, d, ..] = host::random_bytes();
            Flights::new(u32::from_le_bytes([a, b, c, d]))
        });
        flights.begin(&credential.flights_key, &Host, host::now())
    })
}

/// A request is sent to another credential.
pub(super) fn go_on(ticket: u32, credential: &Credential) {
    change(ticket, |flights| {
        flights.go_on(ticket, &credential.flights_key, &Host, host::now());
    });
}

/// A request is over.
pub(super) fn end(ticket: u32) {
    change(ticket, |flights| flights.end(ticket, &Host, host::now()));
}

/// Some seconds have passed.
pub(super) fn refresh() {
    FLIGHTS.with_borrow(|flights| {
        if let Some(flights) = flights {
            flights.refresh(&Host, host::now());
        }
    });
}

fn change(ticket: u32, change: impl FnOnce(&mut Flights)) {
    if ticket != 0 {
        FLIGHTS.with_borrow_mut(|flights| flights.as_mut().map(change));
    }
}
