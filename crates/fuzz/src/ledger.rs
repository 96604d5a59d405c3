//! What was searched in all, and what came of it: the table in `corpus/SEARCHED.md`, which the search itself writes.
//!
//! Processor time is that of the thread that searches, as the kernel counts it, not the time that passed.
//!
//! Not here: searching (`search`).

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::targets::TARGETS;

/// What the table says of one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The target.
    pub name: String,
    /// Processor time of all searches.
    pub seconds: u64,
    /// Inputs that were run in all searches.
    pub runs: u64,
    /// Edges that seeds and kept inputs reach, by the last search.
    pub edges: u64,
    /// Kept inputs.
    pub kept: u64,
    /// The day of the last search.
    pub day: String,
}

const HEAD: &str = "\
# What was searched

Written by `make fuzz-keep`. CPU seconds are the searching thread's own, of all searches together; edges are what the
seeds and the kept inputs take by the last of them, of those that the compiler counts. One CPU-hour each is the aim.

| target | reads | CPU seconds | runs | edges | kept | last |
|---|---|---:|---:|---:|---:|---|
";

/// Where the table is.
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/SEARCHED.md")
}

/// Reads a table; lines that are no rows are left out.
pub fn read(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let [name, _, seconds, runs, edges, kept, day] = cells[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let (seconds, runs) = (number(seconds)?, number(runs)?);
    let (edges, kept) = (number(edges)?, number(kept)?);
    Some(Row { name: name.to_owned(), seconds, runs, edges, kept, day: day.to_owned() })
}

/// The table with a search added to it. Its time and runs are added to those of the target; all else is as it is now.
pub fn add(mut rows: Vec<Row>, searched: Row) -> Vec<Row> {
    match rows.iter_mut().find(|row| row.name == searched.name) {
        Some(row) => {
            let (seconds, runs) = (row.seconds + searched.seconds, row.runs + searched.runs);
            *row = Row { seconds, runs, ..searched };
        }
        None => rows.push(searched),
    }
    rows
}

/// The table as a text, in the order of the targets. Targets that are gone are left out.
pub fn write(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    for target in &TARGETS {
        let Some(row) = rows.iter().find(|row| row.name == target.name) else { continue };
        let Row { name, seconds, runs, edges, kept, day } = row;
        let reads = target.reads;
        let _ = writeln!(text, "| {name} | {reads} | {seconds} | {runs} | {edges} | {kept} | {day} |");
    }
    text
}

/// Adds a search to the file. Searches that end at the same time wait for each other.
pub fn record(searched: Row) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path())?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let text = write(&add(read(&text), searched));
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// The row of a search.
pub fn searched(name: &str, time: Duration, runs: u64, edges: usize, kept: usize, day: String) -> Row {
    let (edges, kept) = (edges as u64, kept as u64);
    Row { name: name.to_owned(), seconds: time.as_secs(), runs, edges, kept, day }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_add_up_and_the_table_is_read_as_it_was_written() {
        let day = || "2026-11-30".to_owned();
        let once = searched("json", Duration::from_millis(61_900), 1000, 700, 12, day());
        let twice = searched("json", Duration::from_secs(10), 5, 800, 11, day());
        let rows = add(add(Vec::new(), once), twice);
        let rows = add(rows, searched("pickle", Duration::from_secs(1), 1, 1, 1, day()));
        let text = write(&rows);
        assert!(text.find("| pickle |") < text.find("| json |"), "{text}");
        let read = read(&text);
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[1],
            Row { name: "json".into(), seconds: 71, runs: 1005, edges: 800, kept: 11, day: day() }
        );
    }

    #[test]
    fn the_table_that_is_kept_names_every_target() {
        let text = std::fs::read_to_string(path()).expect("the table");
        let rows = super::read(&text);
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, TARGETS.map(|target| target.name));
        assert_eq!(write(&rows), text, "written by hand");
    }
}
