//! Routers of fixed configurations, each made once: most of a run would be spent on making them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::router::Router;
use session_affinity::shared::InMemory;

thread_local! {
    static ROUTERS: RefCell<HashMap<&'static [u8], Rc<Router>>> = RefCell::default();
}

/// The router of a configuration, and shared data to which it belongs.
pub(crate) fn router(config: &'static [u8]) -> (Rc<Router>, InMemory) {
    let shared = InMemory::default();
    let seed = Seed::agree(&shared, [7; 16]);
    let make = || Rc::new(Router::new(Config::parse(config).unwrap(), seed));
    let router =
        ROUTERS.with(|routers| routers.borrow_mut().entry(config).or_insert_with(make).clone());
    (router, shared)
}
