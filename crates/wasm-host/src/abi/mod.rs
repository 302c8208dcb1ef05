//! The host functions of Proxy-Wasm that the filter uses, with the results that Envoy's host gives.

mod map;

use anyhow::Result;
use wasmi::{Caller, Linker};

use crate::context::LocalReply;
use crate::cost::class_of_key;
use crate::state::State;
use crate::vm::FUEL;
use crate::{Headers, memory};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const CAS_MISMATCH: u32 = 8;

type Host<'a> = Caller<'a, State>;

/// Defines a function of the module `env`, which gets the caller and numbers.
macro_rules! define {
    ($linker:ident, $name:literal, $function:path, $($argument:ident),*) => {
        $linker.func_wrap("env", $name, |mut caller: Host<'_>, $($argument: u32),*| {
            $function(&mut caller, $($argument),*).map_err(trap)
        })?;
    };
}

/// Defines them all.
pub(crate) fn define(linker: &mut Linker<State>) -> Result<()> {
    define!(linker, "proxy_log", log, level, at, size);
    define!(linker, "proxy_set_tick_period_milliseconds", set_tick_period, period);
    define!(linker, "proxy_get_current_time_nanoseconds", current_time, at);
    define!(linker, "proxy_get_buffer_bytes", get_buffer, kind, start, most, data, size);
    define!(linker, "proxy_get_property", get_property, path, length, data, size);
    define!(linker, "proxy_set_property", set_property, path, length, data, size);
    define!(linker, "proxy_get_shared_data", get_shared, key, length, data, size, cas);
    define!(linker, "proxy_set_shared_data", set_shared, key, length, data, size, cas);
    define!(linker, "proxy_get_header_map_pairs", map::get_map, kind, data, size);
    define!(linker, "proxy_get_header_map_value", map::get_header, kind, key, length, data, size);
    define!(
        linker,
        "proxy_replace_header_map_value",
        map::set_header,
        kind,
        key,
        length,
        data,
        size
    );
    define!(linker, "proxy_add_header_map_value", map::add_header, kind, key, length, data, size);
    define!(linker, "proxy_remove_header_map_value", map::remove_header, kind, key, length);
    define!(linker, "proxy_define_metric", define_metric, kind, name, length, id);
    define!(linker, "proxy_get_metric", get_metric, id, value);
    define!(linker, "proxy_get_log_level", log_level, level);
    define!(linker, "proxy_continue_stream", continue_stream, kind);
    define!(linker, "proxy_set_effective_context", set_effective_context, id);
    define!(linker, "proxy_call_foreign_function", foreign, name, length, arguments, size, a, b);
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        |mut caller: Host<'_>, id: u32, by: i64| increment_metric(&mut caller, id, by),
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        |mut caller: Host<'_>, id: u32, value: u64| record_metric(&mut caller, id, value),
    )?;
    linker.func_wrap("env", "proxy_send_local_response", send_local_response)?;
    Ok(())
}

/// A mistake of the module, or of the host, ends the callback.
pub(crate) fn trap(error: anyhow::Error) -> wasmi::Error {
    wasmi::Error::new(format!("{error:#}"))
}

fn count(host: &mut Host<'_>, name: &str, about: &str) {
    // What is left of the fuel is always known: the engine was made to count it.
    let used = host.get_fuel().map_or(0, |left| FUEL.saturating_sub(left));
    host.data_mut().cost.count_call(name, about, used);
}

fn log(host: &mut Host<'_>, level: u32, at: u32, size: u32) -> Result<u32> {
    let message = memory::read_text(host, at, size)?;
    count(host, "log", if level < 2 { "debug" } else { "info or more" });
    host.data_mut().log(level, &message);
    Ok(OK)
}

fn set_tick_period(host: &mut Host<'_>, period: u32) -> Result<u32> {
    count(host, "set_tick_period_milliseconds", "");
    let state = host.data_mut();
    if period > 0 {
        state.ticking.insert(state.effective);
    } else {
        state.ticking.remove(&state.effective);
    }
    Ok(OK)
}

fn current_time(host: &mut Host<'_>, at: u32) -> Result<u32> {
    count(host, "get_current_time", "");
    let now = host.data().clock.nanoseconds();
    memory::write(host, at, &now.to_le_bytes())?;
    Ok(OK)
}

fn get_buffer(
    host: &mut Host<'_>,
    kind: u32,
    start: u32,
    most: u32,
    data: u32,
    size: u32,
) -> Result<u32> {
    let state = host.data();
    let (about, buffer) = match kind {
        0 => ("request_body", state.context().map(|context| &context.request_body)),
        1 => ("response_body", state.context().map(|context| &context.response_body)),
        7 => ("configuration", Some(&state.configuration)),
        _ => ("unknown", None),
    };
    let bytes = buffer.map(|buffer| {
        let rest = buffer.get(start as usize..).unwrap_or_default();
        rest.get(..most as usize).unwrap_or(rest).to_vec()
    });
    count(host, "get_buffer", about);
    let Some(bytes) = bytes else { return Ok(NOT_FOUND) };
    memory::give(host, &bytes, (data, size))?;
    Ok(OK)
}

/// Reads a path of which the parts end with zeros, as one with dots.
fn property_path(host: &mut Host<'_>, path: u32, length: u32) -> Result<String> {
    let path = memory::read_text(host, path, length)?;
    Ok(path.trim_end_matches('\0').replace('\0', "."))
}

fn get_property(host: &mut Host<'_>, path: u32, length: u32, data: u32, size: u32) -> Result<u32> {
    let path = property_path(host, path, length)?;
    count(host, "get_property", &path);
    let Some(value) = host.data().property(&path) else { return Ok(NOT_FOUND) };
    memory::give(host, &value, (data, size))?;
    Ok(OK)
}

fn set_property(host: &mut Host<'_>, path: u32, length: u32, data: u32, size: u32) -> Result<u32> {
    let path = property_path(host, path, length)?;
    count(host, "set_property", &path);
    let value = memory::read(host, data, size)?;
    let Some(context) = host.data_mut().context_mut() else { return Ok(NOT_FOUND) };
    context.exchange.borrow_mut().filter_states.insert(path, value);
    Ok(OK)
}

fn get_shared(
    host: &mut Host<'_>,
    key: u32,
    length: u32,
    data: u32,
    size: u32,
    cas: u32,
) -> Result<u32> {
    let key = memory::read_text(host, key, length)?;
    count(host, "get_shared_data", &class_of_key(&key));
    let Some((value, token)) = host.data().shared.get(&key) else { return Ok(NOT_FOUND) };
    memory::give(host, &value, (data, size))?;
    memory::write_number(host, cas, token)?;
    Ok(OK)
}

fn set_shared(
    host: &mut Host<'_>,
    key: u32,
    length: u32,
    data: u32,
    size: u32,
    cas: u32,
) -> Result<u32> {
    let key = memory::read_text(host, key, length)?;
    count(host, "set_shared_data", &class_of_key(&key));
    let value = memory::read(host, data, size)?;
    let written = host.data().shared.set(&key, &value, cas);
    Ok(written.map_or(CAS_MISMATCH, |()| OK))
}

fn define_metric(host: &mut Host<'_>, _kind: u32, name: u32, length: u32, id: u32) -> Result<u32> {
    let name = memory::read_text(host, name, length)?;
    count(host, "define_metric", "");
    let defined = host.data_mut().metrics.define(&name);
    memory::write_number(host, id, defined)?;
    Ok(OK)
}

fn increment_metric(host: &mut Host<'_>, id: u32, by: i64) -> u32 {
    let name = host.data_mut().metrics.increment(id, by).map(str::to_owned);
    count(host, "increment_metric", name.as_deref().unwrap_or("undefined"));
    if name.is_some() { OK } else { NOT_FOUND }
}

fn record_metric(host: &mut Host<'_>, id: u32, value: u64) -> u32 {
    let name = host.data_mut().metrics.set(id, value).map(str::to_owned);
    count(host, "record_metric", name.as_deref().unwrap_or("undefined"));
    if name.is_some() { OK } else { NOT_FOUND }
}

fn get_metric(host: &mut Host<'_>, id: u32, value: u32) -> Result<u32> {
    let Some((name, number)) = host.data().metrics.at(id) else { return Ok(NOT_FOUND) };
    let (name, number) = (name.to_owned(), number);
    count(host, "get_metric", &name);
    memory::write(host, value, &number.to_le_bytes())?;
    Ok(OK)
}

/// As Envoy's by default.
fn log_level(host: &mut Host<'_>, level: u32) -> Result<u32> {
    const INFO: u32 = 2;
    count(host, "get_log_level", "");
    memory::write_number(host, level, INFO)?;
    Ok(OK)
}

fn continue_stream(host: &mut Host<'_>, kind: u32) -> Result<u32> {
    count(host, "continue_stream", if kind == 1 { "response" } else { "request" });
    if let Some(context) = host.data_mut().context_mut()
        && kind == 1
    {
        context.is_resumed = true;
    }
    Ok(OK)
}

fn set_effective_context(host: &mut Host<'_>, id: u32) -> Result<u32> {
    count(host, "set_effective_context", "");
    let state = host.data_mut();
    if !state.contexts.contains_key(&id) {
        return Ok(BAD_ARGUMENT);
    }
    state.effective = id;
    Ok(OK)
}

/// The foreign functions that the filter calls have no result.
fn foreign(
    host: &mut Host<'_>,
    name: u32,
    length: u32,
    arguments: u32,
    size: u32,
    result: u32,
    result_size: u32,
) -> Result<u32> {
    let name = memory::read_text(host, name, length)?;
    let arguments = memory::read(host, arguments, size)?;
    count(host, "call_foreign_function", &name);
    match name.as_str() {
        "clear_route_cache" => {}
        "set_envoy_filter_state" => {
            let Some(context) = host.data_mut().context_mut() else { return Ok(BAD_ARGUMENT) };
            context.exchange.borrow_mut().filter_states.insert(name, arguments);
        }
        _ => return Ok(NOT_FOUND),
    }
    memory::give(host, b"", (result, result_size))?;
    Ok(OK)
}

#[expect(clippy::too_many_arguments, reason = "the ABI has them")]
fn send_local_response(
    mut host: Host<'_>,
    status: u32,
    details: u32,
    details_size: u32,
    body: u32,
    body_size: u32,
    pairs: u32,
    pairs_size: u32,
    _grpc_status: i32,
) -> Result<u32, wasmi::Error> {
    let host = &mut host;
    count(host, "send_local_response", "");
    memory::read(host, details, details_size).map_err(trap)?;
    let body = memory::read(host, body, body_size).map_err(trap)?;
    let pairs = memory::read(host, pairs, pairs_size).map_err(trap)?;
    let Some(mut headers) = Headers::deserialize(&pairs) else { return Ok(BAD_ARGUMENT) };
    headers.set(":status", status.to_string().as_bytes());
    let Some(context) = host.data_mut().context_mut() else { return Ok(BAD_ARGUMENT) };
    if context.reply.is_some() {
        return Ok(BAD_ARGUMENT);
    }
    context.reply = Some(LocalReply { headers, body });
    Ok(OK)
}
