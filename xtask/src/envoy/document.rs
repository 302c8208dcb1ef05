//! Where things are in Envoy's configuration, and how the filter's own is written inside it.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub(super) const TYPES: &str = "type.googleapis.com";
const ROOT_ID: &str = "session_affinity";

/// How the filter's configuration is written inside Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As a part of the document. Envoy's documentation promises JSON to the filter, but 1.36 to 1.40 hand over the
    /// serialized message `google.protobuf.Struct`.
    Struct,
    /// As one string of JSON, which reaches the filter as it is.
    StringValue,
}

pub(super) fn decode_configuration(document: &mut Value) -> Result<Encoding> {
    let any = configuration_any(document)?;
    match any["@type"].as_str().and_then(|name| name.rsplit('.').next()) {
        Some("Struct") => Ok(Encoding::Struct),
        Some("StringValue") => {
            let text = any["value"].as_str().context("the configuration of the filter is no string")?;
            any["value"] = serde_json::from_str(text).context("the configuration of the filter is no JSON")?;
            Ok(Encoding::StringValue)
        }
        _ => bail!("the configuration of the filter is neither a Struct nor a StringValue"),
    }
}

pub(super) fn encode_configuration(document: &mut Value, encoding: Encoding) -> Result<()> {
    let any = configuration_any(document)?;
    *any = match encoding {
        Encoding::Struct => {
            json!({"@type": format!("{TYPES}/google.protobuf.Struct"), "value": any["value"]})
        }
        Encoding::StringValue => {
            json!({"@type": format!("{TYPES}/google.protobuf.StringValue"), "value": any["value"].to_string()})
        }
    };
    Ok(())
}

pub(super) fn configuration(document: &mut Value) -> Result<&mut Value> {
    configuration_any(document)?.get_mut("value").context("the configuration of the filter has no value")
}

fn configuration_any(document: &mut Value) -> Result<&mut Value> {
    plugin(document)?.get_mut("configuration").context("the filter has no configuration")
}

pub(super) fn module_filename(document: &mut Value) -> Result<&mut Value> {
    let path = "/vm_config/code/local/filename";
    plugin(document)?.pointer_mut(path).context("the filter has no vm_config.code.local.filename")
}

/// The settings of our filter among all HTTP filters of all listeners.
fn plugin(document: &mut Value) -> Result<&mut Value> {
    connection_managers(document)
        .flat_map(|manager| array(manager, "/http_filters"))
        .filter_map(|filter| filter.pointer_mut("/typed_config/config"))
        .find(|plugin| plugin["root_id"] == ROOT_ID)
        .with_context(|| format!("no listener has a wasm filter with root_id {ROOT_ID}"))
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

pub(super) fn array<'value>(
    value: &'value mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'value mut Value> + use<'value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

pub(super) fn replace(value: &mut Value, pointer: &str, new: Value) {
    if let Some(place) = value.pointer_mut(pointer) {
        *place = new;
    }
}
