//! What each path costs is a table, so that no change costs more unseen.

use std::{env, fs};

use super::paths;
use super::support::root;
use super::table::{Row, difference, render};

const TABLE: &str = "crates/wasm-host/tests/cost.md";

/// Where each path's host calls are listed, with the instructions between them.
const TRACES: &str = "target/cost";

#[test]
#[ignore = "needs the module: cargo xtask cost"]
fn every_path_costs_what_the_table_says() {
    let rows: Vec<_> =
        paths::ALL.iter().map(|path| Row { name: path.name, cost: (path.play)().cost }).collect();
    write_traces(&rows);
    let file = root().join(TABLE);
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    let measured = render(&rows, &recorded);
    if env::var_os("COST_TABLE").is_some_and(|value| value == "update") {
        fs::write(&file, measured).unwrap();
        return;
    }
    assert!(
        measured == recorded,
        "the cost of a request has changed:\n\n{}\nThe paths are listed call by call in {TRACES}. If \
         the cost should change, write {TABLE}:\n  cargo xtask cost --update\n",
        difference(&recorded, &measured)
    );
}

/// One file for each row of the table.
fn write_traces(rows: &[Row]) {
    let folder = root().join(TRACES);
    fs::create_dir_all(&folder).unwrap();
    for (number, Row { name, cost }) in (1..).zip(rows) {
        let trace = format!("{name}\n\n{}", cost.trace());
        fs::write(folder.join(format!("{number:02}.txt")), trace).unwrap();
    }
}

#[test]
#[ignore = "needs the module: cargo xtask cost"]
fn the_same_request_costs_the_same_every_time() {
    for path in &paths::ALL[..6] {
        assert_eq!((path.play)().cost, (path.play)().cost, "{}", path.name);
    }
}
