//! One vendor's server, without its sockets, and the account that a request is for.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::account::AccountState;
use super::api;
use super::lock::locked;
use super::objects::Kind;
use super::shared::Shared;
use super::vendor::{Account, Replica, Vendor};

/// One vendor's server, without its sockets.
#[derive(Debug)]
pub(super) struct VendorServer {
    pub(super) vendor: Vendor,
    accounts: Accounts,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
enum Accounts {
    /// Each has a key of its own.
    ByKey(Vec<Arc<AccountState>>),
    /// That of a replica, whatever the key.
    Only(Arc<AccountState>),
}

impl VendorServer {
    pub(super) fn new(vendor: Vendor, accounts: &[Account], shared: Arc<Shared>) -> Self {
        let accounts = accounts.iter().filter(|account| account.vendor == vendor).cloned();
        let accounts = accounts
            .map(|account| Arc::new(AccountState::new(account, Arc::clone(&shared))))
            .collect();
        Self { vendor, accounts: Accounts::ByKey(accounts), shared }
    }

    pub(super) fn of_replica(replica: &Replica, shared: Arc<Shared>) -> Self {
        let account = replica.account();
        let state = AccountState::new(account.clone(), Arc::clone(&shared));
        Self { vendor: account.vendor, accounts: Accounts::Only(Arc::new(state)), shared }
    }

    /// The account that a request is for.
    pub(super) fn account(&self, parts: &Parts) -> Option<Arc<AccountState>> {
        match &self.accounts {
            Accounts::ByKey(accounts) => {
                let Some(key) = key(self.vendor, parts) else {
                    return self.account_of_upload(accounts, parts);
                };
                accounts.iter().find(|state| state.account.key == key).cloned()
            }
            Accounts::Only(account) => Some(Arc::clone(account)),
        }
    }

    /// The second step of an upload to Gemini needs no key: the id in its URL is one.
    fn account_of_upload(
        &self,
        accounts: &[Arc<AccountState>],
        parts: &Parts,
    ) -> Option<Arc<AccountState>> {
        let id = api::query(&parts.uri, "upload_id")?;
        let now = self.shared.clock.now();
        let knows = |state: &&Arc<AccountState>| {
            let group = state.group();
            locked(&group.objects).get(Kind::Upload, id, now).is_some()
        };
        accounts.iter().find(knows).cloned()
    }
}

/// The key that a request carries. The header of the vendor comes first; a header that is repeated
/// is no key.
fn key(vendor: Vendor, parts: &Parts) -> Option<&str> {
    match vendor {
        Vendor::Anthropic if parts.headers.contains_key("x-api-key") => {
            single(&parts.headers, "x-api-key")
        }
        Vendor::Anthropic | Vendor::OpenAi => {
            single(&parts.headers, "authorization")?.strip_prefix("Bearer ")
        }
        Vendor::Gemini if parts.headers.contains_key("x-goog-api-key") => {
            single(&parts.headers, "x-goog-api-key")
        }
        Vendor::Gemini => api::query(&parts.uri, "key"),
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
