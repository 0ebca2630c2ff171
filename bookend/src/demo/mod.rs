//! `bookend demo`: three stories with real sagas, told as they happen.
//!
//! Must hold: the demo asks over HTTP like any client, and checks what it tells: a story that does not end as told
//! makes `demo --exit` fail.

pub mod narrator;

mod stories;

mod teller;

use anyhow::Context;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::dev::{ADMIN_TOKEN, CLIENT_TOKEN, House, finish, start};
use crate::process::{bind, init_log, until_asked_to_stop};
use crate::settings::Settings;

use teller::Teller;

/// Plays the stories; then ends, or keeps serving.
///
/// # Errors
/// When the stack can't be started.
pub async fn run(settings: &Settings, exit: bool) -> anyhow::Result<Exit> {
    init_log(&quieter(settings))?;
    let house = House::open(settings)?;
    let listener = bind(settings.api.listen, true).await?;
    let running = start(settings, &house, listener, None).await?;
    let url = &running.url;
    output::line(&format!(
        "bookend {} demo  SQLite in a temporary folder, in-process transport; NOT FOR PRODUCTION",
        env!("CARGO_PKG_VERSION")
    ));
    output::line(&format!("api {url}   docs {url}/docs\n"));
    let teller = Teller::new(url)?;
    let notify = running.stack.hosted.notify.as_ref().context("the notices are not hosted here")?;
    let told = tell(&teller, notify).await;
    if exit {
        finish(running, settings.shutdown_deadline()).await;
        return Ok(told);
    }
    output::line(&invitation(url));
    let asked = until_asked_to_stop(&running.stack.tasks).await?;
    finish(running, settings.shutdown_deadline()).await;
    Ok(if asked == Exit::Done { told } else { asked })
}

/// The stories tell of trouble themselves: warnings beside them only confuse, unless they were asked for.
fn quieter(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if settings.log.filter.starts_with("warn") {
        "error".clone_into(&mut settings.log.filter);
    }
    settings
}

/// Plays all stories, whatever became of the ones before.
async fn tell(teller: &Teller, notify: &notify::Notify) -> Exit {
    let mut exit = Exit::Done;
    let endings = [
        stories::a_booking_that_works(teller).await,
        stories::a_card_that_is_refused(teller).await,
        stories::an_sms_provider_that_is_down(teller, notify).await,
    ];
    for (number, ending) in (1..).zip(endings) {
        if let Err(error) = ending {
            output::error(&format!("story {number} did not end as told: {error:#}"));
            exit = Exit::Failed;
        }
    }
    exit
}

fn invitation(url: &str) -> String {
    format!(
        "now it is your turn; tokens are `{CLIENT_TOKEN}` and `{ADMIN_TOKEN}`. Try:\n\n  \
         curl -s '{url}/v1/clinic/slots?status=free&limit=3' -H 'Authorization: Bearer {CLIENT_TOKEN}'\n  \
         curl -si {url}/v1/sagas -H 'Authorization: Bearer {CLIENT_TOKEN}' \\\n    \
         -H 'Idempotency-Key: my-first' -H 'Prefer: wait=5' -H 'Content-Type: application/json' \\\n    \
         -d '{{\"definition\":\"booking\",\"input\":{{\"slot_id\":\"SLOT\",\"patient\":{{\"name\":\"Ada\",\
         \"phone\":\"+15005550006\",\"email\":\"ada@example.org\"}},\"payment_method\":\"tok_visa\"}}}}'\n  \
         bookend sagas list --server {url}\n\nCtrl-C ends it."
    )
}
