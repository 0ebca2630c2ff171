//! `bookend definitions …`: the definitions that this build and its configuration know.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::output::{self, Format};
use crate::settings::{Settings, load_definition};

#[derive(Debug, Args)]
pub(super) struct Definitions {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them.
    List,
    /// Check files, TOML or JSON: shape and structural rules.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

impl Definitions {
    pub(super) fn run(&self, settings: &Settings, format: Format) -> anyhow::Result<Exit> {
        match &self.verb {
            Verb::List => list(settings, format),
            Verb::Check { files } => Ok(check(files)),
        }
    }
}

fn list(settings: &Settings, format: Format) -> anyhow::Result<Exit> {
    let catalog = settings.catalog()?;
    match format {
        Format::Json => {
            output::json(&json!({"data": catalog.iter().map(|loaded| &loaded.definition).collect::<Vec<_>>()}))
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = catalog
                .iter()
                .map(|loaded| {
                    let definition = &loaded.definition;
                    let steps = definition.steps.iter().enumerate().map(|(index, step)| {
                        let mark = if definition.pivot() == Some(index) { "*" } else { "" };
                        format!("{}{mark}", step.name)
                    });
                    let steps: Vec<String> = steps.collect();
                    vec![definition.reference(), steps.join(" > "), loaded.digest.chars().take(12).collect()]
                })
                .collect();
            output::table(&["definition", "steps (* pivot)", "digest"], &rows);
        }
    }
    Ok(Exit::Done)
}

fn check(files: &[PathBuf]) -> Exit {
    let mut exit = Exit::Done;
    for file in files {
        match load_definition(file) {
            Ok(loaded) => output::line(&format!("{}: {} is sound", file.display(), loaded.definition.reference())),
            Err(error) => {
                output::error(&output::chain(&error));
                exit = Exit::Failed;
            }
        }
    }
    exit
}
