//! `cargo xtask release`: what a release consists of, made without Docker.
//!
//! | file | what it is |
//! |---|---|
//! | `session_affinity.wasm`, and its `.sha256` | the module, for a volume, a ConfigMap or a download |
//! | `image/` | the module as an image: an OCI layout of one layer with `/plugin.wasm` |
//! | `deploy.tar.gz` | the manifests, dashboards and rules of `deploy/`, and the configurations of `examples/` |
//! | `sbom.cdx.json` | what the module was built from, in CycloneDX |
//! | `THIRD-PARTY-LICENSES.txt` | the licences of that, in full |
//! | `CHANGELOG.md`, `LICENSE` | as in the repository |
//! | `SHA256SUMS` | the digests of all files, for `sha256sum --check` |
//!
//! Two builds of one commit in different directories give the same bytes: nothing in here knows a
//! time, a user, a path or an order that depends on the machine.

mod archive;
mod digest;
mod image;
mod packages;
mod sbom;
mod third_party;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub use digest::sha256;
use packages::Packages;

/// The name of the module in a release.
pub const MODULE: &str = "session_affinity.wasm";

/// The folders whose files users apply or adapt.
const FOLDERS: [&str; 2] = ["deploy", "examples"];

/// Makes the release of a module in a directory, which must not exist or be empty. Returns the
/// files.
///
/// # Errors
/// If something is missing, or cannot be written.
pub fn make(project: &Path, module: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    ensure_empty(directory)?;
    let module = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let packages = Packages::of_module(project)?;
    let mut files = Files { directory, written: Vec::new() };
    files.write(MODULE, &module)?;
    files.write(&format!("{MODULE}.sha256"), digest::line(&module, MODULE).as_bytes())?;
    for (name, bytes) in image::layout(&module, &packages.version())? {
        files.write(&format!("image/{name}"), &bytes)?;
    }
    files.write("deploy.tar.gz", &archive::of_folders(project, &FOLDERS)?)?;
    files.write("sbom.cdx.json", &sbom::of(&packages)?)?;
    files.write("THIRD-PARTY-LICENSES.txt", third_party::texts(&packages)?.as_bytes())?;
    for name in ["CHANGELOG.md", "LICENSE"] {
        let text = fs::read(project.join(name)).with_context(|| format!("there is no {name}"))?;
        files.write(name, &text)?;
    }
    files.write_sums()?;
    Ok(files.written)
}

fn ensure_empty(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let mut entries = fs::read_dir(directory).context("cannot list the directory")?;
    ensure!(entries.next().is_none(), "{} is not empty", directory.display());
    Ok(())
}

/// The files of a release, as they are written.
struct Files<'d> {
    directory: &'d Path,
    written: Vec<PathBuf>,
}

impl Files<'_> {
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let parent = path.parent().context("a file has a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.written.push(path);
        Ok(())
    }

    fn write_sums(&mut self) -> Result<()> {
        let mut sums = String::new();
        for path in &self.written {
            let name = path.strip_prefix(self.directory).context("a file is elsewhere")?;
            let bytes = fs::read(path).context("what was written cannot be read")?;
            sums.push_str(&digest::line(&bytes, &name.display().to_string()));
        }
        self.write("SHA256SUMS", sums.as_bytes())
    }
}
