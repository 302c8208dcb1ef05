//! A shipped configuration, such as `envoy.yaml`, changed just enough for a test or a demo.
//!
//! Tests start from the files that users copy, so whatever they prove holds for those files, and a
//! mistake in one fails a test. The methods here name what differs: ports, addresses of providers,
//! the configuration of the filter. The result is written as JSON, which Envoy reads as well as
//! YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::document::{
    TYPES, array, connection_managers, decode_configurations, edit_configurations,
    encode_configurations, endpoints, module_filenames, replace, replicas,
};
use super::mode::Mode;
use super::project::project_root;

pub use super::document::Encoding;

const BOOTSTRAP_FILE: &str = "envoy.json";
const LISTENERS_FILE: &str = "listeners.json";

/// What an Envoy is started with.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// With the configuration of the filter as an object; `encoding` says how it is written.
    document: Value,
    encoding: Encoding,
    pub(super) listeners_from_file: bool,
    pub(super) component_log_level: Option<String>,
    pub(super) core: Option<usize>,
    pub(super) drain_seconds: u32,
    pub(super) environment: Vec<(String, String)>,
}

impl Fixture {
    /// Reads the configuration that is shipped for a mode. The path of the module becomes absolute,
    /// everything else is as shipped.
    pub fn shipped(mode: Mode) -> Result<Self> {
        let path = project_root().join(mode.shipped_file());
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, project_root())
            .with_context(|| format!("{} cannot be used", path.display()))
    }

    /// Reads a configuration. A relative path of the module begins at `root`.
    pub fn parse(text: &str, root: &Path) -> Result<Self> {
        let mut document: Value =
            serde_saphyr::from_str(text).context("it is not a YAML document")?;
        let encoding = decode_configurations(&mut document)?;
        for filename in module_filenames(&mut document)? {
            let module = filename.as_str().context("the path of the module is not a string")?;
            *filename = json!(root.join(module));
        }
        Ok(Self {
            document,
            encoding,
            listeners_from_file: false,
            component_log_level: None,
            core: None,
            drain_seconds: 1,
            environment: Vec::new(),
        })
    }

    /// A bootstrap whose filter is configured in other files, or not at all.
    pub fn without_filter(document: Value) -> Self {
        Self {
            document,
            encoding: Encoding::Struct,
            listeners_from_file: false,
            component_log_level: None,
            core: None,
            drain_seconds: 1,
            environment: Vec::new(),
        }
    }

    /// Lets the kernel choose the ports of all listeners and of the admin interface, so that many
    /// can run side by side.
    pub fn on_free_ports(mut self) -> Self {
        const PORT: &str = "/address/socket_address/port_value";
        for listener in array(&mut self.document, "/static_resources/listeners") {
            replace(listener, PORT, json!(0));
        }
        replace(&mut self.document["admin"], PORT, json!(0));
        self
    }

    /// Lets the listener for clients, the operator's page and the admin interface listen at these
    /// addresses.
    pub fn listening_on(
        mut self,
        listener: SocketAddr,
        operator: SocketAddr,
        admin: SocketAddr,
    ) -> Self {
        const ADDRESS: &str = "/address/socket_address";
        for document in array(&mut self.document, "/static_resources/listeners") {
            let own = if document["name"] == "operator" { operator } else { listener };
            replace(document, ADDRESS, socket_address(own));
        }
        replace(&mut self.document["admin"], ADDRESS, socket_address(admin));
        self
    }

    /// Replaces upstreams at these ports of the loopback interface by these addresses.
    pub fn with_providers(mut self, addresses: &BTreeMap<u16, SocketAddr>) -> Result<Self> {
        let mut unused: BTreeSet<u16> = addresses.keys().copied().collect();
        for endpoint in endpoints(&mut self.document) {
            let port = endpoint["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
            if let Some((port, address)) = port.and_then(|port| addresses.get_key_value(&port)) {
                *endpoint = socket_address(*address);
                unused.remove(port);
            }
        }
        let moved = self.edit_filter(|filter| {
            for endpoint in replicas(filter) {
                let address = endpoint.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
                if let Some((port, address)) =
                    address.and_then(|address| addresses.get_key_value(&address.port()))
                {
                    *endpoint = json!(address);
                    unused.remove(port);
                }
            }
        })?;
        ensure!(unused.is_empty(), "no upstream has one of these ports: {unused:?}");
        Ok(moved)
    }

    /// Uses another module than `dist/session_affinity.wasm`.
    pub fn with_module(mut self, path: &Path) -> Result<Self> {
        module_filenames(&mut self.document)?
            .into_iter()
            .for_each(|filename| *filename = json!(path));
        Ok(self)
    }

    /// Changes the configuration of the filter, in the listener and on all clusters. It is an
    /// object here, however it is written.
    pub fn edit_filter(mut self, edit: impl FnOnce(&mut Value)) -> Result<Self> {
        edit_configurations(&mut self.document, edit)?;
        Ok(self)
    }

    /// Writes the configuration of the filter this way, instead of the one that is shipped.
    pub fn filter_configuration_as(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Shows clients what the filter decided, in a response header: for tests, and for the demo.
    pub fn showing_decisions(mut self) -> Self {
        let shown = json!([{"header": {
            "key": "x-session-affinity-decision",
            "value": "%FILTER_STATE(wasm.session_affinity.decision:PLAIN)%",
        }}]);
        let managers = connection_managers(&mut self.document);
        for host in managers.flat_map(|manager| array(manager, "/route_config/virtual_hosts")) {
            host["response_headers_to_add"] = shown.clone();
        }
        self
    }

    /// Writes the access log to a file, in its own format, instead of to stdout.
    pub fn with_access_log(mut self, path: &Path) -> Result<Self> {
        let log = connection_managers(&mut self.document)
            .find_map(|manager| manager.pointer_mut("/access_log/0"))
            .context("no listener has an access log")?;
        let format = log["typed_config"]["log_format"].take();
        *log = json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": format!("{TYPES}/envoy.extensions.access_loggers.file.v3.FileAccessLog"),
                "path": path,
                "log_format": format,
            },
        });
        Ok(self)
    }

    /// Changes anything. The configurations of the filter are objects here, too, and must remain
    /// equal.
    pub fn edit(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        edit(&mut self.document);
        self
    }

    /// Moves the listeners to a file that Envoy watches, so that
    /// [`super::Process::update_listener`] can replace them.
    pub fn with_listeners_from_file(mut self) -> Self {
        self.listeners_from_file = true;
        self
    }

    /// Sets log levels of parts of Envoy, such as `wasm:debug`; all others log at `info`.
    pub fn with_component_log_level(mut self, levels: &str) -> Self {
        self.component_log_level = Some(levels.to_owned());
        self
    }

    /// Gives connections of a listener that is replaced this many seconds, in place of one.
    pub fn with_drain_time(mut self, seconds: u32) -> Self {
        self.drain_seconds = seconds;
        self
    }

    /// Lets all threads of Envoy run on this core of the machine and no other. Needs `taskset`.
    pub fn on_core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets an environment variable of Envoy, besides those that it is started with.
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Writes all files of this fixture and returns the path of the one to start Envoy with.
    pub(super) fn write(&self, directory: &Path) -> Result<PathBuf> {
        if self.listeners_from_file {
            self.write_listeners(directory)?;
        }
        let path = directory.join(BOOTSTRAP_FILE);
        fs::write(&path, self.bootstrap(directory)?.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Replaces the file with the listeners by a rename: Envoy waits for that event, and reads no
    /// part of a file.
    pub(super) fn write_listeners(&self, directory: &Path) -> Result<()> {
        let path = directory.join(LISTENERS_FILE);
        let new = directory.join("listeners.json.new");
        fs::write(&new, self.listeners()?.to_string())
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn bootstrap(&self, directory: &Path) -> Result<Value> {
        let mut bootstrap = self.encoded()?;
        if self.listeners_from_file {
            bootstrap["static_resources"]["listeners"] = json!([]);
            bootstrap["dynamic_resources"] = json!({"lds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": directory.join(LISTENERS_FILE),
                    "watched_directory": {"path": directory},
                },
            }});
        }
        Ok(bootstrap)
    }

    fn listeners(&self) -> Result<Value> {
        let mut listeners = self.encoded()?["static_resources"]["listeners"].take();
        for listener in array(&mut listeners, "") {
            listener["@type"] = json!(format!("{TYPES}/envoy.config.listener.v3.Listener"));
        }
        Ok(json!({"resources": listeners}))
    }

    fn encoded(&self) -> Result<Value> {
        let mut document = self.document.clone();
        encode_configurations(&mut document, self.encoding)?;
        Ok(document)
    }
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"address": address.ip(), "port_value": address.port()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Fixture {
        Fixture::shipped(Mode::Clusters).unwrap()
    }

    /// The configuration of the filter, which must be the same everywhere.
    fn filter(fixture: Fixture) -> Value {
        let mut filter = Value::Null;
        fixture.edit_filter(|object| filter = object.clone()).unwrap();
        filter
    }

    /// The text of the bootstrap, in which a test can look for what must not be left.
    fn text(fixture: &Fixture) -> String {
        fixture.bootstrap(Path::new("/run")).unwrap().to_string()
    }

    #[test]
    fn the_module_is_found_from_any_working_directory() {
        let module = json!(project_root().join("dist/session_affinity.wasm"));
        let modules = Mode::ALL.map(|mode| {
            let mut document = Fixture::shipped(mode).unwrap().document;
            let filenames = module_filenames(&mut document).unwrap().into_iter();
            filenames.filter(|filename| **filename == module).count()
        });
        // In the listener, in that of the operator's page, and on every cluster where there is
        // failover within a request.
        assert_eq!(modules, [2 + 7, 2 + 3, 1 + 1, 2]);
    }

    #[test]
    fn another_module_takes_the_place_of_all() {
        let text = text(&shipped().with_module(Path::new("/run/other.wasm")).unwrap());
        assert_eq!(text.matches("/run/other.wasm").count(), 2 + 7);
        assert!(!text.contains("session_affinity.wasm"));
    }

    #[test]
    fn free_ports_leave_no_fixed_one() {
        let before = text(&shipped());
        assert!(
            before.contains(r#""port_value":9901"#) && before.contains(r#""port_value":10000"#)
        );
        let after = text(&shipped().on_free_ports());
        assert!(
            !after.contains(r#""port_value":9901"#) && !after.contains(r#""port_value":10000"#)
        );
    }

    #[test]
    fn other_addresses_take_the_place_of_the_shipped_ones() {
        let addresses = ["[::1]:7", "127.0.0.3:9", "127.0.0.2:8"].map(|it| it.parse().unwrap());
        let [listener, operator, admin] = addresses;
        let text = text(&shipped().listening_on(listener, operator, admin));
        assert!(text.contains(r#"{"address":"127.0.0.3","port_value":9}"#));
        assert!(text.contains(r#"{"address":"::1","port_value":7}"#));
        assert!(text.contains(r#"{"address":"127.0.0.2","port_value":8}"#));
        assert!(!text.contains(r#""port_value":9901"#) && !text.contains(r#""port_value":10000"#));
    }

    #[test]
    fn providers_move_all_at_once() {
        // Each goes where another one was: replacing them one after the other would send two to the
        // same address.
        let addresses = [(18001, 18002), (18002, 18003), (18003, 18001)]
            .map(|(from, to)| (from, SocketAddr::from(([127, 0, 0, 1], to))));
        assert_eq!(ports(shipped()), [18001, 18001, 18001, 18003, 18003, 18002, 18002]);
        let moved = shipped().with_providers(&addresses.into()).unwrap();
        assert_eq!(ports(moved), [18002, 18002, 18002, 18001, 18001, 18003, 18003]);
    }

    fn ports(mut fixture: Fixture) -> Vec<u64> {
        let endpoints = endpoints(&mut fixture.document);
        endpoints.filter_map(|endpoint| endpoint["port_value"].as_u64()).collect()
    }

    #[test]
    fn replicas_move_in_the_filter() {
        let moved = SocketAddr::from(([127, 0, 0, 1], 7));
        let fixture = Fixture::shipped(Mode::Replicas)
            .unwrap()
            .with_providers(&[(18012, moved)].into())
            .unwrap();
        let credentials = &filter(fixture)["pools"][0]["credentials"];
        assert_eq!(credentials[0]["endpoint"], "127.0.0.1:18011");
        assert_eq!(credentials[1]["endpoint"], "127.0.0.1:7");
    }

    #[test]
    fn a_provider_that_is_no_upstream_is_an_error() {
        let addresses = [(18009, SocketAddr::from(([127, 0, 0, 1], 1)))].into();
        let problem = shipped().with_providers(&addresses).unwrap_err().to_string();
        assert_eq!(problem, "no upstream has one of these ports: {18009}");
    }

    #[test]
    fn an_edit_of_the_filter_is_written_in_either_encoding_and_everywhere() {
        let edited = shipped()
            .edit_filter(|filter| filter["routing"]["session_affinity_ttl"] = json!("7s"))
            .unwrap();
        let [object, string] = [Encoding::Struct, Encoding::StringValue]
            .map(|encoding| text(&edited.clone().filter_configuration_as(encoding)));
        assert_eq!(object.matches(r#""session_affinity_ttl":"7s""#).count(), 2 + 7);
        assert_eq!(object.matches("google.protobuf.Struct").count(), 2 + 7);
        assert_eq!(string.matches(r#"\"session_affinity_ttl\":\"7s\""#).count(), 2 + 7);
        assert_eq!(string.matches("google.protobuf.StringValue").count(), 2 + 7);
    }

    #[test]
    fn a_configuration_that_is_a_string_is_edited_as_an_object() {
        let mut document = shipped().document;
        encode_configurations(&mut document, Encoding::StringValue).unwrap();
        let fixture = Fixture::parse(&document.to_string(), Path::new("/project")).unwrap();
        let fixture = fixture.edit_filter(|filter| filter["body"]["max_bytes"] = json!(7)).unwrap();
        assert_eq!(fixture.encoding, Encoding::StringValue);
        assert!(text(&fixture).contains(r#"\"body\":{\"max_bytes\":7}"#));
    }

    #[test]
    fn configurations_that_differ_are_not_edited() {
        let fixture = shipped().edit(|document| {
            let mut filenames = module_filenames(document).unwrap();
            *filenames[1] = json!("other.wasm");
        });
        assert!(fixture.clone().edit_filter(|_| {}).is_ok(), "only the configuration counts");
        let fixture = fixture.edit(|document| {
            let cluster = &mut document["static_resources"]["clusters"][0];
            let options = &mut cluster["typed_extension_protocol_options"];
            let options = options.as_object_mut().unwrap().values_mut().next().unwrap();
            options["http_filters"][0]["typed_config"]["config"]["configuration"]["value"]["body"] =
                json!({});
        });
        let problem = fixture.edit_filter(|_| {}).unwrap_err().to_string();
        assert_eq!(problem, "the configurations of the filter differ");
    }

    #[test]
    fn an_edit_may_remove_the_filter() {
        let fixture = shipped().edit(|document| *document = json!({"static_resources": {}}));
        assert_eq!(text(&fixture), r#"{"static_resources":{}}"#);
        let problem = fixture.edit_filter(|_| {}).unwrap_err().to_string();
        assert_eq!(problem, "there is no wasm filter with the root_id session_affinity");
    }

    #[test]
    fn the_order_of_keys_is_kept() {
        let filter = filter(shipped());
        let keys: Vec<_> = filter.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["routing", "failover", "session", "body", "privacy", "pools"]);
    }

    #[test]
    fn an_access_log_in_a_file_keeps_its_format() {
        let fixture = shipped().with_access_log(Path::new("/run/access.log")).unwrap();
        let text = text(&fixture);
        assert!(
            text.contains(r#""path":"/run/access.log""#) && text.contains("%UPSTREAM_CLUSTER%")
        );
        assert!(!text.contains("StdoutAccessLog"));
    }

    #[test]
    fn listeners_from_a_file_leave_none_in_the_bootstrap() {
        let fixture = shipped().with_listeners_from_file();
        let bootstrap = fixture.bootstrap(Path::new("/run")).unwrap();
        assert_eq!(bootstrap["static_resources"]["listeners"], json!([]));
        let source = &bootstrap["dynamic_resources"]["lds_config"]["path_config_source"];
        assert_eq!(source["path"], "/run/listeners.json");
        let listener = &fixture.listeners().unwrap()["resources"][0];
        assert_eq!(listener["@type"], "type.googleapis.com/envoy.config.listener.v3.Listener");
        assert_eq!(listener["name"], "llm");
    }
}
