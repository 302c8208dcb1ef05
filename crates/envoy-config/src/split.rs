//! A configuration in parts that change while Envoy runs.
//!
//! What is in the bootstrap needs a restart, and a listener that changes closes its connections when
//! the drain time is over: with them, streams are cut. Routes, clusters, secrets and the filter itself
//! change without, if each comes from where Envoy looks for changes: a file that it watches, or a
//! control plane. Anchors do not reach from file to file, so the parts have none.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::yaml;

const TYPES: &str = "type.googleapis.com";
const ROOT_IDS: [&str; 3] =
    ["session_affinity", "session_affinity_upstream", "session_affinity_operator"];

/// The folder of the files with keys, in that of all files.
pub(super) const SECRETS: &str = "secrets";

/// Where Envoy gets a part from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files in this directory, as Envoy sees it.
    Files(String),
    /// The control plane that the bootstrap names under `ads_config`.
    ControlPlane,
}

/// A file: its name below the directory, and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its path in the directory of all files.
    pub name: String,
    /// What is in it.
    pub content: Value,
}

impl File {
    pub(super) fn new(name: impl Into<String>, content: Value) -> Self {
        Self { name: name.into(), content }
    }

    pub(super) fn of_resources(name: impl Into<String>, resources: Vec<Value>) -> Self {
        Self::new(name, json!({"resources": resources}))
    }

    /// A secret that Envoy reads from this place.
    pub(super) fn of_secret(name: &str, place: Value) -> Self {
        let secret = resource(
            "envoy.extensions.transport_sockets.tls.v3.Secret",
            json!({"name": name, "generic_secret": {"secret": place}}),
        );
        Self::of_resources(format!("{SECRETS}/{name}.yaml"), vec![secret])
    }

    /// It as text for Envoy, behind these lines of comment.
    pub fn yaml(&self, comment: &str) -> String {
        let comment: String = comment.lines().map(|line| format!("# {line}\n")).collect();
        let members = self.content.as_object().map(|it| yaml::block(it, 0)).unwrap_or_default();
        format!("{comment}{members}")
    }
}

impl Source {
    fn of(&self, file: &str) -> Value {
        match self {
            Self::Files(directory) => json!({
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": format!("{directory}/{file}"),
                    "watched_directory": {"path": directory},
                },
            }),
            Self::ControlPlane => json!({"resource_api_version": "V3", "ads": {}}),
        }
    }
}

/// Takes the configuration of the filter out of a document, which refers to it instead.
pub(super) fn take_filter(document: &mut Value, source: &Source) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    for filter in filters(document) {
        let root_id = filter.pointer("/typed_config/config/root_id").and_then(Value::as_str);
        let Some(name) = root_id.map(str::to_owned) else {
            continue;
        };
        let file = format!("{name}.yaml");
        let discovery = json!({
            "name": name,
            "config_discovery": {
                "config_source": source.of(&file),
                "type_urls": [format!("{TYPES}/envoy.extensions.filters.http.wasm.v3.Wasm")],
            },
        });
        let config = std::mem::replace(filter, discovery);
        let extension = json!({"name": name, "typed_config": config.get("typed_config")});
        if !files.iter().any(|made| made.name == file) {
            let extension = resource("envoy.config.core.v3.TypedExtensionConfig", extension);
            files.push(File::of_resources(file, vec![extension]));
        }
    }
    files
}

/// All parts of a document: the first is the bootstrap.
///
/// # Errors
/// If the document has not the shape of those that the templates make.
pub(super) fn split(mut document: Value, source: &Source) -> Result<Vec<File>> {
    let mut files = take_filter(&mut document, source);
    if let Source::ControlPlane = source {
        for_each_object(&mut document, &mut |object| {
            if let Some(config) = object.get_mut("sds_config") {
                *config = source.of("");
            }
        });
    }
    let parts = document.get_mut("static_resources").context("there are no static_resources")?;
    let mut listeners = take(parts, "listeners")?;
    let clusters = take(parts, "clusters")?;
    let mut routes = Vec::new();
    // A file of routes has room for one listener, and the operator's routes nothing.
    for listener in listeners.iter_mut().filter(|listener| !is_operators(listener)) {
        for_each_object(listener, &mut |object| {
            // A file has the routes of one listener; those of the others do not change.
            if object.get("stat_prefix").is_some_and(|prefix| prefix != "llm") {
                return;
            }
            if let Some(config) = object.remove("route_config") {
                let name = config.get("name").cloned().unwrap_or_default();
                let rds =
                    json!({"route_config_name": name, "config_source": source.of("routes.yaml")});
                object.insert("rds".to_owned(), rds);
                routes.push(config);
            }
        });
    }
    let bootstrap = document.as_object_mut().context("the document is no object")?;
    bootstrap.remove("static_resources");
    bootstrap.insert(
        "dynamic_resources".to_owned(),
        json!({"lds_config": source.of("listeners.yaml"), "cds_config": source.of("clusters.yaml")}),
    );
    name_node(&mut document);
    files.insert(0, File::new("bootstrap.yaml", document));
    for (name, kind, values) in [
        ("listeners.yaml", "envoy.config.listener.v3.Listener", listeners),
        ("routes.yaml", "envoy.config.route.v3.RouteConfiguration", routes),
        ("clusters.yaml", "envoy.config.cluster.v3.Cluster", clusters),
    ] {
        let resources = values.into_iter().map(|value| resource(kind, value));
        files.push(File::of_resources(name, resources.collect()));
    }
    Ok(files)
}

/// Envoy looks for parts elsewhere only if it has a name.
pub(super) fn name_node(document: &mut Value) {
    if let Some(members) = document.as_object_mut()
        && !members.contains_key("node")
    {
        let node = json!({"id": "session-affinity", "cluster": "session-affinity"});
        members.insert("node".to_owned(), node);
    }
}

/// Whether a listener is that of the operator's page, as the template names it.
fn is_operators(listener: &Value) -> bool {
    listener.get("name").and_then(Value::as_str) == Some("operator")
}

fn take(parts: &mut Value, name: &str) -> Result<Vec<Value>> {
    match parts.get_mut(name).map(Value::take) {
        Some(Value::Array(values)) => Ok(values),
        _ => anyhow::bail!("there are no {name}"),
    }
}

/// A resource says of which type it is.
pub(super) fn resource(kind: &str, value: Value) -> Value {
    let mut members = Map::from_iter([("@type".to_owned(), json!(format!("{TYPES}/{kind}")))]);
    if let Value::Object(value) = value {
        members.extend(value);
    }
    members.into()
}

/// The filters of a document that are ours, in listeners and on clusters.
fn filters(value: &mut Value) -> Vec<&mut Value> {
    let root_id = value.pointer("/typed_config/config/root_id").and_then(Value::as_str);
    if root_id.is_some_and(|id| ROOT_IDS.contains(&id)) {
        return vec![value];
    }
    match value {
        Value::Array(elements) => elements.iter_mut().flat_map(filters).collect(),
        Value::Object(members) => members.values_mut().flat_map(filters).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn for_each_object(value: &mut Value, edit: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Array(elements) => {
            elements.iter_mut().for_each(|element| for_each_object(element, edit));
        }
        Value::Object(members) => {
            edit(members);
            members.values_mut().for_each(|member| for_each_object(member, edit));
        }
        _ => {}
    }
}
