//! The modes in which Envoy can be wired: how it learns which credential serves a request, and
//! where a request that failed goes next.

use clap::ValueEnum;

use super::version::{FLOOR, Version};

/// How the filter is wired into Envoy. One configuration is shipped for each mode, the output of
/// `cargo xtask envoy-config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mode {
    /// A cluster for every credential, and failover within a request from one to the other
    Clusters,
    /// A cluster for every pool; the filter puts the key of each attempt into the request
    Keys,
    /// A cluster for every pool of self-hosted replicas; the filter chooses the endpoint
    Replicas,
    /// A cluster for every credential; the client repeats a request that fails, and it goes
    /// elsewhere
    NextRequest,
}

impl Mode {
    /// All, the recommended one first.
    pub const ALL: [Self; 4] = [Self::Clusters, Self::Keys, Self::Replicas, Self::NextRequest];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Keys => "keys",
            Self::Replicas => "replicas",
            Self::NextRequest => "next-request",
        }
    }

    /// The oldest Envoy with all that it needs. Another cluster for every attempt needs
    /// `refresh_cluster_on_retry`.
    pub fn oldest_envoy(self) -> Version {
        match self {
            Self::Clusters => Version::new(1, 39, 0),
            Self::Keys | Self::Replicas | Self::NextRequest => FLOOR,
        }
    }

    /// Whether this Envoy has all that it needs.
    pub fn runs_on(self, version: Version) -> bool {
        version >= self.oldest_envoy()
    }

    /// The mode of the demo: the recommended one, or the one that is closest to it on an older
    /// Envoy.
    pub fn of_demo_on(version: Version) -> Self {
        if Self::Clusters.runs_on(version) { Self::Clusters } else { Self::NextRequest }
    }

    /// The configuration that is shipped, relative to the root of the project.
    pub fn shipped_file(self) -> &'static str {
        match self {
            Self::Clusters => "envoy.yaml",
            Self::Keys => "examples/keys.yaml",
            Self::Replicas => "examples/replicas.yaml",
            Self::NextRequest => "examples/next-request.yaml",
        }
    }

    /// What it was made from, relative to the root of the project.
    pub fn shipped_input(self) -> &'static str {
        match self {
            Self::Replicas => "examples/replicas.json",
            Self::Clusters | Self::Keys | Self::NextRequest => "examples/providers.json",
        }
    }

    /// The command that prints the configuration that is shipped.
    pub fn shipped_command(self) -> String {
        let command = format!("cargo xtask envoy-config {}", self.shipped_input());
        match self {
            Self::Clusters => command,
            Self::Keys | Self::Replicas | Self::NextRequest => {
                format!("{command} --mode {}", self.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_runs_on_every_supported_envoy() {
        for (version, mode) in [
            ("1.36.4", Mode::NextRequest),
            ("1.38.9", Mode::NextRequest),
            ("1.39.0", Mode::Clusters),
            ("1.40.0", Mode::Clusters),
        ] {
            assert_eq!(Mode::of_demo_on(version.parse().unwrap()), mode, "{version}");
        }
        assert!(Mode::ALL.iter().all(|mode| mode.runs_on(super::super::version::PINNED)));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_possible_value().unwrap().get_name(), mode.as_str());
        }
    }
}
