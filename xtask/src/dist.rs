//! Checks that every supported Envoy can load the module.
//!
//! A module that imports one function its host lacks is refused as a whole, and which functions the
//! Rust standard library imports changes with what the code happens to link. So the imports are
//! compared with what the oldest supported Envoy offers, where the newest would hide the mistake.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wasmparser::{Export, ExternalKind, Import, Parser, Payload};

/// The largest module we ship: it fits into a ConfigMap of Kubernetes, which holds 1,048,576 bytes.
/// Regular expressions, which operators may write into `session.sources`, are 210 KB of it; the
/// tables of what providers respond, and the readers of streams and compressed errors, 80 KB;
/// the operator's page, 32 KB.
pub(crate) const MAX_SIZE: u64 = 1_036_000;

/// Checks the size of a module, its imports and the version of the ABI it is made for. All that is
/// wrong is in one error.
pub(crate) fn check(path: &Path) -> Result<()> {
    let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let problems = problems(&module)
        .with_context(|| format!("{} is not a WebAssembly module", path.display()))?;
    ensure!(
        problems.is_empty(),
        "{} cannot be shipped:\n  {}",
        path.display(),
        problems.join("\n  ")
    );
    Ok(())
}

fn problems(module: &[u8]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let size = module.len() as u64;
    if size > MAX_SIZE {
        problems.push(format!("it has {size} bytes, more than {MAX_SIZE}"));
    }
    let mut has_abi_version = false;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    problems.extend(objection(&import?));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    has_abi_version |= is_abi_version(&export?);
                }
            }
            _ => {}
        }
    }
    if !has_abi_version {
        problems.push(
            "it exports neither proxy_abi_version_0_2_1 nor proxy_abi_version_0_2_0".to_owned(),
        );
    }
    Ok(problems)
}

fn objection(import: &Import<'_>) -> Option<String> {
    let offered = match import.module {
        "env" => {
            import.name.strip_prefix("proxy_").is_some_and(|name| PROXY_FUNCTIONS.contains(&name))
        }
        "wasi_snapshot_preview1" => WASI_FUNCTIONS.contains(&import.name),
        _ => false,
    };
    (!offered).then(|| {
        format!("it imports {}.{}, which Envoy 1.36 does not offer", import.module, import.name)
    })
}

fn is_abi_version(export: &Export<'_>) -> bool {
    let versions = ["proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0"];
    matches!(export.kind, ExternalKind::Func) && versions.contains(&export.name)
}

/// The functions `env.proxy_*` for a module of ABI 0.2.1.
///
/// Source: proxy-wasm-cpp-host, `FOR_ALL_HOST_FUNCTIONS` in `include/proxy-wasm/exports.h`, with
/// the three that `WasmBase::registerCallbacks` in `src/wasm.cc` adds for this ABI. Each was also
/// tried on the real 1.36.4 and 1.40.0.
#[rustfmt::skip]
const PROXY_FUNCTIONS: [&str; 39] = [
    "log", "get_log_level", "get_status", "set_property", "get_property", "send_local_response", "get_shared_data",
    "set_shared_data", "register_shared_queue", "resolve_shared_queue", "dequeue_shared_queue", "enqueue_shared_queue",
    "get_header_map_value", "add_header_map_value", "replace_header_map_value", "remove_header_map_value",
    "get_header_map_pairs", "set_header_map_pairs", "get_header_map_size", "get_buffer_status", "get_buffer_bytes",
    "set_buffer_bytes", "http_call", "grpc_call", "grpc_stream", "grpc_close", "grpc_cancel", "grpc_send",
    "set_tick_period_milliseconds", "get_current_time_nanoseconds", "define_metric", "increment_metric",
    "record_metric", "get_metric", "set_effective_context", "done", "call_foreign_function", "continue_stream",
    "close_stream",
];

/// The functions `wasi_snapshot_preview1.*`.
///
/// Source: `FOR_ALL_WASI_FUNCTIONS` in the same file, unchanged between the commits c4d7bb0
/// (December 2024) and 94091cd (April 2026), which added the rest of WASI; Envoy 1.36 is of October
/// 2025. Each was also tried on the real 1.36.4: these it has, and all that came with 94091cd,
/// `fd_filestat_get` for one, it calls a missing import.
#[rustfmt::skip]
const WASI_FUNCTIONS: [&str; 18] = [
    "fd_write", "fd_read", "fd_seek", "fd_close", "fd_fdstat_get", "fd_fdstat_set_flags", "environ_get",
    "environ_sizes_get", "args_get", "args_sizes_get", "clock_time_get", "random_get", "sched_yield", "poll_oneoff",
    "proc_exit", "path_open", "fd_prestat_get", "fd_prestat_dir_name",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(module: &str, expected: &[&str]) {
        assert_eq!(problems(&wat::parse_str(module).unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_module_with_imports_that_envoy_offers_passes() {
        check(
            r#"(module
                (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                (func (export "proxy_abi_version_0_2_1")))"#,
            &[],
        );
    }

    #[test]
    fn every_import_that_envoy_lacks_is_named() {
        check(
            r#"(module
                (import "env" "proxy_get_configuration" (func))
                (import "env" "log" (func))
                (import "wasi_snapshot_preview1" "fd_filestat_get" (func))
                (import "wasi_snapshot_preview1" "random_get" (func))
                (import "host" "x" (func))
                (func (export "proxy_abi_version_0_2_0")))"#,
            &[
                "it imports env.proxy_get_configuration, which Envoy 1.36 does not offer",
                "it imports env.log, which Envoy 1.36 does not offer",
                "it imports wasi_snapshot_preview1.fd_filestat_get, which Envoy 1.36 does not offer",
                "it imports host.x, which Envoy 1.36 does not offer",
            ],
        );
    }

    #[test]
    fn a_module_without_a_version_of_the_abi_is_no_filter() {
        let problem = "it exports neither proxy_abi_version_0_2_1 nor proxy_abi_version_0_2_0";
        check("(module)", &[problem]);
        check(
            r#"(module (global (export "proxy_abi_version_0_2_1") i32 (i32.const 0)))"#,
            &[problem],
        );
    }

    #[test]
    fn a_module_that_is_too_large_is_named_with_both_sizes() {
        let zeros = r"\00".repeat(MAX_SIZE as usize);
        let module = format!(
            r#"(module (memory 16) (data (i32.const 0) "{zeros}") (func (export "proxy_abi_version_0_2_1")))"#
        );
        let module = wat::parse_str(module).unwrap();
        let expected = format!("it has {} bytes, more than {MAX_SIZE}", module.len());
        assert_eq!(problems(&module).unwrap(), [expected]);
    }

    #[test]
    fn what_is_no_module_is_an_error_and_not_a_problem() {
        assert!(problems(b"#!/bin/sh").is_err());
    }
}
