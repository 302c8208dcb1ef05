//! Where things are in the configuration of Envoy, and how that of the filter is written inside it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

pub(super) const TYPES: &str = "type.googleapis.com";
/// In a listener, on a cluster, and on the listener of the operator's page.
const ROOT_IDS: [&str; 3] =
    ["session_affinity", "session_affinity_upstream", "session_affinity_operator"];
const NO_PLUGIN: &str = "there is no wasm filter with the root_id session_affinity";

/// How the configuration of the filter is written inside that of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As a part of the document. The documentation of Envoy promises JSON to the filter, but 1.36
    /// to 1.40 pass the serialized message `google.protobuf.Struct`.
    Struct,
    /// As one string of JSON, which reaches the filter as it is.
    StringValue,
}

/// Reads the configurations of all plugins as objects.
pub(super) fn decode_configurations(document: &mut Value) -> Result<Encoding> {
    let mut encodings = Vec::new();
    for plugin in plugins(document)? {
        encodings.push(decode_configuration(plugin)?);
    }
    match encodings.as_slice() {
        [first, others @ ..] if others.iter().all(|other| other == first) => Ok(*first),
        _ => bail!("the configurations of the filter are written in different ways"),
    }
}

fn decode_configuration(plugin: &mut Value) -> Result<Encoding> {
    let any = configuration_any(plugin)?;
    match any["@type"].as_str().and_then(|name| name.rsplit('.').next()) {
        Some("Struct") => Ok(Encoding::Struct),
        Some("StringValue") => {
            let text =
                any["value"].as_str().context("the configuration of the filter is not a string")?;
            any["value"] = serde_json::from_str(text)
                .context("the configuration of the filter is not JSON")?;
            Ok(Encoding::StringValue)
        }
        _ => bail!("the configuration of the filter is neither a Struct nor a StringValue"),
    }
}

/// Writes the configurations of all plugins. There may be none: an edit may have removed the filter.
pub(super) fn encode_configurations(document: &mut Value, encoding: Encoding) -> Result<()> {
    let mut plugins = Vec::new();
    collect_plugins(document, &mut plugins);
    for plugin in plugins {
        let any = configuration_any(plugin)?;
        *any = match encoding {
            Encoding::Struct => {
                json!({"@type": format!("{TYPES}/google.protobuf.Struct"), "value": any["value"]})
            }
            Encoding::StringValue => {
                json!({"@type": format!("{TYPES}/google.protobuf.StringValue"), "value": any["value"].to_string()})
            }
        };
    }
    Ok(())
}

/// Edits the configuration of the filter, which is the same in the listener and on all clusters.
pub(super) fn edit_configurations(
    document: &mut Value,
    edit: impl FnOnce(&mut Value),
) -> Result<()> {
    let mut configurations = Vec::new();
    for plugin in plugins(document)? {
        configurations.push(
            configuration_any(plugin)?
                .get_mut("value")
                .context("the configuration of the filter has no value")?,
        );
    }
    let (first, others) = configurations.split_first_mut().context(NO_PLUGIN)?;
    ensure!(others.iter().all(|other| other == first), "the configurations of the filter differ");
    edit(first);
    others.iter_mut().for_each(|other| (*other).clone_from(first));
    Ok(())
}

/// The paths of the module, in the listener and on all clusters.
pub(super) fn module_filenames(document: &mut Value) -> Result<Vec<&mut Value>> {
    let mut filenames = Vec::new();
    for plugin in plugins(document)? {
        let filename = plugin.pointer_mut("/vm_config/code/local/filename");
        filenames.push(filename.context("the filter has no vm_config.code.local.filename")?);
    }
    Ok(filenames)
}

fn configuration_any(plugin: &mut Value) -> Result<&mut Value> {
    plugin.get_mut("configuration").context("the filter has no configuration")
}

/// The settings of our filter, in listeners and on clusters.
fn plugins(document: &mut Value) -> Result<Vec<&mut Value>> {
    let mut plugins = Vec::new();
    collect_plugins(document, &mut plugins);
    ensure!(!plugins.is_empty(), NO_PLUGIN);
    Ok(plugins)
}

fn collect_plugins<'value>(value: &'value mut Value, plugins: &mut Vec<&'value mut Value>) {
    let is_plugin =
        value.get("root_id").and_then(Value::as_str).is_some_and(|id| ROOT_IDS.contains(&id));
    match value {
        plugin if is_plugin => plugins.push(plugin),
        Value::Array(elements) => {
            elements.iter_mut().for_each(|element| collect_plugins(element, plugins))
        }
        Value::Object(members) => {
            members.values_mut().for_each(|member| collect_plugins(member, plugins))
        }
        _ => {}
    }
}

pub(super) fn connection_managers(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    array(document, "/static_resources/listeners")
        .flat_map(|listener| array(listener, "/filter_chains"))
        .flat_map(|chain| array(chain, "/filters"))
        .filter_map(|filter| filter.get_mut("typed_config"))
}

pub(super) fn endpoints(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    array(document, "/static_resources/clusters")
        .flat_map(|cluster| array(cluster, "/load_assignment/endpoints"))
        .flat_map(|locality| array(locality, "/lb_endpoints"))
        .filter_map(|endpoint| endpoint.pointer_mut("/endpoint/address/socket_address"))
}

/// The addresses of replicas in a configuration of the filter.
pub(super) fn replicas(filter: &mut Value) -> impl Iterator<Item = &mut Value> {
    array(filter, "/pools")
        .flat_map(|pool| array(pool, "/credentials"))
        .filter_map(|credential| credential.get_mut("endpoint"))
}

pub(super) fn array<'value>(
    value: &'value mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'value mut Value> + use<'value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

pub(super) fn replace(value: &mut Value, pointer: &str, new: Value) {
    if let Some(old) = value.pointer_mut(pointer) {
        *old = new;
    }
}
