//! The error of an Envoy that did not start, or ended by itself.

use std::fmt;

use super::version::Version;

/// An Envoy that did not start, or ended by itself, and why.
#[derive(Debug)]
pub struct Refusal {
    pub(super) version: Version,
    pub(super) reason: String,
    /// Everything it has written.
    pub log: Vec<String>,
}

impl Refusal {
    /// Whether a line of the log contains the text.
    pub fn mentions(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.contains(text))
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST: usize = 20;
        // Envoy begins by listing all that is built in, a hundred long lines at level info.
        let mut lines: Vec<_> = self.log.iter().filter(|line| !line.contains("][info][")).collect();
        let last = lines.split_off(lines.len().saturating_sub(LAST));
        write!(formatter, "Envoy {} {}", self.version, self.reason)?;
        last.iter().try_for_each(|line| write!(formatter, "\n  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_quotes_the_last_complaints_and_remembers_all() {
        let info = "[2026-11-21 10:54:39.893][11066][info][main] exiting".to_owned();
        let lines = (1..=30).map(|number| format!("[error][wasm] problem {number}."));
        let log = lines.chain([info]).collect();
        let refusal =
            Refusal { version: "1.40.0".parse().unwrap(), reason: "exited".to_owned(), log };
        assert!(refusal.mentions("problem 1."));
        let text = refusal.to_string();
        assert!(text.starts_with("Envoy 1.40.0 exited\n  [error][wasm] problem 11.\n"), "{text}");
        assert!(text.ends_with("\n  [error][wasm] problem 30."));
    }
}
