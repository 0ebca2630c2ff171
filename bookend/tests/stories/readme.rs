//! The README's console blocks, run as printed: status, headers and bodies compared, ids and times masked.
//!
//! In what the README expects, `…` stands for anything within a line, and a line of its own for any lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use regex::Regex;
use testkit::services::Services;
use testkit::{eventually, free_port};

use crate::common::{BIN, Dev};

const README: &str = include_str!("../../../README.md");
/// The heading of the section on the services stack.
const SERVICES: &str = "## On PostgreSQL and RabbitMQ";
/// A booking goes on while the README is read: an answer may take a moment to look as printed.
const LIMIT: Duration = Duration::from_secs(10);

struct Step {
    command: String,
    expected: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn readme() {
    let dev = Dev::start(&[]).await;
    let address = dev.api.url.trim_start_matches("http://").to_owned();
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let (mut run, mut compared) = (0, 0);
    for step in steps(README) {
        let command = step.command.replace("localhost:7878", &address);
        let name = command.split_once("=$(").map(|(name, _)| name.to_owned());
        if let Some(name) = name.filter(|name| name.chars().all(|c| c.is_ascii_uppercase())) {
            let value = shell(&format!("{command}; printf %s \"${name}\""), &variables);
            assert!(!value.is_empty(), "nothing was found by: {}", step.command);
            variables.insert(name, value);
        } else {
            let wanted = pattern(&step.expected);
            eventually(LIMIT, &step.command, async || {
                let output = shell(&command, &variables);
                if wanted.is_match(&mask(&output)) { Ok(()) } else { Err(format!("got:\n{output}\nwanted:\n{wanted}")) }
            })
            .await;
            compared += 1;
        }
        run += 1;
    }
    println!("{run} commands of the README run, {compared} answers compared");
    assert!(compared >= 6, "the README has lost its examples");
}

/// The commands for PostgreSQL and RabbitMQ, as one script: with ports, schemas and a virtual host of its own, and without
/// its first block, which builds the product and starts the servers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn readme_on_services() {
    let services = Services::shared();
    let (schemas, vhost) = (services.schemas(), services.vhost().await);
    let mut script = "trap 'kill $(jobs -p)' EXIT\n".to_owned();
    let section = README.split(SERVICES).nth(1).expect("the README says how to run on services");
    script.extend(blocks(section, "sh").into_iter().filter(|block| !block.contains("cargo build")));
    let mut listeners = Vec::new();
    for port in ["7878", "7879", "7880", "7881", "7888", "7890"] {
        assert!(script.contains(port), "port {port} is not in the README any more");
        let (listener, address) = free_port().await.expect("a port");
        listeners.push(listener);
        script = script.replace(port, &address.port().to_string());
    }
    drop(listeners);
    let schema = schemas.name("engine").replace("_engine", "");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is around this crate");
    let bin = Path::new(BIN).parent().expect("a folder").display().to_string();
    let path = shell("printf %s \"$PATH\"", &BTreeMap::new());
    let output = Command::new("timeout")
        .args(["120", "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(root)
        .env("PATH", format!("{bin}:{path}"))
        .env("BOOKEND_DATABASE__SCHEMA", &schema)
        .env("BOOKEND_TEST_POSTGRES_URL", schemas.url())
        .env("BOOKEND_TEST_AMQP_URL", vhost.url())
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("committed") && said.contains("1 sagas looked at, 0 findings"), "{said}");
    println!("the README's {} lines for PostgreSQL and RabbitMQ run as printed", script.lines().count());
}

/// The text of every fenced block of this kind.
fn blocks(readme: &str, kind: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match (inside, line.strip_prefix("```")) {
            (false, Some(found)) if found == kind => {
                inside = true;
                blocks.push(String::new());
            }
            (_, Some(_)) => inside = false,
            (true, None) => blocks.iter_mut().last().into_iter().for_each(|block| *block += &format!("{line}\n")),
            (false, None) => {}
        }
    }
    blocks
}

/// The commands of all console blocks, each with the output that is printed below it.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut continued = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            if continued {
                step.command.push('\n');
                step.command.push_str(line);
            } else {
                step.expected.push(line.to_owned());
            }
        }
        continued = line.ends_with('\\');
    }
    steps
}

fn shell(command: &str, variables: &BTreeMap<String, String>) -> String {
    let output = Command::new("bash").args(["-c", command]).envs(variables).output().expect("bash and curl run");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

fn mask(text: &str) -> String {
    let id = Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").expect("a pattern");
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").expect("a pattern");
    time.replace_all(&id.replace_all(text, "ID"), "TIME").trim_end().to_owned()
}

/// What the masked output must look like.
fn pattern(expected: &[String]) -> Regex {
    let lines = expected.iter().map(|line| match line.as_str() {
        "…" => "(?s:.*?)".to_owned(),
        line => regex::escape(&mask(line)).replace('…', ".*"),
    });
    let text = lines.collect::<Vec<_>>().join("\n").replace("(?s:.*?)\n", "(?s:.*?)");
    Regex::new(&format!("^{text}$")).expect("an escaped pattern")
}
