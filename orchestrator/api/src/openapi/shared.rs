//! Parameters and answers that several routes have in common, as they are described.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, Array, Schema, SchemaFormat, Type};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use crate::dead_letters::SummaryView;
use crate::operate::OperatedView;

type Responses = BTreeMap<String, RefOr<Response>>;

/// The schema of every error: RFC 9457.
pub(crate) struct ProblemDocument;

impl PartialSchema for ProblemDocument {
    fn schema() -> RefOr<Schema> {
        let error = ObjectBuilder::new().property("pointer", text()).property("detail", text());
        let document = ObjectBuilder::new()
            .description(Some("An error, RFC 9457. `code` never changes its meaning; `detail` says what to do."))
            .property("type", text())
            .property("title", text())
            .property("status", ObjectBuilder::new().schema_type(Type::Integer))
            .property("detail", text())
            .property("code", text())
            .property("errors", Array::new(error))
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .required("code")
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .examples([json!({
                "type": "/problems/precondition-failed", "title": "Precondition failed", "status": 412,
                "detail": "The saga has changed since you looked. Read it again, then decide again.",
                "code": "precondition_failed", "version": 8,
            })]);
        Schema::Object(document.build()).into()
    }
}

impl ToSchema for ProblemDocument {
    fn name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }
}

/// An answer that is a problem.
pub(super) fn problem(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemDocument::name()))).build();
    ResponseBuilder::new().description(description).content(runtime::http::problem::MEDIA_TYPE, content)
}

pub(super) fn responses<const N: usize>(all: [(&str, Response); N]) -> Responses {
    all.into_iter().map(|(status, response)| (status.to_owned(), response.into())).collect()
}

/// What every route may answer.
pub(super) fn always() -> Responses {
    let retry_after = header("Repeat the request after so many seconds.");
    responses([
        ("401", problem("`unauthorized`").build()),
        ("500", problem("`internal`; or `saga_unreadable`: a person has to mend what is stored of the saga.").build()),
        (
            "503",
            problem("`overloaded`, `stopping`, `unavailable`; or `outcome_unknown`: repeat with the same key.")
                .header("Retry-After", retry_after)
                .build(),
        ),
    ])
}

/// A header, parameter or query that can't be read.
pub(crate) struct Invalid;

impl IntoResponses for Invalid {
    fn responses() -> Responses {
        responses([("400", problem("A header, a parameter or the JSON can't be read; `code` says which.").build())])
    }
}

/// No such saga.
pub(crate) struct SagaMissing;

impl IntoResponses for SagaMissing {
    fn responses() -> Responses {
        responses([("404", problem("`not_found`: there is none, or it is another's.").build())])
    }
}

/// A body that is not taken.
pub(crate) struct BodyRefused;

impl IntoResponses for BodyRefused {
    fn responses() -> Responses {
        responses([
            ("408", problem("`request_timeout`: the body came too slowly.").build()),
            ("413", problem("`payload_too_large`").build()),
            ("415", problem("`unsupported_media_type`").build()),
        ])
    }
}

/// What a cancel may answer.
pub(crate) struct CancelAnswers;

impl IntoResponses for CancelAnswers {
    fn responses() -> Responses {
        let schema = Ref::from_schema_name(OperatedView::name());
        let accepted = ResponseBuilder::new()
            .description("The operation is applied, now or by an equal request before; the saga as it is now.")
            .header("ETag", header("The saga's version, quoted."))
            .header("Idempotent-Replayed", header("`true` when an equal request came before."))
            .content("application/json", ContentBuilder::new().schema(Some(schema)).build());
        let conflict = "`action_not_possible`: `reason` says why, `actions` lists what is possible.";
        let mut all = responses([
            ("202", accepted.build()),
            ("409", problem(conflict).build()),
            ("412", problem("`precondition_failed`: the saga is at `version`.").build()),
            ("422", problem("`idempotency_key_reused`, `invalid_body`").build()),
            ("428", problem("`precondition_required`: `If-Match` is missing.").build()),
        ]);
        for mut more in [Invalid::responses(), SagaMissing::responses(), BodyRefused::responses()] {
            all.append(&mut more);
        }
        all
    }
}

/// Not for clients.
pub(crate) struct AdminsOnly;

impl IntoResponses for AdminsOnly {
    fn responses() -> Responses {
        responses([("403", problem("`forbidden`: needs a token with the role `admin`.").build())])
    }
}

/// What an operation of admins may answer.
pub(crate) struct RepairAnswers;

impl IntoResponses for RepairAnswers {
    fn responses() -> Responses {
        let mut all = CancelAnswers::responses();
        all.append(&mut AdminsOnly::responses());
        all
    }
}

/// No such dead letter, or not for who asks.
pub(crate) struct LetterMissing;

impl IntoResponses for LetterMissing {
    fn responses() -> Responses {
        let mut all = AdminsOnly::responses();
        all.append(&mut responses([("404", problem("`not_found`: there is none.").build())]));
        all
    }
}

/// What settling a dead letter may answer.
pub(crate) struct LetterAnswers;

impl IntoResponses for LetterAnswers {
    fn responses() -> Responses {
        let schema = Ref::from_schema_name(SummaryView::name());
        let settled = ResponseBuilder::new()
            .description("It is settled, now or by an equal request before; the letter as it is now.")
            .header("Idempotent-Replayed", header("`true` when an equal request came before."))
            .content("application/json", ContentBuilder::new().schema(Some(schema)).build());
        let conflict = "`already_settled`: `state` says how. `dedupe_window_over`, `still_unreadable`, `still_failing`: \
                        it can't be sent again, and stays.";
        let mut all = responses([
            ("200", settled.build()),
            ("409", problem(conflict).build()),
            ("422", problem("`invalid_body`").build()),
        ]);
        for mut more in [Invalid::responses(), LetterMissing::responses(), BodyRefused::responses()] {
            all.append(&mut more);
        }
        all
    }
}

/// Parameters of a start.
pub(crate) struct StartParams;

impl IntoParams for StartParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![idempotency_key(), prefer()]
    }
}

/// Parameters of reading a saga.
pub(crate) struct ReadParams;

impl IntoParams for ReadParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let known = "The `ETag` that the client has: answers 304 if it still holds.";
        vec![saga_id(), parameter("If-None-Match", ParameterIn::Header, Required::False, known, text()), prefer()]
    }
}

/// Parameters of an operation.
pub(crate) struct OperationParams;

impl IntoParams for OperationParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let seen = "The `ETag` of the saga as it was looked at; `*` for a cancel, whatever it is.";
        let if_match = parameter("If-Match", ParameterIn::Header, Required::True, seen, text());
        vec![saga_id(), idempotency_key(), if_match]
    }
}

fn idempotency_key() -> Parameter {
    let schema = text().min_length(Some(1)).max_length(Some(255));
    let description = "Repeating a request with the same key repeats its answer. Visible ASCII.";
    parameter("Idempotency-Key", ParameterIn::Header, Required::True, description, schema)
}

fn prefer() -> Parameter {
    let schema = text().examples([json!("wait=20")]);
    let description = "`wait=N`: answer once the saga is decided or stuck, or after N seconds, at most 60.";
    parameter("Prefer", ParameterIn::Header, Required::False, description, schema)
}

fn saga_id() -> Parameter {
    parameter("id", ParameterIn::Path, Required::True, "The saga.", uuid())
}

pub(super) fn parameter(
    name: &str,
    place: ParameterIn,
    required: Required,
    description: &str,
    schema: ObjectBuilder,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn header(description: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new().schema(Some(text())).description(Some(description)).build()
}

pub(super) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub(super) fn uuid() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}
