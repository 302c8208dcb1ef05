//! The report of the second act: the credentials of each turn, and what failover cost.

use comfy_table::{Cell, Color, Table};

use super::{Course, Limit, MODE, RETRY_AFTER};
use crate::replay::{ErrorResponse, Totals, Turn, letter};
use crate::table::{align_right, grouped, table};

/// The section of the report.
pub(crate) fn render(limit: &Limit, terminal: bool) -> String {
    let title = format!(
        "\nLIMIT: {} is limited in the middle; the credential of each turn\n",
        limit.credential
    );
    let legend = format!(
        "\na→b: the attempt on a failed, b served the same request. (b): b is the\n\
         substitute. ↩a: home again. After a limited turn Retry-After passes\n\
         ({RETRY_AFTER} s): then the next session whose home it is makes an attempt again."
    );
    [title, turns(limit, terminal).trim_fmt(), legend, sums(limit)].join("\n")
}

/// The section for an Envoy on which the act is not played.
pub(crate) fn absent() -> String {
    let needed = MODE.oldest_envoy();
    format!(
        "\nLIMIT: left out, because before Envoy {needed} the configuration of the demo\n\
         makes one attempt for a request."
    )
}

fn turns(limit: &Limit, terminal: bool) -> Table {
    let count = limit.sessions.iter().map(|course| course.turns.len()).max().unwrap_or_default();
    let numbers = (0..count).map(|turn| match turn + 1 {
        number if limit.limited.contains(&turn) => format!("{number} limited"),
        1 => "turn 1".to_owned(),
        number => number.to_string(),
    });
    let mut table = table(
        ["session".to_owned()].into_iter().chain(numbers).chain(["from cache".into()]),
        terminal,
    );
    for course in &limit.sessions {
        let home = course.home().unwrap_or_default();
        let mut row = vec![Cell::new(&course.title)];
        row.extend(course.turns.iter().map(|turn| cell(turn, home)));
        row.resize_with(count + 1, || Cell::new(""));
        row.push(Cell::new(Totals::of(course.served()).cached_share()));
        table.add_row(row);
    }
    align_right(&mut table, [count + 1]);
    table
}

/// The attempts of a turn, such as `a→b`.
fn cell(turn: &Result<Turn, ErrorResponse>, home: &str) -> Cell {
    match turn {
        Err(error) => Cell::new(error.status.as_u16()).fg(Color::Red),
        Ok(turn) if !turn.failed.is_empty() => {
            Cell::new(turn.attempted().map(letter).collect::<Vec<_>>().join("→")).fg(Color::Yellow)
        }
        Ok(turn) if turn.credential != home => {
            Cell::new(format!("({})", turn.letter())).fg(Color::Yellow)
        }
        Ok(turn) if turn.outcome == "return" => {
            Cell::new(format!("↩{}", turn.letter())).fg(Color::Green)
        }
        Ok(turn) => Cell::new(turn.letter()).fg(Color::Green),
    }
}

fn sums(limit: &Limit) -> String {
    let Limit { credential, refused, .. } = limit;
    let totals = Totals::of(limit.served());
    let substituted = limit
        .served()
        .filter(|turn| turn.outcome == "substitute" && turn.failed.is_empty())
        .count();
    let left: Vec<&Course> = limit.left().collect();
    let home = left.iter().filter(|course| course.is_home()).count();
    format!(
        "\nErrors that clients saw: {}.\n\
         Responses with 429 from {credential}, as the provider counted: {refused}.\n\
         Requests that failed over before the client got a byte: {}.\n\
         Requests sent to a substitute at once: {substituted}.\n\
         Sessions that left their home: {}, and returned: {home}.\n\
         Prompt tokens from caches: {} of {}, {}.",
        limit.errors().count(),
        limit.failovers().count(),
        left.len(),
        grouped(totals.cached_tokens),
        grouped(totals.prompt_tokens),
        totals.cached_share(),
    )
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::limit::tests::limit;
    use crate::table::WIDTH;

    fn check(limit: &Limit, row: &str) {
        let report = render(limit, false);
        let mut rows = report.lines().map(|line| line.split_whitespace());
        assert!(rows.any(|words| words.eq(row.split(' '))), "{row:?} in\n{report}");
    }

    #[test]
    fn every_kind_of_turn_has_its_mark() {
        let limit = limit();
        check(&limit, "session turn 1 2 3 limited 4 limited 5 6 from cache");
        check(&limit, "Codex #1 a a a→b a→b ↩a a 75 %");
        check(&limit, "OpenCode #1 a a (c) (c) ↩a a 75 %");
        check(&limit, "Chat #1 b b b b b b 75 %");
    }

    #[test]
    fn an_error_is_shown_where_it_happened() {
        let mut limit = limit();
        let (request, status) = ("Codex #1, turn 3".to_owned(), StatusCode::TOO_MANY_REQUESTS);
        limit.sessions[0].turns[2] = Err(ErrorResponse { request, status, message: String::new() });
        check(&limit, "Codex #1 a a 429 a→b ↩a a 75 %");
        assert!(render(&limit, false).contains("Errors that clients saw: 1."));
    }

    #[test]
    fn the_sums_are_counted() {
        let report = render(&limit(), false);
        for sum in [
            "Errors that clients saw: 0.",
            "Responses with 429 from openai-a, as the provider counted: 2.",
            "before the client got a byte: 2.",
            "sent to a substitute at once: 2.",
            "left their home: 2, and returned: 2.",
            "from caches: 13,500 of 18,000, 75 %.",
        ] {
            assert!(report.contains(sum), "{sum:?} in\n{report}");
        }
        assert!(report.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{report}");
    }
}
