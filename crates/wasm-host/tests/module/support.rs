//! The module, and gateways with the shipped configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use wasm_host::{
    Answer, Attempt, Clock, Gateway, Module, Played, Request, Response, Settings, SharedData,
    Wiring,
};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The module that was built, translated once for all tests.
pub(crate) fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| {
        let path = root().join("dist/session_affinity.wasm");
        let bytes = fs::read(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; run cargo xtask dist", path.display()));
        Module::new(&bytes).unwrap()
    })
}

/// The configuration of the filter in the shipped `envoy.yaml`.
fn shipped() -> Value {
    let yaml = fs::read_to_string(root().join("envoy.yaml")).unwrap();
    let mut document: Value = serde_saphyr::from_str(&yaml).unwrap();
    let connection = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let plugin = "http_filters/0/typed_config/config/configuration/value";
    document.pointer_mut(&format!("{connection}/{plugin}")).unwrap().take()
}

/// The environment variable that has a key.
pub(crate) const KEY: &str = "PROVIDER_KEY";

fn settings(seed: u64) -> Settings {
    let environment = vec![(KEY.to_owned(), "sk-of-the-gateway".to_owned())];
    Settings { environment, seed, ..Settings::default() }
}

/// One worker or several, their data and their clock.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) shared: SharedData,
    pub(crate) clock: Clock,
    wiring: Wiring,
}

impl World {
    /// The shipped configuration, with the filter on the clusters or only in the listener.
    pub(crate) fn new(is_on_clusters: bool, edit: impl FnOnce(&mut Value)) -> Self {
        let mut configuration = shipped();
        // Credentials are tried by id, so that a test can name them.
        configuration["routing"]["strategy"] = json!("fill-first");
        edit(&mut configuration);
        let cluster_state = configuration["routing"]["filter_state"].as_str().unwrap().to_owned();
        let configuration = configuration.to_string();
        let wiring = Wiring { configuration, cluster_state, is_on_clusters };
        let (shared, clock) = (SharedData::default(), Clock::at(1_800_000_000));
        let gateway = Gateway::start(module(), &wiring, settings(1), &shared, &clock).unwrap();
        Self { gateway, shared, clock, wiring }
    }

    /// Another worker of the same Envoy.
    pub(crate) fn worker(&self, seed: u64) -> Gateway {
        Gateway::start(module(), &self.wiring, settings(seed), &self.shared, &self.clock).unwrap()
    }

    /// Plays a request a second after the one before.
    pub(crate) fn play(
        &mut self,
        request: &Request,
        answer: impl FnMut(&Attempt) -> Answer,
    ) -> Played {
        self.clock.advance(Duration::from_secs(1));
        self.gateway.tick().unwrap();
        self.gateway.play(request, answer).unwrap()
    }

    /// Plays a request that every credential would serve with this response.
    pub(crate) fn serve(&mut self, request: &Request, response: &Response) -> Played {
        self.play(request, |_| Answer::Response(response.clone()))
    }
}
