//! The look of tables and numbers in both reports.

use comfy_table::{
    Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle,
};

/// The width of the narrowest terminal that people use. Wider tables wrap inside their cells.
pub(super) const WIDTH: u16 = 80;

/// A number with commas between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

pub(super) fn table(columns: impl IntoIterator<Item = impl ToString>, terminal: bool) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    if !terminal {
        table.force_no_tty();
    }
    table.set_header(
        columns.into_iter().map(|column| Cell::new(column).add_attribute(Attribute::Bold)),
    );
    table
}

pub(super) fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
