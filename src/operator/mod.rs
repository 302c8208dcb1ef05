//! The operator's page: what the filter knows now, and a few things that an operator can do about
//! it.
//!
//! It is a third role of the module, on a listener of its own that only the loopback interface
//! reaches. A request comes in, a reply goes out; nothing is ever routed. `GET` changes nothing.
//! Keys and ids are never shown: a session is a few digits of its hash, as in the access log.
//!
//! What an operator wants of a credential is a part of the credential's record (see
//! [`crate::cooldown::Record`]), so the decision about a request reads nothing more because of it.
//! It ends by itself.

mod access;
mod action;
mod census;
pub mod changes;
mod json;
mod page;
mod reply;
mod state;

pub use access::MOST_BYTES;
pub use reply::Reply;
pub use state::Counted;

use crate::request::Headers;
use crate::router::Router;
use crate::shared::SharedData;
use crate::time::Timestamp;

/// What a path is for.
enum Route<'a> {
    Asset(&'static page::Asset),
    State,
    Forget,
    Credential { pool: &'a str, id: &'a str, action: &'a str },
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if let Some(asset) = page::ASSETS.iter().find(|asset| asset.path == path) {
            return Some(Self::Asset(asset));
        }
        match path {
            "/state" => return Some(Self::State),
            "/sessions/forget" => return Some(Self::Forget),
            _ => {}
        }
        let (pool, rest) = path.strip_prefix("/credentials/")?.split_once('/')?;
        let (id, action) = rest.split_once('/')?;
        action::is_known(action).then_some(Self::Credential { pool, id, action })
    }

    /// The only method that it has.
    fn method(&self) -> &'static str {
        match self {
            Self::Asset(_) | Self::State => "GET",
            Self::Forget | Self::Credential { .. } => "POST",
        }
    }
}

impl Router {
    /// Replies to a request on the operator's listener. `counted` gives what Envoy has counted under
    /// a name.
    pub fn operate(
        &self,
        headers: &Headers,
        body: &[u8],
        shared: &impl SharedData,
        counted: &Counted<'_>,
        now: Timestamp,
    ) -> Reply {
        self.try_to_operate(headers, body, shared, counted, now).unwrap_or_else(|refusal| refusal)
    }

    fn try_to_operate(
        &self,
        headers: &Headers,
        body: &[u8],
        shared: &impl SharedData,
        counted: &Counted<'_>,
        now: Timestamp,
    ) -> Result<Reply, Reply> {
        access::check_host(headers, &self.config().operator_hosts)?;
        let unknown = || Reply::error(404, "there is nothing here");
        let route = Route::of(headers.path()).ok_or_else(unknown)?;
        if headers.text(":method") != route.method() {
            return Err(Reply::wrong_method(route.method()));
        }
        if !matches!(route, Route::Asset(_)) {
            access::check_site(headers)?;
        }
        match route {
            Route::Asset(asset) => Ok(asset.reply(headers)),
            Route::State => Ok(Reply::json(200, state::state(self, shared, counted, now))),
            Route::Forget => {
                access::check_post(headers, body)?;
                action::forget(self, body, shared, now)
            }
            Route::Credential { pool, id, action } => {
                access::check_post(headers, body)?;
                let named = action::credential(self, pool, id).ok_or_else(unknown)?;
                action::act(self, named, action, body, shared, now)
            }
        }
    }
}
