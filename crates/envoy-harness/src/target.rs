//! The target of the module, which a toolchain may lack.
//!
//! `rust-toolchain.toml` names it, but rustup does not install it where `RUSTUP_AUTO_INSTALL=0` is
//! set or a toolchain of one's own is linked in. Then the build would end after minutes with
//! "can't find crate for `core`".

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::progress::Step;
use super::project::project_root;

/// The target of the module.
pub const TARGET: &str = "wasm32-wasip1";

/// Installs the target with rustup, unless the toolchain has it.
///
/// # Errors
/// If the target is missing and cannot be installed; what to do instead.
pub fn ensure_target() -> Result<()> {
    if has_target()? {
        return Ok(());
    }
    let step = Step::start("target");
    step.say(&format!("rustup target add {TARGET}"));
    let output =
        Command::new("rustup").args(["target", "add", TARGET]).current_dir(project_root()).output();
    match output {
        Ok(output) if output.status.success() && has_target()? => {
            step.done(&format!("{TARGET}, installed with rustup"));
            Ok(())
        }
        Ok(output) => bail!(
            "the toolchain lacks the target {TARGET}, and `rustup target add {TARGET}` does not \
             install it:\n{}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "the toolchain lacks the target {TARGET}, and there is no rustup to install it: \
             install the standard library of this target where the toolchain comes from, or rustup"
        ),
        Err(error) => Err(error).context("cannot run rustup"),
    }
}

/// Whether the toolchain has the standard library of the target. `rustc` names its directory even
/// if it is not there.
fn has_target() -> Result<bool> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(project_root())
        .output()
        .context("cannot run rustc")?;
    ensure!(
        output.status.success(),
        "rustc does not know the target {TARGET}:\n{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}
