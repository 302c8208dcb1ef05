//! Bytes that cross the boundary: every one of them is counted.

use anyhow::{Context, Result, ensure};
use wasmi::{AsContext, AsContextMut, Caller, Memory};

use crate::state::State;

/// The function of the module that gives memory.
const ALLOCATE: &str = "proxy_on_memory_allocate";

pub(crate) fn of(caller: &Caller<'_, State>) -> Result<Memory> {
    caller
        .get_export("memory")
        .and_then(|export| export.into_memory())
        .context("the module exports no memory")
}

/// Reads bytes that the module points at.
pub(crate) fn read(caller: &mut Caller<'_, State>, at: u32, length: u32) -> Result<Vec<u8>> {
    let memory = of(caller)?;
    let (begin, end) = (at as usize, at as usize + length as usize);
    let bytes = memory.data(caller.as_context()).get(begin..end);
    let bytes = bytes.context("the module points outside its memory")?.to_vec();
    caller.data_mut().cost.bytes_out += u64::from(length);
    Ok(bytes)
}

/// As [`read`], text.
pub(crate) fn read_text(caller: &mut Caller<'_, State>, at: u32, length: u32) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(caller, at, length)?).into_owned())
}

/// Writes where the module has made room.
pub(crate) fn write(caller: &mut Caller<'_, State>, at: u32, bytes: &[u8]) -> Result<()> {
    let memory = of(caller)?;
    memory
        .write(caller.as_context_mut(), at as usize, bytes)
        .context("the module points outside its memory")?;
    caller.data_mut().cost.bytes_in += bytes.len() as u64;
    Ok(())
}

pub(crate) fn write_number(caller: &mut Caller<'_, State>, at: u32, number: u32) -> Result<()> {
    write(caller, at, &number.to_le_bytes())
}

/// Returns bytes: in memory that the module is asked for, where its two results say. As in Envoy's
/// host, nothing is asked for where there are no bytes.
pub(crate) fn give(
    caller: &mut Caller<'_, State>,
    bytes: &[u8],
    (data, size): (u32, u32),
) -> Result<()> {
    let mut at = 0;
    if !bytes.is_empty() {
        caller.data_mut().cost.allocations += 1;
        let allocate = caller.get_export(ALLOCATE).and_then(|export| export.into_func());
        let allocate = allocate.with_context(|| format!("the module exports no {ALLOCATE}"))?;
        let allocate = allocate.typed::<u32, u32>(caller.as_context())?;
        at = allocate.call(caller.as_context_mut(), bytes.len() as u32)?;
        ensure!(at != 0, "the module has no memory left");
        write(caller, at, bytes)?;
    }
    write_number(caller, data, at)?;
    write_number(caller, size, bytes.len() as u32)
}
