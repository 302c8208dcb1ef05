//! The few functions of WASI that the module imports: random numbers, which are the same in every
//! run, environment variables, output of a panic, and an exit, which is a trap.

use anyhow::Result;
use wasmi::{AsContext, Caller, Linker};

use crate::abi::trap;
use crate::memory;
use crate::state::State;

const MODULE: &str = "wasi_snapshot_preview1";
const SUCCESS: u32 = 0;

type Host<'a> = Caller<'a, State>;

/// Defines them all.
pub(crate) fn define(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(MODULE, "random_get", |mut host: Host<'_>, at: u32, length: u32| {
        let bytes = host.data_mut().random_bytes(length as usize);
        memory::write(&mut host, at, &bytes).map(|()| SUCCESS).map_err(trap)
    })?;
    linker.func_wrap(
        MODULE,
        "environ_sizes_get",
        |mut host: Host<'_>, count: u32, size: u32| {
            let lines = environment(&host);
            let bytes: usize = lines.iter().map(Vec::len).sum();
            memory::write_number(&mut host, count, lines.len() as u32).map_err(trap)?;
            memory::write_number(&mut host, size, bytes as u32).map(|()| SUCCESS).map_err(trap)
        },
    )?;
    linker.func_wrap(MODULE, "environ_get", |mut host: Host<'_>, pointers: u32, at: u32| {
        environ_get(&mut host, pointers, at).map(|()| SUCCESS).map_err(trap)
    })?;
    linker.func_wrap(
        MODULE,
        "fd_write",
        |mut host: Host<'_>, _file: u32, vectors: u32, count: u32, written: u32| {
            fd_write(&mut host, vectors, count, written).map(|()| SUCCESS).map_err(trap)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proc_exit",
        |_: Host<'_>, code: u32| -> Result<(), wasmi::Error> {
            Err(wasmi::Error::new(format!("the module exits with {code}")))
        },
    )?;
    Ok(())
}

/// The variables as C has them.
fn environment(host: &Host<'_>) -> Vec<Vec<u8>> {
    let variables = &host.data().settings.environment;
    variables.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

fn environ_get(host: &mut Host<'_>, mut pointers: u32, mut at: u32) -> Result<()> {
    for line in environment(host) {
        memory::write_number(host, pointers, at)?;
        memory::write(host, at, &line)?;
        pointers += 4;
        at += line.len() as u32;
    }
    Ok(())
}

/// Output goes to the log: it is how a panic says why.
fn fd_write(host: &mut Host<'_>, vectors: u32, count: u32, written: u32) -> Result<()> {
    let mut text = Vec::new();
    for vector in 0..count {
        let mut numbers = [0; 8];
        let memory = memory::of(host)?;
        memory.read(host.as_context(), (vectors + vector * 8) as usize, &mut numbers)?;
        let [at, length] = [&numbers[..4], &numbers[4..]]
            .map(|bytes| bytes.try_into().map_or(0, u32::from_le_bytes));
        text.extend(memory::read(host, at, length)?);
    }
    memory::write_number(host, written, text.len() as u32)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    host.data_mut().log(5, text.trim_end());
    Ok(())
}
