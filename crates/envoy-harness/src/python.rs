//! Finds a Python that can install a wheel.

use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Result, anyhow};

/// The wheel's lowest version. macOS and older distributions have a `python3` below it, and often a
/// newer one beside it.
const NEEDED: &str = "3.10";

const PROGRAMS: [&str; 6] =
    ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];

/// Fails where Python is too old, or was packaged without the modules that make environments.
const PROBE: &str = "
import sys
if sys.version_info < (3, 10): sys.exit('version %d.%d' % sys.version_info[:2])
import ensurepip, venv
";

/// Finds the first Python that is new enough and can make virtual environments. `remedy` is what
/// the user can do instead of installing one; it ends each error.
///
/// # Errors
/// What is wrong with `python3`, if none will do.
pub(super) fn find(remedy: &str) -> Result<&'static str> {
    let mut first = None;
    for program in PROGRAMS {
        match probe(Command::new(program).args(["-c", PROBE])) {
            Ok(()) => return Ok(program),
            Err(unfit) => drop(first.get_or_insert(unfit)),
        }
    }
    Err(first.unwrap_or(Unfit::Missing).explain(remedy))
}

/// Why a Python will not do.
#[derive(Debug)]
enum Unfit {
    Missing,
    Old(String),
    WithoutVenv,
    Broken(String),
}

fn probe(command: &mut Command) -> Result<(), Unfit> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unfit::Missing),
        Err(error) => return Err(Unfit::Broken(error.to_string())),
    };
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr);
    let last = output.lines().next_back().unwrap_or_default();
    Err(match last.strip_prefix("version ") {
        Some(version) => Unfit::Old(version.to_owned()),
        None if last.starts_with("ModuleNotFoundError") => Unfit::WithoutVenv,
        None => Unfit::Broken(last.to_owned()),
    })
}

impl Unfit {
    fn explain(self, remedy: &str) -> anyhow::Error {
        match self {
            Self::Missing => anyhow!(
                "Envoy is installed with Python, and there is no python3: install Python {NEEDED} \
                 or later, {remedy}"
            ),
            Self::Old(version) => anyhow!(
                "Envoy is installed with Python {NEEDED} or later, and python3 is {version}: \
                 install a newer Python, {remedy}"
            ),
            Self::WithoutVenv => anyhow!(
                "Python lacks its module venv or ensurepip: install it (on Debian and Ubuntu the \
                 package python3-venv), {remedy}"
            ),
            Self::Broken(message) => {
                anyhow!("python3 does not run ({message}): repair Python, {remedy}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unfit: Unfit, expected: &str) {
        assert_eq!(unfit.explain("or set ENVOY").to_string(), expected);
    }

    #[test]
    fn every_reason_is_one_sentence_with_the_remedy() {
        check(
            Unfit::Missing,
            "Envoy is installed with Python, and there is no python3: install Python 3.10 or \
             later, or set ENVOY",
        );
        check(
            Unfit::Old("3.9".to_owned()),
            "Envoy is installed with Python 3.10 or later, and python3 is 3.9: install a newer \
             Python, or set ENVOY",
        );
        check(
            Unfit::WithoutVenv,
            "Python lacks its module venv or ensurepip: install it (on Debian and Ubuntu the \
             package python3-venv), or set ENVOY",
        );
        check(
            Unfit::Broken("Illegal instruction".to_owned()),
            "python3 does not run (Illegal instruction): repair Python, or set ENVOY",
        );
    }

    #[test]
    fn a_python_is_judged_by_what_it_prints() {
        assert!(matches!(failing("version 3.9"), Unfit::Old(version) if version == "3.9"));
        let without = failing("ModuleNotFoundError: No module named ensurepip");
        assert!(matches!(without, Unfit::WithoutVenv));
        assert!(matches!(failing("Fatal Python error"), Unfit::Broken(_)));
        let missing = probe(&mut Command::new("/nowhere/python3")).unwrap_err();
        assert!(matches!(missing, Unfit::Missing));
    }

    fn failing(prints: &str) -> Unfit {
        probe(Command::new("sh").args(["-c", "echo \"$0\" >&2; exit 1", prints])).unwrap_err()
    }
}
