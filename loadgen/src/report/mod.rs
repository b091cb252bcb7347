//! What is left of a run: the summary on the terminal, and the files of `--out DIR`.
//!
//! | file | what it is |
//! | --- | --- |
//! | `result.json` | the whole [`Document`]; the others can be made again from it, but for the log |
//! | `series.csv` | a row for each interval |
//! | `report.html` | plots and tables, self-contained |
//! | `corrected.hgrm`, `raw.hgrm`, … | percentile distributions of the measured phase |
//! | `intervals.hlog` | the histograms of each interval |

pub mod document;
pub(crate) mod hgrm;
mod hlog;
pub mod host;
pub(crate) mod html;
pub(crate) mod plot;
#[cfg(test)]
pub(crate) mod samples;
pub mod series;
mod text;
pub(crate) mod units;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::measure::Outcome;
use document::Document;
use host::Host;

/// In which form a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// What `result.json` holds.
    Json,
    /// A header and a row.
    Csv,
}

/// Prints the result of a run.
///
/// # Errors
///
/// `out` cannot be written to.
pub fn print(outcome: &Outcome, format: Format, out: &mut dyn Write) -> io::Result<()> {
    print_document(&Document::new(outcome, Host::read()), format, out)
}

/// Prints a result, new or saved.
///
/// # Errors
///
/// `out` cannot be written to.
pub fn print_document(document: &Document, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let text = match format {
        Format::Text => text::text(document),
        Format::Json => document.to_json().map_err(io::Error::other)? + "\n",
        Format::Csv => series::summary(document),
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes all files of a run into `directory`, which is made if it is not there.
///
/// # Errors
///
/// The directory or a file cannot be written; the text names it.
pub fn write(outcome: &Outcome, directory: &Path) -> io::Result<()> {
    let document = Document::new(outcome, Host::read());
    let json = document.to_json().map_err(io::Error::other)?;
    let mut log = Vec::new();
    hlog::write(outcome, &mut log)?;
    write_document(&document, directory)?;
    save(directory, "result.json", json.as_bytes())?;
    save(directory, "intervals.hlog", &log)
}

/// Writes those files of a result that can be made from `result.json`.
///
/// # Errors
///
/// The directory or a file cannot be written; the text names it.
pub fn write_document(document: &Document, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory).map_err(|error| named(directory, &error))?;
    save(directory, "series.csv", series::series(document).as_bytes())?;
    for (name, histogram) in document.histograms.filled() {
        let file = format!("{name}.hgrm");
        save(directory, &file, hgrm::hgrm(histogram).as_bytes())?;
    }
    save(directory, "report.html", html::html(document).as_bytes())
}

/// Reads the result that was written into `directory`.
///
/// # Errors
///
/// There is none, or it cannot be read; the text names the file.
pub fn load(directory: &Path) -> io::Result<Document> {
    let path = directory.join("result.json");
    let json = fs::read_to_string(&path).map_err(|error| named(&path, &error))?;
    Document::parse(&json).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {error}", path.display()),
        )
    })
}

pub(crate) fn save(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = directory.join(name);
    fs::write(&path, bytes).map_err(|error| named(&path, &error))
}

pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
