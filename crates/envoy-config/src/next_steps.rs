//! What is left to do for whoever has a configuration.

use super::EnvoyConfig;

impl EnvoyConfig {
    /// What Envoy needs beside the configuration, a line each.
    pub fn next_steps(&self, is_split: bool) -> Vec<String> {
        let wiring = &self.wiring;
        let mut steps = vec![format!(
            "next: an Envoy {} or later with V8, and the module at {}",
            wiring.oldest_envoy(),
            wiring.module()
        )];
        let variables = wiring.variables();
        if !variables.is_empty() {
            let names = variables.join(", ");
            steps.push(format!("next: in Envoy's environment, each with a key: {names}"));
        }
        if let Some(directory) = &wiring.secrets {
            let names: Vec<_> =
                wiring.injected().map(|key| format!("{}.yaml", key.secret)).collect();
            if !names.is_empty() {
                steps.push(format!(
                    "next: in {directory}, each from `session-affinity-config secret NAME`: {}",
                    names.join(", ")
                ));
            }
        }
        if let Some(keys) = wiring.clients.as_ref().and_then(|it| it.keys.as_ref()) {
            steps.push(format!(
                "next: the keys of clients in {keys}, from `session-affinity-config clients`"
            ));
        }
        let address = wiring.listener();
        steps.push(if is_split {
            "next: envoy --config-path bootstrap.yaml, in that directory".to_owned()
        } else {
            "next: envoy --config-path FILE, with what was printed".to_owned()
        });
        if wiring.clients.is_none() {
            steps.push(format!(
            "next: whoever reaches {address} spends the keys: write `clients` into the input, or put \
                 authentication in front"
            ));
        }
        steps
    }
}
