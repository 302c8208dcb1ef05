//! What was found, and how it is printed.

use std::fmt;

use super::document::Cursor;

/// Something that is missing or wrong.
#[derive(Debug)]
pub struct Finding {
    /// Whether affinity, failover or secrecy depends on it; otherwise it is advice.
    pub is_problem: bool,
    /// The file and the line.
    place: String,
    /// The path in the file.
    pub path: String,
    problem: String,
    /// The lines to write there.
    mend: String,
    /// How often the same advice holds elsewhere.
    others: usize,
}

/// All that was found, in the order of the rules.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn problem(&mut self, at: &Cursor<'_>, problem: impl Into<String>, mend: &str) {
        self.add(true, at, problem.into(), mend);
    }

    pub(super) fn advise(&mut self, at: &Cursor<'_>, problem: impl Into<String>, mend: &str) {
        self.add(false, at, problem.into(), mend);
    }

    fn add(&mut self, is_problem: bool, at: &Cursor<'_>, problem: String, mend: &str) {
        let place = format!("{}:{}", at.file, at.line);
        let mut same = self.0.iter_mut().filter(|known| known.problem == problem);
        if let Some(known) = same.find(|known| !is_problem || known.place == place) {
            // Listeners may share a route or a cluster; and one place is enough for advice.
            known.others += usize::from(known.place != place);
            return;
        }
        let (path, mend) = (at.path.clone(), mend.to_owned());
        self.0.push(Finding { is_problem, place, path, problem, mend, others: 0 });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_problem { "problem" } else { "advice" };
        write!(formatter, "{}: {word}: {}: {}", self.place, self.path, self.problem)?;
        if self.others > 0 {
            write!(formatter, " ({} more)", self.others)?;
        }
        match self.mend.as_str() {
            "" => Ok(()),
            mend => write!(formatter, "\n    {mend}"),
        }
    }
}
