//! What the terminal shows while something takes its time: one line for each step, that ends with a
//! tick and a result.
//!
//! All of it goes to stderr, so that the output of a command can be kept in a file. Where stderr is
//! no terminal a step is two plain lines.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A step under way. Dropped before it is done, it leaves no line: what went wrong is told by the
/// error.
pub struct Step {
    name: String,
    bar: ProgressBar,
}

impl Step {
    /// A step of which nobody knows how long it takes.
    pub fn start(name: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        Self::show(name, bar, "{spinner} {prefix:<17} {wide_msg} {elapsed}")
    }

    /// A step of so many parts.
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
            eprintln!("… {name}");
        }
        Self { name: name.to_owned(), bar }
    }

    /// Says what is going on.
    pub fn say(&self, message: &str) {
        self.bar.set_message(message.trim().to_owned());
    }

    /// One more part is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// The step is done.
    pub fn done(self, result: &str) {
        self.bar.finish_and_clear();
        eprintln!("✓ {:<17} {result}", self.name);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
