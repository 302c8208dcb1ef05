//! Families of models: those that share a limit of their own within an account.

/// The families, all of Claude models, as they stand in the models' names and in those of the
/// windows.
pub const ALL: [&str; 4] = ["opus", "sonnet", "haiku", "fable"];

/// Windows that do not bear the name of their family.
const WINDOWS: [(&str, &str); 1] = [("oi", "fable")];

/// The family of a model; `None` if it shares its limits with no other.
pub fn of(model: &str) -> Option<&'static str> {
    let is_claude = contains(model, "claude");
    ALL.into_iter().find(|family| is_claude && contains(model, family))
}

/// The family that a window of a limit is for: `7d_opus`, `seven_day_sonnet`, `7d_oi`.
pub(super) fn of_window(window: &str) -> Option<&'static str> {
    let (_, name) = window.rsplit_once('_')?;
    let alias = WINDOWS.iter().find(|(window, _)| *window == name).map(|&(_, family)| family);
    alias.or_else(|| ALL.into_iter().find(|family| *family == name))
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}
