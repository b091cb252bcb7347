//! Comparing results that were saved, without measuring anything.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::report::document::{Document, Generator};
use crate::report::host::Host;
use crate::report::named;

use super::result::{COMPARE_FORMAT, Comparison, Contender, Method, Run, WorkFacts};
use super::unix_seconds;
use super::works::Metric;

/// A comparison of results that were saved: a `compare.json` as it is, or a run in each directory.
pub(super) fn load(directories: &[PathBuf]) -> io::Result<Comparison> {
    if let [directory] = directories {
        let path = directory.join("compare.json");
        let json = fs::read_to_string(&path).map_err(|error| named(&path, &error))?;
        return Comparison::parse(&json).map_err(|text| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {text}", path.display()),
            )
        });
    }
    let mut documents = Vec::new();
    for directory in directories {
        documents.push((name_of(directory), crate::report::load(directory)?));
    }
    Ok(beside_each_other(&documents))
}

fn name_of(directory: &Path) -> String {
    directory.file_name().map_or_else(
        || directory.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Each document is a broker; the first one is the base. Runs of the same name are the same work.
pub(super) fn beside_each_other(documents: &[(String, Document)]) -> Comparison {
    let mut works: Vec<WorkFacts> = Vec::new();
    let mut runs = Vec::new();
    let mut rounds: HashMap<(String, String), u32> = HashMap::new();
    for (name, document) in documents {
        if !works.iter().any(|work| work.key == document.name) {
            works.push(WorkFacts {
                key: document.name.clone(),
                title: document.started.clone(),
                arguments: document
                    .parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join(" "),
                metrics: [Metric::Rate, Metric::Cpu, Metric::P50, Metric::P99]
                    .map(|metric| metric.key().to_owned())
                    .to_vec(),
            });
        }
        let round = rounds
            .entry((document.name.clone(), name.clone()))
            .and_modify(|round| *round += 1)
            .or_insert(1);
        let mut run = Run {
            round: *round,
            work: document.name.clone(),
            broker: name.clone(),
            ..Run::default()
        };
        run.measured(document);
        runs.push(run);
    }
    let first = documents.first();
    let mut contenders: Vec<Contender> = Vec::new();
    for (name, document) in documents {
        if !contenders.iter().any(|contender| contender.name == *name) {
            contenders.push(Contender {
                name: name.clone(),
                version: format!("measured {}", document.started),
                ..Contender::default()
            });
        }
    }
    Comparison {
        format: COMPARE_FORMAT,
        started_unix_s: unix_seconds(),
        generator: first.map_or_else(
            || Generator {
                version: String::new(),
                driver: String::new(),
            },
            |(_, document)| document.generator.clone(),
        ),
        host: first.map_or_else(Host::default, |(_, document)| document.host.clone()),
        method: Method {
            rounds: rounds.values().copied().max().unwrap_or(0),
            duration_s: 0,
            base: first.map_or_else(String::new, |(name, _)| name.clone()),
            ..Method::default()
        },
        brokers: contenders,
        works,
        runs,
    }
}
