//! Any text as the input of `session-affinity-config`, and as a configuration for its linter:
//! problems, or what an Envoy can be given.

use envoy_config::{EnvoyConfig, check};
use envoy_harness::Mode;

use crate::input;

const MODES: [Mode; 4] = [Mode::Clusters, Mode::Keys, Mode::Replicas, Mode::NextRequest];

pub(crate) fn run(bytes: &[u8]) {
    let Some((mode, is_yaml, text)) = input::<(u8, bool, &str)>(bytes) else { return };
    let mode = MODES[usize::from(mode) % MODES.len()];
    let config = match is_yaml {
        true => EnvoyConfig::parse_yaml(text, mode),
        false => EnvoyConfig::parse(text, mode),
    };
    match config {
        Ok(config) => {
            let document = config.document().unwrap();
            assert!(document["static_resources"]["listeners"].is_array());
            // What the generator writes satisfies the linter.
            let written = config.yaml("a command").unwrap();
            let findings = check::check(&[("written", written.as_str())]).unwrap();
            let problems: Vec<_> = findings.iter().filter(|it| it.is_problem).collect();
            assert!(problems.is_empty(), "{problems:?}");
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
    if let Ok(findings) = check::check(&[("file", text)]) {
        for finding in findings {
            assert!(!finding.to_string().is_empty());
        }
    }
}
