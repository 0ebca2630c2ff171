//! Guards the rules of `docs/architecture.md` and `CONTRIBUTING.md` that neither compiler nor clippy can see.
//!
//! Not for behaviour. Must hold: each rule is a test of its own, whose message names every offender and says how to
//! mend it; a crate that no rule knows is an offender, so that nothing joins the workspace unseen.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Most lines of one source file.
const LINES_MAX: usize = 600;

/// Which crates of the workspace each crate may use in what is shipped.
const EDGES: &[(&str, &[&str])] = &[
    ("saga-defs", &[]),
    ("saga-core", &["saga-defs"]),
    ("saga-store", &["saga-defs", "saga-core", "db", "runtime"]),
    ("orchestrator", &["saga-defs", "saga-core", "saga-store", "runtime", "transport"]),
    ("saga-api", &["saga-defs", "saga-core", "saga-store", "orchestrator", "runtime"]),
    ("runtime", &["saga-defs"]),
    ("transport", &["saga-defs", "runtime"]),
    ("db", &["saga-defs", "runtime"]),
    ("participant-kit", &["saga-defs", "db", "runtime", "transport"]),
    ("clinic", &["saga-defs", "db", "runtime"]),
    ("booking", &["saga-defs", "participant-kit", "clinic"]),
    ("confirmation", &["saga-defs", "participant-kit", "clinic"]),
    ("payment", &["saga-defs", "participant-kit", "db", "runtime"]),
    ("notify", &["saga-defs", "participant-kit", "db", "runtime"]),
    ("providers", &["saga-defs", "runtime"]),
    ("migrations", &[]),
    // Holds databases for the tests of owners.
    ("fixture", &["db", "migrations", "testkit"]),
    ("testkit", &[]),
    // Outside the product: measures it.
    (
        "bench",
        &[
            "saga-defs",
            "saga-core",
            "saga-store",
            "saga-api",
            "orchestrator",
            "participant-kit",
            "transport",
            "db",
            "runtime",
            "migrations",
            "testkit",
        ],
    ),
    (
        "bookend",
        &[
            "saga-defs",
            "saga-core",
            "saga-store",
            "saga-api",
            "orchestrator",
            "participant-kit",
            "clinic",
            "booking",
            "confirmation",
            "payment",
            "notify",
            "transport",
            "db",
            "runtime",
            "providers",
            "migrations",
        ],
    ),
];

/// Crates that only tests and measurements have.
const TEST_CRATES: &[&str] = &["testkit", "fixture", "bench"];

/// What tests of every crate but the pure ones may use besides.
const TEST_SUPPORT: &[&str] = &["testkit", "fixture", "migrations", "providers", "db", "runtime", "saga-defs"];

/// Edges that only tests have.
const TEST_EDGES: &[(&str, &str)] = &[
    // Two participants over one owner are shown together.
    ("booking", "confirmation"),
    // The API is asked in front of a whole engine.
    ("saga-api", "transport"),
];

const ORCHESTRATOR: &[&str] = &["saga-core", "saga-store", "orchestrator", "saga-api"];
const PARTICIPANTS: &[&str] = &["clinic", "booking", "confirmation", "payment", "notify"];
const PURE: &[&str] = &["saga-defs", "saga-core"];

/// What a pure crate must not even reach through others.
const IMPURE: &[&str] = &[
    "async-trait",
    "axum",
    "futures-util",
    "hyper",
    "lapin",
    "rand",
    "reqwest",
    "sea-orm",
    "sqlx",
    "tokio",
    "tracing-subscriber",
];

/// Outside crates that may be named only at home, in what is shipped and in tests.
const HOMES: &[(&str, &[&str])] = &[
    // The baseline is written as somebody does who has none of this.
    ("lapin", &["transport", "bench"]),
    ("backoff", &["runtime"]),
    ("failsafe", &["runtime"]),
    ("metrics-exporter-prometheus", &["runtime"]),
    ("tracing-subscriber", &["runtime"]),
    ("config", &["bookend"]),
    ("clap", &["bookend", "bench"]),
    ("hdrhistogram", &["bench"]),
    ("mimalloc", &["bookend", "bench"]),
    ("sea-query-sqlx", &["db"]),
    ("toml", &["saga-defs"]),
    ("jsonschema", &["saga-defs"]),
    (
        "sea-orm",
        &[
            "db",
            "saga-store",
            "participant-kit",
            "clinic",
            "payment",
            "notify",
            "booking",
            "confirmation",
            "fixture",
            "bench",
        ],
    ),
    ("axum", &["saga-api", "runtime", "clinic", "payment", "notify", "providers", "bookend"]),
    ("reqwest", &["payment", "notify", "bookend", "bench"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is around this crate").to_owned()
}

/// The workspace's crates with the dependencies that they name.
fn workspace() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

/// A dependency that a manifest names.
struct Edge {
    from: String,
    to: String,
    inside: bool,
    test_only: bool,
}

fn edges() -> Vec<Edge> {
    let metadata = workspace();
    let named = metadata.packages.iter().flat_map(|package| {
        package.dependencies.iter().map(|dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            inside: dependency.path.is_some(),
            test_only: dependency.kind == DependencyKind::Development,
        })
    });
    named.collect()
}

fn allowed(from: &str) -> &'static [&'static str] {
    EDGES.iter().find(|(name, _)| *name == from).map_or(&[], |(_, to)| to)
}

/// Fails with all offenders and the way to mend them.
fn none(offenders: &[String], mend: &str) {
    assert!(offenders.is_empty(), "{}\n=> {mend}", offenders.join("\n"));
}

fn offending(edges: Vec<Edge>, offends: impl Fn(&Edge) -> bool) -> Vec<String> {
    let kind = |edge: &Edge| if edge.test_only { " (in tests)" } else { "" };
    edges.into_iter().filter(offends).map(|edge| format!("{} -> {}{}", edge.from, edge.to, kind(&edge))).collect()
}

#[test]
fn every_crate_has_a_place_in_the_rules() {
    let names = workspace().packages.into_iter().map(|package| package.name.to_string());
    let unknown: Vec<String> = names.filter(|name| !EDGES.iter().any(|(known, _)| known == name)).collect();
    none(&unknown, "add the crate to EDGES in this file and to the table in docs/architecture.md");
}

#[test]
fn an_image_is_built_from_every_crate_and_as_the_workspace_is() {
    let context = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let root = root();
    let folder = |package: Package| {
        let inside = package.manifest_path.strip_prefix(&root).expect("members are in the workspace");
        inside.iter().next().expect("a folder").to_owned()
    };
    let needed = workspace().packages.into_iter().map(folder).chain([".cargo".to_owned()]);
    let missing: BTreeSet<String> =
        needed.filter(|folder| !context.lines().any(|line| line.strip_prefix('!') == Some(folder))).collect();
    none(
        &missing.into_iter().collect::<Vec<_>>(),
        "let it through in .dockerignore: cargo reads every member's manifest",
    );
}

#[test]
fn edges_between_crates_are_the_known_ones() {
    let offends = |edge: &Edge| edge.inside && !edge.test_only && !allowed(&edge.from).contains(&edge.to.as_str());
    none(
        &offending(edges(), offends),
        "remove the dependency; a new edge is a decision: write it down in docs/adr, then allow it in EDGES",
    );
}

#[test]
fn tests_reach_no_further_than_test_support() {
    let offends = |edge: &Edge| {
        let to = edge.to.as_str();
        let support = TEST_SUPPORT.contains(&to) && !PURE.contains(&edge.from.as_str());
        let known = allowed(&edge.from).contains(&to) || TEST_EDGES.contains(&(edge.from.as_str(), to));
        edge.inside && edge.test_only && !support && !known
    };
    none(&offending(edges(), offends), "test against a port's fake, or move the test to bookend/tests");
}

#[test]
fn orchestrator_and_participants_meet_only_in_messages() {
    let offends = |edge: &Edge| {
        let (from, to) = (edge.from.as_str(), edge.to.as_str());
        let kit = to == "participant-kit";
        (ORCHESTRATOR.contains(&from) && (PARTICIPANTS.contains(&to) || kit))
            || ((PARTICIPANTS.contains(&from) || from == "participant-kit") && ORCHESTRATOR.contains(&to))
    };
    none(&offending(edges(), offends), "what both sides need belongs to saga-defs; they are joined in bookend");
}

#[test]
fn participants_do_not_know_each_other() {
    let offends = |edge: &Edge| {
        let (from, to) = (edge.from.as_str(), edge.to.as_str());
        let over_their_owner = matches!((from, to), ("booking" | "confirmation", "clinic"));
        let shown_together = edge.test_only && TEST_EDGES.contains(&(from, to));
        PARTICIPANTS.contains(&from) && PARTICIPANTS.contains(&to) && !over_their_owner && !shown_together
    };
    none(
        &offending(edges(), offends),
        "pass what is needed through the saga: an output of one step, a payload of the next",
    );
}

#[test]
fn transport_and_store_do_not_know_each_other() {
    let offends = |edge: &Edge| {
        matches!(
            (edge.from.as_str(), edge.to.as_str()),
            ("transport", "saga-store" | "db") | ("saga-store", "transport")
        )
    };
    none(&offending(edges(), offends), "the engine (orchestrator/src) joins them; move the code there");
}

#[test]
fn test_crates_are_for_tests_only() {
    let offends = |edge: &Edge| {
        let (from, to) = (edge.from.as_str(), edge.to.as_str());
        TEST_CRATES.contains(&to) && !TEST_CRATES.contains(&from) && !edge.test_only
    };
    none(&offending(edges(), offends), "name it under [dev-dependencies]");
}

#[test]
fn outside_crates_stay_at_home() {
    let offends = |edge: &Edge| {
        let home = HOMES.iter().find(|(name, _)| *name == edge.to);
        home.is_some_and(|(_, home)| !home.contains(&edge.from.as_str()))
    };
    none(&offending(edges(), offends), "use what the crate's home exports; homes are listed in docs/architecture.md");
}

#[test]
fn tables_are_made_only_by_migrations() {
    let tests = ["saga-store", "participant-kit", "clinic", "booking", "payment", "notify"];
    let offends = |edge: &Edge| {
        let from = edge.from.as_str();
        let climbs = edge.test_only && tests.contains(&from) || TEST_CRATES.contains(&from);
        edge.to == "sea-orm-migration" && edge.from != "migrations" && !climbs
    };
    none(&offending(edges(), offends), "add a step to the owner's ladder in migrations/src");
}

#[test]
fn pure_crates_reach_nothing_impure() {
    let output = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Only what is built here is sure to be on this machine.
    let options = ["--locked", "--filter-platform", host].map(str::to_owned);
    let metadata =
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(options).exec().unwrap();
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let mut offenders = Vec::new();
    for pure in PURE {
        let mut open = vec![nodes.iter().find(|node| names[&node.id] == *pure).unwrap()];
        let mut reached = BTreeSet::new();
        while let Some(node) = open.pop() {
            for dependency in &node.deps {
                let shipped = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                if shipped && reached.insert(names[&dependency.pkg]) {
                    open.extend(nodes.iter().find(|node| node.id == dependency.pkg));
                }
            }
        }
        assert!(reached.contains("serde"), "the walk from {pure} found nothing");
        offenders.extend(IMPURE.iter().filter(|name| reached.contains(*name)).map(|name| format!("{pure} => {name}")));
    }
    none(&offenders, "leave IO, clocks and randomness to the callers; `cargo tree -p saga-core -i NAME` shows the way");
}

/// Every file of the repository, without what is built, hidden or ignored.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let skipped = ["target", ".git", ".idea", ".vscode"].contains(&name.as_str());
            if path.is_dir() && !skipped {
                open.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Texts by their path from the root.
fn texts(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let root = root();
    let named =
        files().into_iter().map(|path| (path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), path));
    // What is not text, a database for one, holds none of what is looked for.
    let read =
        named.filter(|(name, _)| wanted(name)).filter_map(|(name, path)| Some((name, fs::read_to_string(path).ok()?)));
    read.collect()
}

fn sources() -> Vec<(String, String)> {
    let sources = texts(|name| name.ends_with(".rs"));
    assert!(sources.len() > 50, "the walk found only {} sources", sources.len());
    sources
}

#[test]
fn no_source_is_longer_than_600_lines() {
    let count = sources().into_iter().map(|(name, text)| (name, text.lines().count()));
    let long: Vec<String> =
        count.filter(|(_, lines)| *lines > LINES_MAX).map(|(name, lines)| format!("{name}: {lines} lines")).collect();
    none(&long, "one idea per file: find the second idea and give it a module of its own");
}

#[test]
fn every_module_says_what_it_is_for() {
    let of_src = sources().into_iter().filter(|(name, _)| name.split('/').any(|part| part == "src"));
    let silent: Vec<String> = of_src.filter(|(_, text)| !text.starts_with("//!")).map(|(name, _)| name).collect();
    none(&silent, "open the file with `//!`: what it is for, what it is not for, what must hold");
}

#[test]
fn hand_written_sql_has_its_own_files() {
    let raw = [concat!("execute_", "unprepared("), concat!("Statement::", "from_"), concat!(".from_", "string(")];
    // A test may look at a database from outside, or spoil a row on purpose.
    let tests = |name: &str| name.split('/').any(|part| part == "tests");
    let may = |name: &str| {
        name.starts_with("crates/db/") || name.starts_with("migrations/") || name.ends_with("_sql.rs") || tests(name)
    };
    let offends = |(name, text): &(String, String)| !may(name) && raw.iter().any(|raw| text.contains(raw));
    let offenders: Vec<String> = sources().into_iter().filter(offends).map(|(name, _)| name).collect();
    none(&offenders, "use sea-query's builders; where the dialects must differ, a file named *_sql.rs");
}

#[test]
fn nothing_points_outside_the_repository() {
    let workshop = [concat!("/wo", "rk/"), concat!("shared", "/design")];
    let mentions = |(name, text): &(String, String)| {
        let found: Vec<&str> = workshop.into_iter().filter(|word| text.contains(word)).collect();
        (!found.is_empty()).then(|| format!("{name}: {}", found.join(", ")))
    };
    let offenders: Vec<String> = texts(|_| true).iter().filter_map(mentions).collect();
    none(&offenders, "say it in the repository's own words, or leave it out");
}

#[test]
fn crates_come_from_the_public_registry() {
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let elsewhere = lock.lines().filter(|line| line.starts_with("source = ") && *line != public);
    let mut offenders: Vec<String> = elsewhere.map(|line| format!("Cargo.lock: {line}")).collect();
    let redirects = |text: &str| {
        text.lines()
            .any(|line| ["registry", "replace-with", "[source"].iter().any(|word| line.trim_start().starts_with(word)))
    };
    let manifests = texts(|name| name.ends_with("Cargo.toml") || name.starts_with(".cargo/"));
    offenders.extend(manifests.into_iter().filter(|(_, text)| redirects(text)).map(|(name, _)| name));
    none(
        &offenders,
        "a mirror is the machine's business: configure it in the home directory and lock against crates.io",
    );
}

#[test]
fn the_default_configuration_parses_and_every_section_is_explained() {
    let text = fs::read_to_string(root().join("bookend/config.default.toml")).unwrap();
    let source = config::File::from_str(&text, config::FileFormat::Toml);
    let parsed = config::Config::builder().add_source(source).build().expect("bookend/config.default.toml is not TOML");
    assert!(parsed.get_string("api.listen").is_ok(), "bookend/config.default.toml lacks api.listen");
    let lines: Vec<&str> = text.lines().collect();
    let silent = lines.windows(2).filter(|pair| pair[0].starts_with('[') && !pair[1].starts_with('#'));
    let silent: Vec<String> = silent.map(|pair| pair[0].to_owned()).collect();
    none(&silent, "config.default.toml is the manual: begin each section with a comment");
}

/// Words in `text` that begin with `prefix`, as far as letters of names go.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        &text[at + 1..at + prefix.len() + end]
    })
}

#[test]
fn every_metric_is_explained_and_every_explained_metric_exists() {
    let ours = |name: &&str| !name.starts_with("bookend_test_");
    let shipped = sources().into_iter().filter(|(name, _)| name.split('/').any(|part| part == "src"));
    let sources: String = shipped.map(|(_, text)| text).collect();
    let named: BTreeSet<&str> = words(&sources, "\"bookend_").filter(ours).collect();
    let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let explained: BTreeSet<&str> = words(&manual, "`bookend_").collect();
    let offenders: Vec<String> = named.symmetric_difference(&explained).map(|name| (*name).to_owned()).collect();
    none(&offenders, "keep the table of metrics in docs/operations.md in step with the code");
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in texts(|name| name.ends_with(".md")) {
        let dir = root().join(Path::new(&name).parent().unwrap());
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !outside && !dir.join(target).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    none(&broken, "mend the link, or write the page");
}
