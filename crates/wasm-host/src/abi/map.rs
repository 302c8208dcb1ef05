//! The host functions that read and change headers and trailers.

use anyhow::Result;

use super::{BAD_ARGUMENT, Host, NOT_FOUND, OK, count};
use crate::context::map_name;
use crate::{Headers, memory};

pub(super) fn get_map(host: &mut Host<'_>, kind: u32, data: u32, size: u32) -> Result<u32> {
    count(host, "get_headers", map_name(kind));
    let Some(headers) = host.data().map(kind) else { return Ok(NOT_FOUND) };
    memory::give(host, &headers.serialize(), (data, size))?;
    Ok(OK)
}

/// Reads the name of a header, and counts the call.
fn header_name(
    host: &mut Host<'_>,
    call: &str,
    kind: u32,
    key: u32,
    length: u32,
) -> Result<String> {
    let name = memory::read_text(host, key, length)?.to_ascii_lowercase();
    count(host, call, &format!("{} {name}", map_name(kind)));
    Ok(name)
}

pub(super) fn get_header(
    host: &mut Host<'_>,
    kind: u32,
    key: u32,
    length: u32,
    data: u32,
    size: u32,
) -> Result<u32> {
    let name = header_name(host, "get_header", kind, key, length)?;
    let Some(headers) = host.data().map(kind) else { return Ok(BAD_ARGUMENT) };
    let Some(value) = headers.get(&name) else { return Ok(NOT_FOUND) };
    memory::give(host, &value, (data, size))?;
    Ok(OK)
}

/// Changes a map of the effective context.
fn change(host: &mut Host<'_>, kind: u32, change: impl FnOnce(&mut Headers)) -> u32 {
    let context = host.data_mut().context_mut();
    let is_changed = context.is_some_and(|context| context.change_map(kind, change));
    if is_changed { OK } else { BAD_ARGUMENT }
}

pub(super) fn set_header(
    host: &mut Host<'_>,
    kind: u32,
    key: u32,
    length: u32,
    data: u32,
    size: u32,
) -> Result<u32> {
    let name = header_name(host, "set_header", kind, key, length)?;
    let value = memory::read(host, data, size)?;
    Ok(change(host, kind, |headers| headers.set(&name, &value)))
}

pub(super) fn add_header(
    host: &mut Host<'_>,
    kind: u32,
    key: u32,
    length: u32,
    data: u32,
    size: u32,
) -> Result<u32> {
    let name = header_name(host, "add_header", kind, key, length)?;
    let value = memory::read(host, data, size)?;
    Ok(change(host, kind, |headers| headers.add(&name, &value)))
}

pub(super) fn remove_header(host: &mut Host<'_>, kind: u32, key: u32, length: u32) -> Result<u32> {
    let name = header_name(host, "remove_header", kind, key, length)?;
    Ok(change(host, kind, |headers| headers.remove(&name)))
}
