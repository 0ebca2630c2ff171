//! The read-only routes of the owners' data, described beside the sagas that change it.
//!
//! Not for serving them: their owners do. Described by hand, because no orchestrator crate knows a participant.

use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterIn, Paths, PathsBuilder};
use utoipa::openapi::schema::{Array, Schema, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, KnownFormat, ObjectBuilder, PathItem, Required, ResponseBuilder};
use utoipa::{IntoResponses, openapi::RefOr};

use super::shared::{Invalid, parameter, problem, responses, text, uuid};

/// A route that lists what an owner holds.
struct List {
    path: &'static str,
    operation_id: &'static str,
    summary: &'static str,
    admins_only: bool,
    parameters: Vec<Parameter>,
    item: ObjectBuilder,
}

pub(super) fn paths() -> Paths {
    let lists = [slots(), appointments(), payments(), notices()];
    lists.into_iter().fold(PathsBuilder::new(), |paths, list| paths.path(list.path, described(list))).build()
}

fn slots() -> List {
    let status = || text().enum_values(Some(["free", "held", "booked"]));
    List {
        path: "/v1/clinic/slots",
        operation_id: "list_slots",
        summary: "List slots",
        admins_only: false,
        parameters: vec![
            query("doctor_id", "Only of this doctor.", uuid()),
            query("from", "Only those that start then or later.", instant()),
            query("to", "Only those that start before.", instant()),
            query("status", "Only in this status.", status()),
        ],
        item: ObjectBuilder::new()
            .property("id", uuid())
            .property("doctor_id", uuid())
            .property("starts_at", instant())
            .property("ends_at", instant())
            .property("price", money())
            .property("status", status()),
    }
}

fn appointments() -> List {
    List {
        path: "/v1/clinic/appointments",
        operation_id: "list_appointments",
        summary: "List appointments",
        admins_only: true,
        parameters: vec![
            query("slot_id", "Only of this slot.", uuid()),
            query("saga_id", "Only of this saga.", uuid()),
        ],
        item: ObjectBuilder::new()
            .property("id", uuid())
            .property("slot_id", uuid())
            .property("saga_id", uuid())
            .property("status", text())
            .property("created_at", instant())
            .property("updated_at", instant()),
    }
}

fn payments() -> List {
    let entry = |provider_ref: &str| {
        ObjectBuilder::new()
            .property("key", uuid())
            .property(provider_ref, text())
            .property("amount", money())
            .property("created_at", instant())
    };
    List {
        path: "/v1/payments",
        operation_id: "list_payments",
        summary: "List charges and refunds by saga",
        admins_only: true,
        parameters: vec![query("saga_id", "Only of this saga.", uuid())],
        item: ObjectBuilder::new()
            .property("saga_id", uuid())
            .property("charges", Array::new(entry("charge_id")))
            .property("refunds", Array::new(entry("refund_id")))
            .property("net", money()),
    }
}

fn notices() -> List {
    List {
        path: "/v1/notices",
        operation_id: "list_notices",
        summary: "List notices that went out",
        admins_only: true,
        parameters: vec![query("saga_id", "Only of this saga.", uuid())],
        item: ObjectBuilder::new()
            .property("key", uuid())
            .property("saga_id", uuid())
            .property("appointment_id", uuid())
            .property("channel", text())
            .property("provider_ref", text())
            .property("created_at", instant()),
    }
}

fn described(list: List) -> PathItem {
    let page = ObjectBuilder::new()
        .property("data", Array::new(list.item))
        .property("has_more", ObjectBuilder::new().schema_type(Type::Boolean))
        .property("next_cursor", text())
        .required("data")
        .required("has_more");
    let content = ContentBuilder::new().schema(Some(RefOr::T(Schema::Object(page.build())))).build();
    let found = ResponseBuilder::new().description("A page.").content("application/json", content).build();
    let mut answers = responses([("200", found)]);
    answers.append(&mut Invalid::responses());
    if list.admins_only {
        answers.append(&mut responses([("403", problem("`forbidden`: for admins only.").build())]));
    }
    let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(200));
    let paging =
        [query("limit", "Items of the page.", limit), query("cursor", "`next_cursor` of the page before.", text())];
    let mut operation =
        OperationBuilder::new().tag("owners").summary(Some(list.summary)).operation_id(Some(list.operation_id));
    for parameter in list.parameters.into_iter().chain(paging) {
        operation = operation.parameter(parameter);
    }
    for (status, answer) in answers {
        operation = operation.response(status, answer);
    }
    PathItem::new(HttpMethod::Get, operation)
}

fn query(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    parameter(name, ParameterIn::Query, Required::False, description, schema)
}

fn instant() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

fn money() -> ObjectBuilder {
    ObjectBuilder::new()
        .property("amount_minor", ObjectBuilder::new().schema_type(Type::Integer))
        .property("currency", text())
}
