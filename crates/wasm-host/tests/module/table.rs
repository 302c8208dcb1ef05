//! The table of costs, as text that a change can be seen in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use wasm_host::Cost;

/// A measured path.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) cost: Cost,
}

const HEAD: &str = "\
# What one request costs in the VM

Written by `cargo xtask cost --update`, and compared by `cargo xtask test`: the shipped
configuration, a session that is known, a VM that has served before. Calls and bytes are exact. Fuel
counts instructions of the module, to three digits; up to 3 %, or 1,500, more or less is no difference.

*Reads* are host calls that return bytes, for most of which Envoy calls back into the VM to
allocate. *In* and *out* are bytes that are copied into the VM and out of it.

";

/// Fuel that differs by less than this share is the same.
const TOLERANCE: f64 = 0.03;

/// So is fuel that differs by less than this: the allocator looks at one list of free blocks more or
/// less, depending on what it gave out before.
const FEW: f64 = 1_500.0;

/// The table; fuel is as `recorded` where it is the same.
pub(crate) fn render(rows: &[Row], recorded: &str) -> String {
    let mut text = HEAD.to_owned();
    text.push_str(
        "| # | path | callbacks | host calls | reads | allocations | in | out | fuel |\n",
    );
    text.push_str("|--:|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (index, Row { name, cost }) in rows.iter().enumerate() {
        let fuel = shown_fuel(cost.total_fuel(), cell(recorded, name, 9));
        let Cost { allocations, bytes_in, bytes_out, .. } = cost;
        let (callbacks, calls, reads) =
            (cost.callback_count(), cost.call_count(), cost.calls_of("get_"));
        writeln!(
            text,
            "| {} | {name} | {callbacks} | {calls} | {reads} | {allocations} | {bytes_in} | \
             {bytes_out} | {fuel} |",
            index + 1
        )
        .unwrap();
    }
    text.push_str("\n## Callbacks\n\n");
    counts(&mut text, rows, |cost| &cost.callbacks, |_, count, _| count);
    text.push_str("\n## Host calls\n\n");
    counts(&mut text, rows, |cost| &cost.calls, |_, count, _| count);
    text.push_str(FUEL);
    let fuel = recorded.split_once(FUEL).map_or("", |(_, section)| section);
    counts(
        &mut text,
        rows,
        |cost| &cost.fuel,
        |name, used, column| shown_fuel(used, cell(fuel, name, column + 2)),
    );
    text
}

/// Where the fuel of each callback begins.
const FUEL: &str = "\n## Fuel by callback\n\n";

/// How much each path has of what: one line for each, so that a change is a line. `shown` gets the
/// name, the count and the number of the path.
fn counts(
    text: &mut String,
    rows: &[Row],
    counted: impl Fn(&Cost) -> &BTreeMap<String, u64>,
    shown: impl Fn(&str, u64, usize) -> u64,
) {
    text.push_str("| |");
    (1..=rows.len()).for_each(|number| write!(text, " {number} |").unwrap());
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(rows.len()));
    let names: BTreeSet<_> = rows.iter().flat_map(|row| counted(&row.cost).keys()).collect();
    for name in names {
        write!(text, "\n| {name} |").unwrap();
        for (index, row) in rows.iter().enumerate() {
            match counted(&row.cost).get(name) {
                Some(count) => write!(text, " {} |", shown(name, *count, index)).unwrap(),
                None => text.push_str(" |"),
            }
        }
    }
    text.push('\n');
}

fn shown_fuel(fuel: u64, recorded: Option<u64>) -> u64 {
    match recorded {
        Some(known) if is_same(fuel as f64, known as f64) => known,
        _ => {
            let unit = 10_u64.pow(fuel.max(1).ilog10().saturating_sub(2));
            (fuel + unit / 2) / unit * unit
        }
    }
}

fn is_same(fuel: f64, known: f64) -> bool {
    (fuel - known).abs() <= (TOLERANCE * known).max(FEW)
}

/// The number in a column of the row that has this name; the first column is 1.
fn cell(table: &str, name: &str, column: usize) -> Option<u64> {
    let name = format!("| {name} |");
    let line = table.lines().find(|line| line.contains(&name))?;
    line.split('|').nth(column)?.trim().parse().ok()
}

/// The lines that differ, those of the old text with `-`, those of the new one with `+`.
pub(crate) fn difference(old: &str, new: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let removed = before.iter().filter(|line| !after.contains(line)).map(|line| ('-', *line));
    let added = after.iter().filter(|line| !before.contains(line)).map(|line| ('+', *line));
    // A row beside its successor.
    let mut lines: Vec<_> = removed.chain(added).collect();
    lines.sort_by_key(|(sign, line)| (key(line), *sign == '+'));
    lines.into_iter().map(|(sign, line)| format!("{sign} {line}\n")).collect()
}

/// What a row is about: its text up to the first number of a count.
fn key(line: &str) -> String {
    let mut cells = line.split('|').skip(1);
    let first = cells.next().unwrap_or_default().trim();
    let second = cells.next().unwrap_or_default().trim();
    match first.parse::<usize>() {
        Ok(number) => format!("{number:02} {second}"),
        Err(_) => first.to_owned(),
    }
}

#[test]
fn fuel_that_is_nearly_the_same_is_the_same() {
    assert_eq!(shown_fuel(123_456, None), 123_000);
    assert_eq!(shown_fuel(123_456, Some(121_000)), 121_000);
    assert_eq!(shown_fuel(123_456, Some(118_000)), 123_000);
    assert_eq!(shown_fuel(7, None), 7);
}

#[test]
fn a_table_is_read_as_it_was_written_and_its_changes_are_shown_row_by_row() {
    let mut row = Row { name: "some path", cost: Cost::default() };
    row.cost.calls.insert("get_property plan".to_owned(), 2);
    row.cost.fuel.insert("listener on_log".to_owned(), 5_432_100);
    let old = render(std::slice::from_ref(&row), "");
    assert_eq!(cell(&old, "some path", 9), Some(5_430_000));
    row.cost.fuel.insert("listener on_log".to_owned(), 5_500_000);
    assert_eq!(render(std::slice::from_ref(&row), &old), old);
    row.cost.calls.insert("get_property plan".to_owned(), 3);
    assert_eq!(
        difference(&old, &render(&[row], &old)),
        "- | 1 | some path | 0 | 2 | 2 | 0 | 0 | 0 | 5430000 |\n\
         + | 1 | some path | 0 | 3 | 3 | 0 | 0 | 0 | 5430000 |\n\
         - | get_property plan | 2 |\n\
         + | get_property plan | 3 |\n"
    );
}
