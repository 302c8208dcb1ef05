//! What the terminal shows while something takes its time: one line for each step, which ends with
//! a tick and a result.
//!
//! All of it goes to stderr, so that stdout holds the result of a command and nothing else. Where
//! stderr is no terminal a step is plain lines.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A step that is running. Dropped before it is done, it leaves no line: the error says what went
/// wrong.
pub struct Step {
    name: String,
    bar: ProgressBar,
}

impl Step {
    /// A step of unknown length.
    pub fn start(name: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        Self::show(name, bar, "{spinner} {prefix:<17} {wide_msg} {elapsed}")
    }

    /// A step of this many parts.
    pub fn of_parts(name: &str, parts: u64) -> Self {
        let bar = ProgressBar::new(parts);
        Self::show(name, bar, "{spinner} {prefix:<17} {bar:30} {pos}/{len} {wide_msg}")
    }

    fn show(name: &str, bar: ProgressBar, template: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        if bar.is_hidden() {
            note(&format!("… {name}"));
        }
        Self { name: name.to_owned(), bar }
    }

    /// Shows what is going on, if there is a terminal.
    pub fn say(&self, message: &str) {
        self.bar.set_message(message.trim().to_owned());
    }

    /// Shows what is going on, as a line of its own if there is no terminal.
    pub fn announce(&self, message: &str) {
        if self.bar.is_hidden() {
            note(&format!("… {}: {message}", self.name));
        }
        self.say(message);
    }

    /// One more part is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// The step is done.
    pub fn done(self, result: &str) {
        self.bar.finish_and_clear();
        done(&self.name, result);
    }
}

/// Shows the result of a step that took no time.
pub fn done(name: &str, result: &str) {
    note(&format!("✓ {name:<17} {result}"));
}

/// Writes a line to stderr. A reader that has gone, such as `head`, is no reason to fail.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
