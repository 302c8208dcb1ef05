//! The platforms on which Envoy runs, and what they are like where the input does not say it.

use std::net::{Ipv4Addr, SocketAddr};

use clap::ValueEnum;

use super::input::Input;

/// What a configuration is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// An Envoy of one's own
    #[default]
    Envoy,
    /// A Deployment of Envoy in Kubernetes, as a kustomize base
    Kubernetes,
    /// A gateway of Istio
    Istio,
    /// A Gateway of Envoy Gateway
    EnvoyGateway,
}

/// Where the Deployment in `deploy/kubernetes` mounts what Envoy reads.
const CONFIG: &str = "/etc/envoy/config";
const KEYS: &str = "/etc/envoy/secrets";
/// A module from an image has this name, by which agents of meshes find it, too.
const MODULE: &str = "/etc/envoy/module/plugin.wasm";

impl Target {
    /// Where Envoy finds the files of `--split`, unless they stay where they are written.
    pub(super) fn directory(self) -> Option<&'static str> {
        (self != Self::Envoy).then_some(CONFIG)
    }

    /// Its name on the command line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Kubernetes => "kubernetes",
            Self::Istio => "istio",
            Self::EnvoyGateway => "envoy-gateway",
        }
    }

    /// Fills in what the input leaves open.
    pub(super) fn complete(self, input: &mut Input) {
        let (listener, module) = match self {
            Self::Envoy => (Ipv4Addr::LOCALHOST, "dist/session_affinity.wasm"),
            Self::Kubernetes | Self::Istio | Self::EnvoyGateway => (Ipv4Addr::UNSPECIFIED, MODULE),
        };
        input.listener.get_or_insert(SocketAddr::from((listener, 10000)));
        input.module.get_or_insert_with(|| module.to_owned());
        if self == Self::Envoy {
            return;
        }
        input.secrets.get_or_insert_with(|| KEYS.to_owned());
        if self == Self::Kubernetes {
            input.stats.get_or_insert(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9902)));
        }
    }
}
