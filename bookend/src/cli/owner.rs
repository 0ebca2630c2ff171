//! Commands on the owners' tables, and the simulators on their own.

use std::sync::Arc;

use anyhow::Context;
use runtime::{SystemClock, Tasks};
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::exit::Exit;
use super::output::{self, Format};
use crate::audit;
use crate::databases::{Databases, Owner, Place};
use crate::process::{self, init_log, until_asked_to_stop};
use crate::settings::Settings;

/// Brings tables up to date: those of the given owners, or all.
pub(super) async fn migrate(settings: &Settings, owners: &[Owner]) -> anyhow::Result<Exit> {
    let place = Place::of(settings)?;
    let _lock = place.lock()?;
    place.prepare()?;
    for owner in Owner::ALL.into_iter().filter(|owner| owners.is_empty() || owners.contains(owner)) {
        let db = place.open_to_migrate(owner).await?;
        owner.migrate(&db).await?;
        db.close().await;
    }
    output::note(&format!("{} is up to date", place.describe()));
    Ok(Exit::Done)
}

pub(super) async fn seed(settings: &Settings, slots: u32) -> anyhow::Result<Exit> {
    let place = Place::of(settings)?;
    place.check_whole()?;
    let _lock = place.lock()?;
    let databases = Databases::open_existing(&place).await?;
    let created =
        clinic::seed::seed(&databases.clinic, slots, databases.clinic.now()).await.context("seeding slots")?;
    databases.close().await;
    output::note(&format!("{created} of {slots} slots were new"));
    Ok(Exit::Done)
}

/// Adds up what all owners hold. Reads only, so it may run beside a server.
pub(super) async fn audit(settings: &Settings, saga: Option<Uuid>, format: Format) -> anyhow::Result<Exit> {
    let databases = Databases::open_existing(&Place::of(settings)?).await?;
    let report = audit::run(&databases, saga).await?;
    databases.close().await;
    match format {
        Format::Json => output::json(&json!(report)),
        Format::Table => {
            for finding in &report.findings {
                output::line(&format!("{}  {}  {}", finding.rule, finding.subject, finding.detail));
            }
            if report.dead_letters > 0 {
                output::note(&format!("{} dead letters wait: bookend dead-letters list", report.dead_letters));
            }
            if report.forgotten > 0 {
                output::note(&format!("{} payments are of sagas that were deleted after their end", report.forgotten));
            }
            output::note(&format!("{} sagas looked at, {} findings", report.sagas, report.findings.len()));
        }
    }
    Ok(if report.findings.is_empty() { Exit::Done } else { Exit::Failed })
}

pub(super) async fn providers(settings: &Settings) -> anyhow::Result<Exit> {
    init_log(settings)?;
    let tasks = Tasks::new();
    let options = providers::Options { slow_ms: settings.providers.slow_ms, ..providers::Options::default() };
    let providers = providers::Providers::new(options, Arc::new(SystemClock), tasks.clone());
    let listener = TcpListener::bind(settings.providers.listen).await.context("the simulators can't listen")?;
    output::line(&format!("simulators of gateway, SMS and mail on http://{}", listener.local_addr()?));
    process::serve(listener, runtime::http::edge(providers::router(providers)), &tasks);
    let asked = until_asked_to_stop(&tasks).await?;
    tasks.shutdown(settings.shutdown_deadline()).await;
    Ok(asked)
}
