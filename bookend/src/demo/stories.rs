//! The three stories, each with what must be true at its end.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::teller::{Teller, Wish, short};
use crate::cli::output::{self, cell};

/// A phone that every simulator delivers to.
const PHONE: &str = "+15005550006";
/// A phone at which the simulated SMS provider is down.
const PHONE_DOWN: &str = "+15005550009";
/// Bookings that meet the provider while it is down: enough to open the breaker.
const BOOKINGS_DOWN: u32 = 6;
/// Bookings that are made while the breaker is open.
const BOOKINGS_MEANWHILE: u32 = 6;

pub(super) async fn a_booking_that_works(teller: &Teller) -> anyhow::Result<()> {
    output::line("story 1/3  a booking that works");
    let slot = one_slot(teller).await?;
    let id = teller.book(&slot, &Wish { phone: PHONE, payment_method: "tok_visa" }).await?;
    let saga = teller.follow(&id).await?;
    expect(&saga, "completed", "committed")?;
    let (paid, channel) = (teller.net_paid(&id).await?, teller.channel(&id).await?);
    let price = slot["price"]["amount_minor"].as_i64().context("the slot has a price")?;
    ensure!(paid == price, "{paid} was paid for a slot of {price}");
    ensure!(!teller.is_free(&slot).await?, "the slot is still free");
    output::line(&format!(
        "           the slot is booked, {} was paid, the patient was told by {channel}\n",
        money(paid)
    ));
    Ok(())
}

pub(super) async fn a_card_that_is_refused(teller: &Teller) -> anyhow::Result<()> {
    output::line("story 2/3  a card is refused after the slot was held");
    let slot = one_slot(teller).await?;
    let id = teller.book(&slot, &Wish { phone: PHONE, payment_method: "tok_declined" }).await?;
    let saga = teller.follow(&id).await?;
    expect(&saga, "compensated", "undone")?;
    let paid = teller.net_paid(&id).await?;
    ensure!(paid == 0, "{paid} was kept for a booking that failed");
    ensure!(teller.is_free(&slot).await?, "the slot is still held");
    output::line("           the slot is free again, nothing was charged\n");
    Ok(())
}

pub(super) async fn an_sms_provider_that_is_down(teller: &Teller, notify: &notify::Notify) -> anyhow::Result<()> {
    output::line("story 3/3  the SMS provider is down");
    output::line(&format!("           breaker sms: {}", breaker(notify)));
    book_many(teller, notify, BOOKINGS_DOWN, PHONE_DOWN).await?;
    ensure!(breaker(notify) == "open", "the breaker is {} after {BOOKINGS_DOWN} failures", breaker(notify));
    output::line("           the provider is not even asked any more; bookings go on:");
    book_many(teller, notify, BOOKINGS_MEANWHILE, PHONE).await?;
    let all = BOOKINGS_DOWN + BOOKINGS_MEANWHILE;
    output::line(&format!("           {all} bookings decided meanwhile, none undone because of SMS\n"));
    Ok(())
}

async fn book_many(teller: &Teller, notify: &notify::Notify, count: u32, phone: &'static str) -> anyhow::Result<()> {
    let mut before = breaker(notify);
    for slot in teller.free_slots(count).await? {
        let id = teller.book(&slot, &Wish { phone, payment_method: "tok_visa" }).await?;
        let saga = teller.outcome(&id).await?;
        expect(&saga, "completed", "committed")?;
        let channel = teller.channel(&id).await?;
        ensure!(channel == "mail", "the notice of saga {id} went out by {channel}");
        output::line(&format!("           {}  committed, no SMS, told by {channel}", short(&id)));
        let now = breaker(notify);
        if now != before {
            output::line(&format!("           breaker sms: {before} -> {now}"));
            before = now;
        }
    }
    Ok(())
}

async fn one_slot(teller: &Teller) -> anyhow::Result<Value> {
    teller.free_slots(1).await?.pop().context("a free slot")
}

fn expect(saga: &Value, status: &str, decision: &str) -> anyhow::Result<()> {
    let found = (cell(saga, "status"), cell(saga, "decision"));
    ensure!(
        found == (status.to_owned(), decision.to_owned()),
        "saga {} is {} / {}, not {status} / {decision}",
        cell(saga, "id"),
        found.0,
        found.1
    );
    Ok(())
}

fn breaker(notify: &notify::Notify) -> &'static str {
    notify.breaker_state().name()
}

fn money(minor: i64) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}
