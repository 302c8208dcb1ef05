//! How Envoy signs requests to Amazon Bedrock, in place of a key.

use serde::{Deserialize, Serialize};

use super::input::AbsolutePath;
use super::upstream::Host;

/// Whose signature, and for which region.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signing {
    region: String,
    /// The service that the signature is for.
    #[serde(default = "default_service")]
    service: String,
    /// A file of AWS credentials and a profile in it; without them, Envoy looks where the SDKs of
    /// AWS look: in its environment, in its pod's or its machine's role.
    credentials_file: Option<AbsolutePath>,
    profile: Option<String>,
    /// The directory of that file.
    #[serde(skip_deserializing)]
    credentials_directory: String,
    /// The host that is signed, which is that of the upstream.
    #[serde(skip_deserializing)]
    host: String,
}

impl Signing {
    /// The signature covers the host that the upstream will see.
    pub(super) fn for_host(&self, host: &Host) -> Self {
        let directory = self.credentials_file.as_ref().and_then(|file| file.0.rsplit_once('/'));
        let directory = directory.map_or("", |(parent, _)| parent);
        let credentials_directory =
            if directory.is_empty() { "/".to_owned() } else { directory.to_owned() };
        Self { host: host.to_string(), credentials_directory, ..self.clone() }
    }

    /// The same for an Envoy that has not its files.
    pub(super) fn on_trial(&self) -> Self {
        Self { credentials_file: None, ..self.clone() }
    }
}

fn default_service() -> String {
    "bedrock".to_owned()
}
