//! API keys that the filter itself puts into requests: never printed, never stored, never logged.

use std::fmt;

/// The longest name of an environment variable.
const LONGEST_NAME: usize = 128;

/// The value of a header that carries a key.
pub struct Secret(String);

impl Secret {
    /// Reads a key from an environment variable. White space at its end is cut off: files and
    /// Kubernetes' secrets often end with a line feed.
    ///
    /// # Errors
    /// What is wrong with the variable; the text names it, and nothing of its value.
    pub(super) fn read(
        variable: &str,
        prefix: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        // What is no name may be the key itself, in the wrong place: it must not be printed.
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if variable.len() > LONGEST_NAME || !variable.bytes().all(is_name) {
            return Err(
                "expected the name of an environment variable: upper case letters, digits \
                        and underscores"
                    .to_owned(),
            );
        }
        let value = environment(variable).unwrap_or_default();
        let value = value.trim_end();
        if value.is_empty() {
            return Err(format!(
                "{variable} is not set, or not listed in vm_config.environment_variables.host_env_keys"
            ));
        }
        if value.bytes().any(|byte| !(byte == b' ' || byte.is_ascii_graphic())) {
            return Err(format!("{variable} holds bytes that no header value may have"));
        }
        Ok(Self(format!("{prefix}{value}")))
    }

    /// The value, for the header and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}
