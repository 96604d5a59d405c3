//! Comma-separated values (RFC 4180), also with tabs.
//!
//! The first line names the columns if none of its cells is a number. A column is numbers where every cell is one
//! or is empty. Not here: other files of data (`table`).

use super::{Column, Result, Table, TableError, error};

/// The most columns of a file.
const WIDTH_MAX: usize = 1 << 20;

/// One record at a time, with the line it begins on.
struct Records<'t> {
    rest: &'t str,
    separator: char,
    line: usize,
}

impl Records<'_> {
    fn next(&mut self) -> Result<Option<(usize, Vec<String>)>> {
        while let Some(rest) = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n')) {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let first_line = self.line;
        let mut cells = Vec::new();
        loop {
            cells.push(self.cell()?);
            if cells.len() > WIDTH_MAX {
                return error(format!("line {first_line}: more than {WIDTH_MAX} columns"));
            }
            let Some(next) = self.rest.chars().next() else { break };
            self.rest = &self.rest[next.len_utf8()..];
            if next == '\r' && self.rest.starts_with('\n') {
                self.rest = &self.rest[1..];
            }
            if next != self.separator {
                self.line += 1;
                break;
            }
        }
        Ok(Some((first_line, cells)))
    }

    fn cell(&mut self) -> Result<String> {
        let Some(mut rest) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([self.separator, '\n', '\r']).unwrap_or(self.rest.len());
            let (cell, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(cell.trim().to_owned());
        };
        let mut cell = String::new();
        loop {
            let Some(end) = rest.find('"') else {
                return error(format!("line {}: a quote is never closed", self.line));
            };
            cell.push_str(&rest[..end]);
            self.line += rest[..end].matches('\n').count();
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    cell.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        self.rest = rest;
        Ok(cell)
    }
}

fn number(cell: &str) -> Option<f64> {
    if cell.is_empty() || cell == "NA" {
        return Some(f64::NAN);
    }
    cell.parse().ok()
}

pub(super) fn read(bytes: &[u8], separator: char) -> Result<Table> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| TableError("the file is not UTF-8".into()))?;
    let mut records = Records { rest: text.strip_prefix('\u{feff}').unwrap_or(text), separator, line: 1 };
    let mut names = None;
    let mut columns: Vec<Vec<String>> = Vec::new();
    let mut rows = 0;
    while let Some((line, cells)) = records.next()? {
        if columns.is_empty() {
            columns.resize(cells.len(), Vec::new());
            if cells.iter().all(|cell| number(cell).is_none()) {
                names = Some(cells);
                continue;
            }
        }
        if cells.len() != columns.len() {
            return error(format!("line {line}: {} cells, expected {}", cells.len(), columns.len()));
        }
        columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
        rows += 1;
    }
    let typed = |column: Vec<String>| {
        let numbers: Option<Vec<f64>> = column.iter().map(|cell| number(cell)).collect();
        numbers.map_or(Column::Texts(column), Column::Numbers)
    };
    Table::new(names, columns.into_iter().map(typed).collect(), rows)
}
