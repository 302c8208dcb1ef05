//! Released versions of Envoy.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};

/// The Envoy that is installed when the user has none.
pub const PINNED: Version = Version::new(1, 40, 0);

/// The oldest Envoy the filter is tested on: holding headers until the body is read came shortly
/// before.
pub const FLOOR: Version = Version::new(1, 36, 4);

/// A released version of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether a response can be retried that was held until its body was read.
    pub fn retries_held_responses(self) -> bool {
        self >= Self::new(1, 37, 0)
    }

    /// Reads the output of `envoy --version`: `envoy  version:
    /// <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
    pub(crate) fn from_output(output: &str) -> Result<Self> {
        let (_, build) = output.split_once("version:").ok_or_else(|| {
            let line = output.trim().lines().next().unwrap_or_default();
            anyhow!("unexpected output of --version: {line:?}")
        })?;
        let version = build.trim().split('/').nth(1).unwrap_or_default();
        // Builds between releases call themselves `1.41.0-dev`.
        version.split('-').next().unwrap_or_default().parse()
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([major, minor, patch]) => Ok(Self::new(*major, *minor, *patch)),
            _ => bail!("{text:?} is not a version of Envoy: write it like {PINNED}"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(build: &str, expected: Option<&str>) {
        let version = Version::from_output(&format!("\n/opt/envoy  version: {build}\n\n"));
        assert_eq!(version.ok().map(|version| version.to_string()).as_deref(), expected, "{build}");
    }

    #[test]
    fn the_version_is_read_from_what_envoy_says() {
        let commit = "9e5580933739775e8bce696a57a2e1bc99368f23";
        check(&format!("{commit}/1.40.0/Clean/RELEASE/BoringSSL"), Some("1.40.0"));
        check(&format!("{commit}/1.41.0-dev/Modified/DEBUG/BoringSSL"), Some("1.41.0"));
        check("unknown", None);
        assert!(Version::from_output("command not found").is_err());
    }

    #[test]
    fn versions_are_ordered_by_number_not_by_text() {
        let versions = ["1.9.10", "1.36.4", "1.36.10"];
        assert!(versions.map(|text| text.parse::<Version>().unwrap()).is_sorted());
    }
}
