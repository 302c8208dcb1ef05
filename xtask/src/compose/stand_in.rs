//! Stand-ins for the images of `docker-compose.yml`, for machines that reach no image registry.
//!
//! Each is Debian with one addition from this machine: its Rust toolchain, or the Envoy that the
//! tests use. They are like the official images in what the file relies on: glibc, a shell, the
//! programs on the `PATH`, the user of Envoy.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::process::Command;

use super::command::{command, output_if_ok, output_of};
use super::engine;
use super::report::report;
use envoy_harness as envoy;

/// The label that distinguishes a stand-in from the real image.
pub(super) const LABEL: &str = "session-affinity.stand-in";

/// The beginning of the names under which stand-ins stay for the next run.
pub(super) const OWN_PREFIX: &str = "session-affinity/";

/// Makes the stand-in under the name of the image, quickly if the last one still fits, and returns
/// what it is made of.
pub(super) async fn make(image: &str, root: &Path, work: &Path) -> Result<String> {
    debian(work).await?;
    let context = tempfile::tempdir_in(work).context("cannot make a folder for an image")?;
    let (name, dockerfile, content) = match image.split_once(':') {
        Some(("rust", _)) => ("rust", RUST, rust(root, context.path()).await?),
        Some(("envoyproxy/envoy", tag)) => ("envoy", ENVOY, envoy(tag, context.path()).await?),
        _ => bail!("{image} cannot be pulled, and there is no stand-in for it"),
    };
    write(context.path().join("Dockerfile"), dockerfile)?;
    let lasting = format!("{OWN_PREFIX}{name}");
    output_of(
        Command::new("docker")
            .args(["build", "--tag", image, "--tag", &lasting])
            .arg(context.path()),
    )
    .await?;
    Ok(content)
}

const DEBIAN: &str = "session-affinity/debian";

/// The base of both: Debian with a C compiler, which is the linker of Rust.
async fn debian(work: &Path) -> Result<()> {
    if output_if_ok(command("docker image inspect").arg(DEBIAN)).await.is_some() {
        return Ok(());
    }
    ensure!(
        engine::is_root(),
        "no image registry can be reached, and only root can make stand-ins for the images"
    );
    if !engine::is_installed("mmdebstrap") {
        engine::install("mmdebstrap").await?;
    }
    report("image", "making the Debian base of the stand-ins");
    let folder = tempfile::tempdir_in(work).context("cannot make a folder for Debian")?;
    let archive = folder.path().join("debian.tar");
    let mut bootstrap = command("mmdebstrap --variant=essential --include=gcc,libc6-dev bookworm");
    bootstrap.arg(format!("--aptopt={}", engine::RETRIES.replace('=', " ")));
    output_of(bootstrap.arg(&archive)).await?;
    output_of(command("docker import").arg(&archive).arg(DEBIAN)).await.map(drop)
}

/// The crates are in the image: where no image registry can be reached, containers may not reach
/// one for crates either.
const RUST: &str = "\
FROM session-affinity/debian
LABEL session-affinity.stand-in=true
COPY toolchain /usr/local
COPY cargo /usr/local/cargo
ENV CARGO_HOME=/usr/local/cargo
";

const CARGO_CONFIG: &str = r#"
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "/usr/local/cargo/vendor"
"#;

/// Copies the toolchain of this machine, without its documentation, and the crates of `Cargo.lock`.
async fn rust(root: &Path, context: &Path) -> Result<String> {
    let sysroot = output_of(command("rustc --print sysroot").current_dir(root)).await?;
    for part in ["bin/cargo", "bin/rustc", "lib"] {
        let destination = context.join("toolchain").join(part);
        let parent = destination.parent().context("a part of the toolchain has no folder")?;
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        output_of(command("cp --archive").arg(Path::new(&sysroot).join(part)).arg(&destination))
            .await?;
    }
    let mut vendor = command("cargo vendor --locked --respect-source-config");
    output_of(vendor.arg(context.join("cargo/vendor")).current_dir(root)).await?;
    write(context.join("cargo/config.toml"), CARGO_CONFIG)?;
    output_of(command("rustc --version").current_dir(root)).await
}

/// Like the official image it runs Envoy as a user without privileges, who can read of the mounted
/// project what everybody can.
const ENVOY: &str = "\
FROM session-affinity/debian
LABEL session-affinity.stand-in=true
COPY envoy /usr/local/bin/envoy
USER 101:101
";

/// Copies the binary of the version that the tag names.
async fn envoy(tag: &str, context: &Path) -> Result<String> {
    let version = tag
        .strip_prefix('v')
        .with_context(|| format!("{tag} is not a tag of Envoy's images"))?
        .to_owned();
    let envoy = tokio::task::spawn_blocking(move || envoy::find(Some(&version)))
        .await
        .map_err(|error| anyhow!(error))??;
    let destination = context.join("envoy");
    std::fs::copy(&envoy.path, &destination)
        .with_context(|| format!("cannot copy {}", envoy.path.display()))?;
    Ok(format!("Envoy {} of the tests", envoy.version))
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
