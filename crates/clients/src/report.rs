//! The table of clients, as the documents have it.

use std::fmt;

use super::client::Client;

/// What was found of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its package, with its version.
    pub client: String,
    /// Where the filter found its session.
    pub source: String,
    /// Whether its second turn, in another process, came to the credential of its first.
    pub kept: bool,
    /// Whether sessions with other first questions are other sessions to the filter.
    pub apart: bool,
    /// Whether a turn was served elsewhere when the credential reached its limit.
    pub survives: bool,
    /// Why nothing was found.
    pub problem: Option<String>,
}

const BEGIN: &str = "<!-- written by `cargo xtask clients --update` -->\n";
const END: &str = "<!-- end -->\n";
const HEAD: &str = "| client | decided by | kept | separate | survives |\n|---|---|---|---|---|\n";

impl Row {
    pub(crate) fn not_driven(client: &Client, problem: &str) -> Self {
        // A bar or a line would break the table.
        let words: Vec<_> = problem.split(['|', '\n', '`']).map(str::trim).collect();
        let problem: String = words.join(" ").chars().take(160).collect();
        Self {
            client: client.package.pinned().to_owned(),
            source: String::new(),
            kept: false,
            apart: false,
            survives: false,
            problem: Some(problem),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return formatter.write_str(problem);
        }
        let word = |is_so| if is_so { "yes" } else { "**no**" };
        let (kept, apart, survives) = (word(self.kept), word(self.apart), word(self.survives));
        write!(formatter, "`{}` | {kept} | {apart} | {survives}", self.source)
    }
}

/// The rows as a table.
pub fn table(rows: &[Row]) -> String {
    rows.iter().fold(HEAD.to_owned(), |table, row| {
        let cells = match row.problem {
            Some(_) => format!("{row} | - | - | -"),
            None => row.to_string(),
        };
        table + &format!("| `{}` | {cells} |\n", row.client)
    })
}

/// A page with the table in its place; `None` if the page has no place for it.
pub fn with_table(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// The rows that a page has otherwise; those of clients that could not be driven do not count.
pub fn difference<'r>(page: &str, rows: &'r [Row]) -> Vec<&'r Row> {
    let driven = rows.iter().filter(|row| row.problem.is_none());
    driven.filter(|row| !page.contains(&format!("| `{}` | {row} |", row.client))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gets_the_table_and_shows_what_differs() {
        let row = |kept| Row {
            client: "c@1".to_owned(),
            source: "msg".to_owned(),
            kept,
            apart: true,
            survives: true,
            problem: None,
        };
        let page = with_table(&format!("a\n{BEGIN}old\n{END}b\n"), &table(&[row(true)]));
        let page = page.unwrap_or_default();
        assert!(page.starts_with("a\n") && page.ends_with("b\n") && !page.contains("old"));
        assert!(page.contains("| `c@1` | `msg` | yes | yes | yes |"));
        assert_eq!(difference(&page, &[row(true)]), Vec::<&Row>::new());
        assert_eq!(difference(&page, &[row(false)]).len(), 1);
        assert_eq!(with_table("a page", ""), None);
    }
}
