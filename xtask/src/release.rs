//! `cargo xtask release`, and the proof that others can use what it makes: a build elsewhere gives
//! the same module, and tools that are not ours read the image, and get it back from a registry.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use envoy_harness::output::print;
use envoy_harness::{module, project_root};

use crate::{compose, verify};

/// The programs that read images, and their packages of Debian.
const PROGRAMS: [&str; 3] = ["skopeo", "umoci", "docker-registry"];

/// Builds the module and makes a release of it, by default in `dist/release`, which is replaced.
///
/// # Errors
/// If it cannot be built, or written.
pub(crate) fn make(directory: Option<PathBuf>) -> Result<()> {
    verify::module()?;
    let directory = match directory {
        Some(directory) => directory,
        None => fresh(project_root().join("dist/release"))?,
    };
    for file in release::make(project_root(), &module::path(), &directory)? {
        print(&format!("{}\n", file.display()))?;
    }
    Ok(())
}

fn fresh(directory: PathBuf) -> Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot replace {}", directory.display()))?;
    }
    Ok(directory)
}

/// Makes a release and checks it.
///
/// # Errors
/// What does not hold.
pub(crate) fn check(provision: bool) -> Result<()> {
    if !are_installed() {
        ensure!(provision, "install {} first, or add --provision", PROGRAMS.join(", "));
        crate::block_on(compose::install(&PROGRAMS.join(" ")))?;
    }
    let work = tempfile::tempdir().context("cannot make a directory")?;
    let directory = work.path().join("release");
    make(Some(directory.clone()))?;
    print("built elsewhere: ")?;
    is_the_same_elsewhere(work.path())?;
    print("the same bytes\nread by umoci: ")?;
    is_unpacked(&directory.join("image"), &work.path().join("unpacked"))?;
    print("the module\nfrom a registry: ")?;
    comes_from_a_registry(&directory.join("image"), work.path())?;
    print("the module\n")
}

/// Whether the programs that the check needs are there.
pub(crate) fn are_installed() -> bool {
    PROGRAMS.iter().all(|program| compose::is_installed(program))
}

/// Builds the module from a copy in another place, from nothing.
fn is_the_same_elsewhere(work: &Path) -> Result<()> {
    let copy = work.join("a/rather different/place");
    fs::create_dir_all(&copy).context("cannot make a directory")?;
    let listed = output(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(project_root()),
    )?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (project_root().join(name), copy.join(name));
        if !from.is_file() {
            // Deleted, and not committed yet.
            continue;
        }
        fs::create_dir_all(to.parent().context("a file has a directory")?)
            .and_then(|()| fs::copy(&from, &to))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    let built = module::build_in(&copy)?;
    let [one, other] = [&module::path(), &built.path].map(fs::read);
    let (one, other) = (one.context("no module")?, other.context("no module")?);
    ensure!(
        one == other,
        "a build in another place gives another module: {} and {}",
        release::sha256(&one),
        release::sha256(&other)
    );
    Ok(())
}

/// The version in the layout is the only one.
fn version(layout: &Path) -> Result<String> {
    let index = fs::read(layout.join("index.json")).context("the image has no index")?;
    let index: serde_json::Value = serde_json::from_slice(&index).context("it is no JSON")?;
    let name = index.pointer("/manifests/0/annotations/org.opencontainers.image.ref.name");
    name.and_then(|name| name.as_str()).map(str::to_owned).context("the image has no name")
}

fn is_unpacked(layout: &Path, to: &Path) -> Result<()> {
    let image = format!("{}:{}", layout.display(), version(layout)?);
    output(Command::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(to))?;
    is_the_module(&to.join("rootfs/plugin.wasm"))
}

fn is_the_module(path: &Path) -> Result<()> {
    let (unpacked, module) = (fs::read(path), fs::read(module::path()));
    ensure!(
        unpacked.context("there is no plugin.wasm")? == module.context("no module")?,
        "{} is not the module",
        path.display()
    );
    Ok(())
}

/// Pushes the image, and pulls it as Istio's agent and Envoy Gateway do.
fn comes_from_a_registry(layout: &Path, work: &Path) -> Result<()> {
    let registry = Registry::start(work)?;
    let version = version(layout)?;
    let remote = format!("docker://{}/session-affinity:{version}", registry.address);
    let local = format!("oci:{}:{version}", layout.display());
    let pulled = work.join("pulled");
    let copy = |arguments: &[&str]| {
        output(Command::new("skopeo").args(["--insecure-policy", "copy"]).args(arguments)).map(drop)
    };
    copy(&["--dest-tls-verify=false", &local, &remote])?;
    copy(&[
        "--src-tls-verify=false",
        "--override-arch=amd64",
        "--override-os=linux",
        &remote,
        &format!("oci:{}:{version}", pulled.display()),
    ])?;
    let manifest = output(
        Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false"]).arg(&remote),
    )?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest).context("no manifest")?;
    let layers = manifest.pointer("/layers").and_then(|layers| layers.as_array());
    let last = layers.and_then(|layers| layers.last()).context("the image has no layer")?;
    let media_type = last.get("mediaType").and_then(|media_type| media_type.as_str());
    ensure!(
        media_type == Some("application/vnd.oci.image.layer.v1.tar+gzip"),
        "the last layer is not what fetchers take: {last}"
    );
    is_unpacked(&pulled, &work.join("unpacked-again"))
}

/// A registry on the loopback interface, which ends with it.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(work: &Path) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
        let address = free.local_addr().context("it has no address")?.to_string();
        drop(free);
        let file = work.join("registry.yml");
        let storage = work.join("registry");
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \
             {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        fs::write(&file, settings).context("cannot write the registry's settings")?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the registry")?;
        let mut registry = Self { child, address };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&mut self) -> Result<()> {
        for _ in 0..600 {
            let ended = self.child.try_wait().context("cannot wait for the registry")?;
            ensure!(ended.is_none(), "the registry has ended");
            if std::net::TcpStream::connect(&self.address).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the registry does not listen");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone_if_refused = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("the output is not UTF-8")
}
