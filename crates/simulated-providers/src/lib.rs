//! Simulated LLM providers, for the tests, the demo, benchmarks and docker-compose.
//!
//! There is one HTTP server for each vendor, with several accounts that differ in their API keys.
//! An *account* is what a vendor knows a credential of the gateway by. The names are those of
//! `envoy.yaml`, where every credential is a cluster of its own. On request there are also
//! self-hosted replicas, each with a server of its own that takes any key: those of
//! `examples/replicas.yaml`.
//!
//! **Simulated**, in the forms that the SDKs of the vendors read:
//! - the APIs: Anthropic Messages and count_tokens; OpenAI Chat Completions, Responses (also
//!   compact, and over a WebSocket); Gemini generateContent, streamGenerateContent and countTokens,
//!   also as Code Assist wraps them; Bedrock's Converse and InvokeModel, where Anthropic's accounts
//!   are; lists of models. Plain JSON and streams with the events of the vendor, errors in its JSON,
//!   over HTTP/1.1 and HTTP/2 without TLS;
//! - groups of accounts: what one organization and workspace shares (`group.rs`). By default every
//!   account is a group of its own. Responses name the group by the ids that real ones have in
//!   `anthropic-organization-id`, `anthropic-workspace-id`, `openai-organization`, `openai-project`;
//! - one prompt cache for each group and model, and the `usage` that follows from it. A hit is a
//!   real one: the same beginning, long enough, not too old, sent to this group before
//!   (`cache.rs`, `prompt.rs`);
//! - state that binds a session to a group, listed below, and what is answered elsewhere
//!   (`missing.rs`). A request that continues stored state has the prompt, and so the cached part,
//!   of one that sends everything again;
//! - ciphertext that binds to an organization: encrypted reasoning, compacted items, signed
//!   thinking (`ciphertext.rs`). [`Providers::set_foreign`] says what becomes of it elsewhere;
//! - a ledger of the token counts that each response tells, as far as it is sent (`told.rs`);
//! - faults that a test requests, or a header `x-simulate: account=anthropic-a; status=429;
//!   retry-after=7` (`fault.rs` lists them all), and a record of what arrived;
//! - the errors of real providers by name, with their headers, bodies and events
//!   (`responses.jsonl`), whichever account is to send them;
//! - compression with gzip or deflate, by `accept-encoding`.
//!
//! **State:**
//!
//! | kind | made by | referred to by | life |
//! |---|---|---|---|
//! | OpenAI response | `POST /v1/responses` unless `store: false`, which its WebSocket alone knows | `previous_response_id`; `GET`, `DELETE`, `…/cancel`, `…/input_items` | stays |
//! | its items | input and output of a stored response | `item_reference` | stays |
//! | conversation | `POST /v1/conversations` | `conversation`; its path and `…/items` | stays |
//! | file | `POST /v1/files`, a completed upload, a batch | `file_id`, `input_file_id`; its path and `…/content` | stays |
//! | vector store | `POST /v1/vector_stores` | `vector_store_ids`; its path | stays |
//! | container | `POST /v1/containers`; a code interpreter with `container: {"type": "auto"}` | `container`; its path | 20 min |
//! | batch, upload | `POST /v1/batches`, `/v1/uploads` | their paths, `…/cancel`, `…/parts`, `…/complete` | stays |
//! | Anthropic thread | a message with `thread` and the beta `message-threads-2026-08-12` | `previous_message_id`, once | 5 min |
//! | file, skill | `POST /v1/files`, `/v1/skills` | `file_id`, `skill_id`; their paths | stays |
//! | batch | `POST /v1/messages/batches` | its path, `…/cancel`, `…/results` | stays |
//! | container | an answer with `code_execution_…` among the tools, or skills | `container` | 1 h |
//! | Gemini cached content | `POST /v1beta/cachedContents` | `cachedContent`; its path | its `ttl`, 1 h |
//! | file | `POST /upload/v1beta/files`, at once or in two steps | `fileUri`; its path | 48 h |
//! | interaction | `POST /v1beta/interactions` unless `store: false` | `previous_interaction_id`; its path, `…/cancel` | stays |
//!
//! What runs in the background (`background: true`, batches) is done when it is looked at first.
//! A group keeps 65,536 objects of 64 MiB in all; those written longest ago go first.
//! [`Providers::pass`] lets time pass for all of them. [`RequestRecord::created`] tells what a
//! request has made, also when its response was lost: how often a creation reached a provider.
//!
//! **Not simulated:**
//! - a model: the reply is two sentences chosen by a hash of the prompt, the same on every account.
//!   Any model name works, and only the limit of output tokens affects the reply. Reasoning is in
//!   it if the request has `reasoning` or `thinking`, a tool call if the request of Anthropic's API
//!   forces one;
//! - a tokenizer: four bytes are one token, also of images and other attachments;
//! - time and load: responses come at once, caches never overflow to another machine, no account is
//!   rate limited by itself. So `prompt_cache_key` has no effect, nor has a `tool_choice` or
//!   `thinking` that would clear a part of a real Anthropic cache. Minimum lengths do not depend on
//!   the model; lifetimes are in the file of the vendor;
//! - the work of batches, code, search and skills: they have ids and a status, and no results;
//! - the caching of replies: a prefix is cached when it has been part of a prompt, not when it has
//!   been generated;
//! - the validation of requests beyond JSON, required fields and the rules of `cache_control`;
//!   `anthropic-version` may be absent. Compressed requests. A wrong key is 401 everywhere, also on Gemini,
//!   which responds with 400 or 403.
//!
//! Every response names in `x-simulated-account` the account that served it (`none` if the key is
//! not known).

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

mod account;
mod anthropic;
mod anthropic_output;
mod api;
mod aws_frame;
mod bedrock;
mod cache;
mod cache_control;
mod catalog;
mod ciphertext;
mod collection;
mod compress;
mod connection;
mod conversations;
mod created;
mod error;
mod exchange;
mod fault;
mod gemini;
mod group;
mod interactions;
mod lock;
mod missing;
mod objects;
mod openai_chat;
mod openai_input;
mod openai_output;
mod openai_responses;
mod place;
mod prompt;
mod record;
mod references;
mod reply;
mod request;
mod respond;
mod route;
mod server;
mod shared;
mod shutdown;
mod stream;
mod threads;
mod told;
mod turn;
mod upload;
mod vendor;
mod vendor_server;
mod websocket;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;

use self::connection::Stop;
use self::shared::Shared;
use self::vendor_server::VendorServer;

pub use self::catalog::response_names;
pub use self::ciphertext::Foreign;
pub use self::fault::{FAULT_HEADER, Fault};
pub use self::record::{LOG_CAPACITY, RequestRecord, Totals};
pub use self::respond::ACCOUNT_HEADER;
pub use self::shutdown::Shutdown;
pub use self::told::Told;
pub use self::turn::Usage;
pub use self::vendor::{Account, Addresses, Replica, Vendor};

/// What to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub addresses: Addresses,
    /// The accounts of all vendors.
    pub accounts: Vec<Account>,
    /// Self-hosted replicas; port 0 takes a free one.
    pub replicas: Vec<Replica>,
}

impl Default for Config {
    /// The accounts of `envoy.yaml` on free ports.
    fn default() -> Self {
        Self {
            addresses: Addresses::any(),
            accounts: Providers::demo_accounts(),
            replicas: Vec::new(),
        }
    }
}

/// The running servers. Dropping it also stops them, without waiting.
#[derive(Debug)]
pub struct Providers {
    addresses: Addresses,
    accounts: Vec<Account>,
    replicas: Vec<Replica>,
    shared: Arc<Shared>,
    stop: Stop,
}

impl Providers {
    /// The accounts that `envoy.yaml` expects.
    pub fn demo_accounts() -> Vec<Account> {
        [(Vendor::Anthropic, "abc"), (Vendor::OpenAi, "ab"), (Vendor::Gemini, "ab")]
            .into_iter()
            .flat_map(|(vendor, letters)| {
                letters.chars().map(move |letter| Account::demo(vendor, letter))
            })
            .collect()
    }

    /// Binds all addresses, then serves in the background.
    pub async fn start(config: Config) -> Result<Self> {
        let Config { mut addresses, accounts, mut replicas } = config;
        vendor::check(&accounts, &replicas)?;
        let (shared, stop) = (Arc::new(Shared::default()), Stop::new());
        let mut servers = Vec::new();
        for vendor in Vendor::ALL {
            let listener = listen(addresses.of_mut(vendor), vendor.as_str()).await?;
            servers.push((listener, VendorServer::new(vendor, &accounts, Arc::clone(&shared))));
        }
        for replica in &mut replicas {
            let listener = listen(&mut replica.address, &replica.name).await?;
            servers.push((listener, VendorServer::of_replica(replica, Arc::clone(&shared))));
        }
        for (listener, server) in servers {
            tokio::spawn(server::accept(listener, Arc::new(server), stop.signal()));
        }
        Ok(Self { addresses, accounts, replicas, shared, stop })
    }

    /// Where a vendor's server listens.
    pub fn address(&self, vendor: Vendor) -> SocketAddr {
        self.addresses.of(vendor)
    }

    /// All accounts.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// All replicas, where they listen.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The names of all accounts and replicas.
    fn names(&self) -> impl Iterator<Item = &String> {
        let accounts = self.accounts.iter().map(|account| &account.name);
        accounts.chain(self.replicas.iter().map(|replica| &replica.name))
    }

    /// Makes the next `times` requests to an account or a replica fail, or all until
    /// [`clear_faults`](Self::clear_faults). Faults of one account are used up in the order of
    /// these calls.
    pub fn fault(&self, account: &str, fault: Fault, times: Option<u32>) -> Result<()> {
        self.fault_of_model(account, "", fault, times)
    }

    /// As [`fault`](Self::fault), for the models whose names contain this.
    pub fn fault_of_model(
        &self,
        account: &str,
        model: &str,
        fault: Fault,
        times: Option<u32>,
    ) -> Result<()> {
        ensure!(
            self.names().any(|known| known == account),
            "there is no simulated account `{account}`"
        );
        if let Fault::Response { name, .. } = &fault {
            ensure!(
                response_names().any(|known| known == name),
                "there is no simulated response `{name}`"
            );
        }
        self.shared.faults.add(account, model, fault, times);
        Ok(())
    }

    /// Moves an account or a replica to a group, which is made if it is not there. Members of a
    /// group share prompt caches and state; what the account had stays with the group it leaves.
    /// A name is `organization/workspace`: groups of one organization share ciphertext only.
    pub fn move_to_group(&self, account: &str, group: &str) -> Result<()> {
        ensure!(
            self.names().any(|known| known == account),
            "there is no simulated account `{account}`"
        );
        self.shared.groups.move_to(account, group);
        Ok(())
    }

    /// Sets what a vendor does with ciphertext of another organization. By default OpenAI refuses
    /// it, and Anthropic removes it.
    pub fn set_foreign(&self, vendor: Vendor, foreign: Foreign) {
        self.shared.set_foreign(vendor, foreign);
    }

    /// Lets this much time have passed for caches and state.
    pub fn pass(&self, time: Duration) {
        self.shared.clock.pass(time);
    }

    /// Removes the faults that are left.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// The newest requests, oldest first, at most [`LOG_CAPACITY`].
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.log.records()
    }

    /// Forgets the requests so far, but not the totals.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// The totals of each account since the start, by its name.
    pub fn totals(&self) -> BTreeMap<String, Totals> {
        let mut totals: BTreeMap<_, _> =
            self.names().map(|name| (name.clone(), Totals::default())).collect();
        totals.extend(self.shared.log.totals());
        totals
    }

    /// Accepts nothing new, gives responses a few seconds to finish, and returns when all
    /// connections are closed.
    pub async fn stop(self) {
        self.stop.stop().await;
    }
}

/// Serves the accounts of `envoy.yaml` until Ctrl-C or SIGTERM.
pub async fn serve(addresses: Addresses) -> Result<()> {
    serve_with(Config { addresses, ..Config::default() }).await
}

/// As [`serve`], with other accounts or groups.
pub async fn serve_with(config: Config) -> Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let providers = Providers::start(config).await?;
    for vendor in Vendor::ALL {
        let accounts = providers.accounts().iter().filter(|account| account.vendor == vendor);
        let names: Vec<_> =
            accounts.map(|account| format!("{} (key {})", account.name, account.key)).collect();
        let (address, names) = (providers.address(vendor), names.join(", "));
        // The servers may be needed even if nothing reads this any more.
        let _ = writeln!(std::io::stdout(), "simulated {vendor} on http://{address}: {names}");
    }
    shutdown.requested().await;
    providers.stop().await;
    Ok(())
}

/// Binds an address, and replaces port 0 in it by the free port.
async fn listen(address: &mut SocketAddr, name: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(*address).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {address} for simulated {name}"))?;
    *address = listener.local_addr().context("the address of a listener")?;
    Ok(listener)
}
