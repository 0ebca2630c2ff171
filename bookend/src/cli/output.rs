//! Prints: data on standard output, everything else on standard error.
//!
//! The one home of printing. Must hold: data that could not be written is told of at the end, see [`finish`]; but a
//! closed pipe is no error: whoever closed it has seen enough.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use serde_json::Value;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, for people.
    Table,
    /// The API's body, for machines.
    Json,
}

/// Why data was lost first. A server goes on without its output; so this is looked at when all is over.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line of data.
pub fn line(text: &str) {
    note_loss(writeln!(std::io::stdout(), "{text}"));
}

/// Prints text of several lines as it stands.
pub fn text(text: &str) {
    note_loss(write!(std::io::stdout(), "{text}"));
}

/// Writes out what was printed, and tells why if some of it was lost.
pub fn finish() -> Option<&'static std::io::Error> {
    note_loss(std::io::stdout().flush());
    LOST.get()
}

fn note_loss(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // The first one stays.
        let _ = LOST.set(error);
    }
}

/// Prints a remark that is not data.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an error.
pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// An error with its causes in one line, without causes that it quotes already.
#[must_use]
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// Prints a JSON document.
pub fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()));
}

/// Prints columns under a header, each as wide as its widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let format = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    line(&format(&mut header.iter().copied()));
    for row in rows {
        line(&format(&mut row.iter().map(String::as_str)));
    }
}

/// A member of a JSON document as a cell; a dot goes one level down.
#[must_use]
pub fn cell(value: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(value, |value, name| value.get(name));
    match found {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Prints a page of the API: as it is, or these members of its items as columns.
pub fn rows(page: &Value, columns: &[&str], format: Format) {
    match format {
        Format::Json => json(page),
        Format::Table => {
            let data = page.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
            let rows: Vec<Vec<String>> =
                data.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect();
            table(columns, &rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_told_twice() {
        let error =
            anyhow::anyhow!("no such role").context("connecting: no such role").context("engine can't be opened");
        assert_eq!(chain(&error), "engine can't be opened: connecting: no such role");
    }
}
