//! `GET /v1/clinic/slots` for everybody with a token, `GET /v1/clinic/appointments` for admins.
//!
//! Not for booking: that is a saga. Must hold: no answer names a patient.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use db::Db;
use runtime::clock::{parse_rfc3339, rfc3339};
use runtime::http::{Cursor, Page, Principal, Problem, Query, limit};
use saga_defs::Timestamp;
use saga_defs::contract::Money;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::query::{self, Appointment, AppointmentFilter, SlotFilter, SlotPlace};
use crate::{Error, appointments, slots};

/// Items of a page when nothing is said.
const LIMIT_DEFAULT: u32 = 50;
/// Most items of a page.
const LIMIT_MAX: u32 = 200;

/// The routes of the clinic.
pub fn router(db: Db) -> Router {
    Router::new()
        .route("/v1/clinic/slots", get(list_slots))
        .route("/v1/clinic/appointments", get(list_appointments))
        .with_state(db)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotsAsked {
    doctor_id: Option<Uuid>,
    from: Option<String>,
    to: Option<String>,
    status: Option<slots::Status>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppointmentsAsked {
    slot_id: Option<Uuid>,
    saga_id: Option<Uuid>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct SlotView {
    id: Uuid,
    doctor_id: Uuid,
    starts_at: String,
    ends_at: String,
    price: Money,
    status: slots::Status,
}

#[derive(Serialize)]
struct AppointmentView {
    id: Uuid,
    slot_id: Uuid,
    saga_id: Uuid,
    status: appointments::Status,
    created_at: String,
    updated_at: String,
}

impl From<slots::Model> for SlotView {
    fn from(slot: slots::Model) -> Self {
        Self {
            id: slot.id,
            doctor_id: slot.doctor_id,
            starts_at: rfc3339(Timestamp(slot.starts_at)),
            ends_at: rfc3339(Timestamp(slot.ends_at)),
            price: Money { amount_minor: slot.price_minor, currency: slot.currency },
            status: slot.status,
        }
    }
}

impl From<Appointment> for AppointmentView {
    fn from(appointment: Appointment) -> Self {
        Self {
            id: appointment.id,
            slot_id: appointment.slot_id,
            saga_id: appointment.saga_id,
            status: appointment.status,
            created_at: rfc3339(Timestamp(appointment.created_at)),
            updated_at: rfc3339(Timestamp(appointment.updated_at)),
        }
    }
}

async fn list_slots(
    State(db): State<Db>,
    _principal: Principal,
    Query(asked): Query<SlotsAsked>,
) -> Result<Json<Page<SlotView>>, Problem> {
    let max = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = asked.cursor.as_deref().map(Cursor::decode::<SlotPlace>).transpose()?;
    let filter = SlotFilter {
        doctor_id: asked.doctor_id,
        from: instant("from", asked.from.as_deref())?,
        to: instant("to", asked.to.as_deref())?,
        status: asked.status,
    };
    let found = query::slots(&db, &filter, after, max + 1).await.map_err(problem)?;
    let page = Page::of(found, max, |slot| SlotPlace { starts_at: Timestamp(slot.starts_at), id: slot.id });
    Ok(Json(view(page)))
}

async fn list_appointments(
    State(db): State<Db>,
    principal: Principal,
    Query(asked): Query<AppointmentsAsked>,
) -> Result<Json<Page<AppointmentView>>, Problem> {
    principal.require_admin()?;
    let max = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = asked.cursor.as_deref().map(Cursor::decode::<Uuid>).transpose()?;
    let filter = AppointmentFilter { slot_id: asked.slot_id, saga_id: asked.saga_id };
    let found = query::appointments(&db, &filter, after, max + 1).await.map_err(problem)?;
    Ok(Json(view(Page::of(found, max, |appointment| appointment.id))))
}

fn view<T, V: From<T>>(page: Page<T>) -> Page<V> {
    let data = page.data.into_iter().map(V::from).collect();
    Page { data, has_more: page.has_more, next_cursor: page.next_cursor }
}

fn instant(name: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let detail = format!("Send `{name}` as an RFC 3339 instant, such as 2026-11-21T09:30:00Z.");
    parse_rfc3339(text).map(Some).ok_or_else(|| Problem::bad_request("bad_parameter", detail))
}

fn problem(error: Error) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the clinic's data could not be read");
    match error {
        Error::Db(cause) if cause.is_transient() => {
            Problem::unavailable("The clinic's data is busy. Ask again in a moment.")
        }
        Error::Db(_) => Problem::internal(),
    }
}
