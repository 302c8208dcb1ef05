//! What the filter knows now, as JSON.

use super::census::{Census, MOST_ROWS};
use super::changes::{self, Entry};
use super::json::Json;
use crate::config::{Availability, Config, Credential, Pool, Profile};
use crate::cooldown::{Basis, Block, Cooldown, Override, Record, WHOLE};
use crate::group;
use crate::metrics::Metric;
use crate::operation::Operation;
use crate::outcome::{Outcome, TokenType};
use crate::router::Router;
use crate::shared::SharedData;
use crate::signals::{Class, Scope, families};
use crate::target::Subject;
use crate::time::Timestamp;

/// What Envoy has counted under a name.
pub type Counted<'f> = dyn Fn(&str) -> u64 + 'f;

/// The document that the page polls.
pub(super) fn state(
    router: &Router,
    shared: &impl SharedData,
    counted: &Counted<'_>,
    now: Timestamp,
) -> Json {
    let census = Census::take(router, shared, now);
    let config = router.config();
    let mut json = Json::default();
    json.open('{').key("now").number(now.as_millis());
    json.key("version").text(env!("CARGO_PKG_VERSION"));
    json.key("profile").text(match config.profile {
        Profile::Recommended => "recommended",
        Profile::Reference => "reference",
    });
    json.key("pools").open('[');
    for pool in &config.pools {
        write_pool(&mut json, &pool.name, counted);
    }
    json.close(']').key("credentials").open('[');
    for pool in &config.pools {
        for credential in &pool.credentials {
            View::of(router, pool, credential, shared, now).write(&mut json, &census);
        }
    }
    json.close(']').key("tables").open('{');
    let (bindings, pins) = (router.bindings().table(), router.pins.table());
    write_table(&mut json, "sessions", bindings.capacity(), census.sessions());
    if census.is_estimated() {
        json.key("estimated").number(1);
    }
    json.close('}');
    if config.pins.max > 0 {
        write_table(&mut json, "pins", pins.capacity(), pins.count(shared, MOST_ROWS, 0, now));
        json.close('}');
    }
    json.close('}').key("changes").open('[');
    for change in changes::recent(shared).iter().rev() {
        write_change(&mut json, config, change);
    }
    json.close(']').close('}');
    json
}

/// The tokens of prompts by decision, and how many of them came from the provider's cache: what
/// affinity is for.
fn write_pool(json: &mut Json, pool: &str, counted: &Counted<'_>) {
    json.open('{').key("name").text(pool).key("decisions").open('[');
    // Asking makes a counter known to Envoy, so only for those that may have counted.
    for outcome in Outcome::ALL.into_iter().filter(|it| it.is_sent()).map(Outcome::as_str) {
        let tokens =
            |kind: TokenType| counted(&Metric::Tokens.series(&[pool, outcome, kind.as_str()]));
        let cached = tokens(TokenType::CacheRead);
        let prompt = cached + tokens(TokenType::Input) + tokens(TokenType::CacheWrite);
        if prompt > 0 {
            json.open('{').key("outcome").text(outcome);
            json.key("prompt_tokens").number(prompt).key("cached_tokens").number(cached);
            json.close('}');
        }
    }
    json.close(']').close('}');
}

/// What is known of one credential.
struct View<'a> {
    router: &'a Router,
    pool: &'a Pool,
    credential: &'a Credential,
    state: &'static str,
    record: Record,
    overridden: Option<Override>,
    /// The blocks that hold, each with what it is of; in the profile `reference` only the block of
    /// the credential as a whole, which is of no cooldown.
    blocks: Vec<(Option<Cooldown>, Block)>,
    group: Option<u32>,
    in_flight: Option<u32>,
    is_spared: bool,
    /// What is used of the windows of its limits, in percent, and when they are whole again.
    windows: Vec<(&'static str, u16, Timestamp)>,
}

impl<'a> View<'a> {
    fn of(
        router: &'a Router,
        pool: &'a Pool,
        credential: &'a Credential,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Self {
        let cooldowns = router.cooldowns();
        let (mut record, mut blocks) = (Record::default(), Vec::new());
        if router.config().profile == Profile::Reference {
            let block = router.reference_cooldowns().block(shared, credential, "", now);
            blocks.extend(block.map(|block| (None, block)));
        } else {
            record = cooldowns.record(shared, credential).unwrap_or_default();
            for cooldown in record.iter() {
                let block = cooldowns.block_of(cooldown, credential, now);
                blocks.extend(block.map(|block| (Some(*cooldown), block)));
            }
        }
        let overridden = record.override_at(now);
        let group = group::of(credential, shared).map(group::GroupId::tag);
        let (state, _) = router.standing(credential, shared, now);
        let state = state.as_str();
        let mut view = Self {
            router,
            pool,
            credential,
            state,
            record,
            overridden,
            blocks,
            group,
            in_flight: None,
            is_spared: false,
            windows: Vec::new(),
        };
        if router.config().profile == Profile::Recommended {
            view.look_for_room(shared, now);
        }
        view
    }

    fn look_for_room(&mut self, shared: &impl SharedData, now: Timestamp) {
        let headroom = self.router.headroom();
        self.in_flight = headroom.in_flight(self.pool, self.credential, shared, now);
        let limits = headroom.limits(self.credential, None, shared, now);
        self.is_spared = headroom.spares(&limits);
        self.windows = headroom.record(self.credential, shared).tightest(now);
    }

    fn write(&self, json: &mut Json, census: &Census) {
        let credential = self.credential;
        json.open('{').key("pool").text(&self.pool.name).key("id").text(&credential.id);
        json.key("state").text(self.state);
        json.key("configured").text(word(credential.availability));
        json.key("override");
        match self.overridden {
            Some(it) => {
                json.open('{').key("state").text(word(it.availability));
                json.key("until").number(it.until.as_millis()).close('}');
            }
            None => drop(json.null()),
        }
        json.key("group");
        match self.group {
            Some(tag) => json.tag(tag),
            None => json.null(),
        };
        json.key("sessions").number(census.sessions_of(credential.fingerprint));
        json.key("in_flight");
        match self.in_flight {
            Some(in_flight) => json.number(in_flight.into()),
            None => json.null(),
        };
        json.key("spared").boolean(self.is_spared).key("windows").open('[');
        for (name, used, reset) in &self.windows {
            json.open('{').key("name").text(name).key("used").number((*used).into());
            json.key("reset").number(reset.as_millis()).close('}');
        }
        json.close(']');
        json.key("served").number(self.record.served.as_millis());
        json.key("blocks").open('[');
        for (cooldown, block) in &self.blocks {
            self.write_block(json, cooldown.as_ref(), *block);
        }
        json.close(']').close('}');
    }

    fn write_block(&self, json: &mut Json, cooldown: Option<&Cooldown>, block: Block) {
        json.open('{');
        match cooldown {
            Some(cooldown) => {
                json.key("id").tag(cooldown.key.tag());
                json.key("scope").text(if cooldown.key == WHOLE { "credential" } else { "model" });
                if cooldown.key != WHOLE {
                    json.key("model");
                    match self.model_of(cooldown) {
                        Some(model) => json.text(model),
                        None => json.tag(cooldown.key.tag()),
                    };
                }
                json.key("reason").text(match cooldown.basis {
                    Basis::Announced => "announced",
                    Basis::Proven => "proven",
                    Basis::Guessed => "guessed",
                });
                json.key("status").number(cooldown.status.into());
                json.key("since").number(cooldown.began.as_millis());
            }
            None => drop(json.key("scope").text("credential")),
        }
        if let Block::RateLimited { class, .. } | Block::Failing { class, .. } = block {
            json.key("class").text(class.as_str());
        }
        for (name, time) in [("until", block.until()), ("retry_at", block.retry_at())] {
            if let Some(time) = time {
                json.key(name).number(time.as_millis());
            }
        }
        json.close('}');
    }

    /// The model or family that a cooldown covers. Only hashes of models are kept, so it is known if
    /// the configuration names it.
    fn model_of(&self, cooldown: &Cooldown) -> Option<&'a str> {
        let cooldowns = self.router.cooldowns();
        let unknown = Subject { model: "", operation: Operation::Generate };
        let family = families::ALL
            .iter()
            .copied()
            .find(|family| cooldowns.key(Scope::Family(family), unknown, false) == cooldown.key);
        let models = self.pool.matches.iter().flat_map(|it| &it.models);
        let mut models = models.filter_map(|pattern| pattern.literal());
        family.or_else(|| {
            models.find(|model| {
                Operation::ALL.iter().any(|&operation| {
                    let subject = Subject { model, operation };
                    cooldowns.key(Scope::Model, subject, false) == cooldown.key
                })
            })
        })
    }
}

fn word(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Drain => "drain",
        Availability::Disabled => "disabled",
    }
}

/// Begins the object of a table.
fn write_table(json: &mut Json, name: &str, slots: u64, live: u64) {
    json.key(name).open('{').key("slots").number(slots).key("live").number(live);
}

fn write_change(json: &mut Json, config: &Config, change: &Entry) {
    json.open('{').key("at").number(change.at.as_millis());
    json.key("what").text(change.what.as_str());
    json.key("by").text(if change.what.is_operators() { "operator" } else { "provider" });
    let pool = config.pools.iter().find(|pool| pool.fingerprint == change.pool);
    if let Some(credential) = pool.and_then(|pool| pool.credential(change.credential)) {
        json.key("pool").text(pool.map_or("", |pool| &pool.name));
        json.key("credential").text(&credential.id);
    }
    if change.class != Class::Success {
        json.key("class").text(change.class.as_str());
        json.key("status").number(change.status.into());
    }
    if change.until != Timestamp::EPOCH {
        json.key("until").number(change.until.as_millis());
    }
    json.key("times").number(change.times.into()).close('}');
}
