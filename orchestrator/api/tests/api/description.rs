//! The API's description: committed, served, and true.

use std::path::Path;

use crate::common::{CHIEF, Desk, GOOD};
use axum::http::Method;
use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(saga_api::openapi()).expect("JSON")
}

#[test]
fn the_committed_description_is_that_of_this_build() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "the API has changed. See what clients will notice, then renew {} with\n  \
         UPDATE_OPENAPI=1 cargo test -p saga-api --test api",
        path.display()
    );
}

/// Path and method of every operation that this crate serves.
fn operations(document: &Value) -> Vec<(String, Method, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().expect("an item").clone();
        let path = path.clone();
        item.into_iter().map(move |(method, operation)| {
            (path.clone(), Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method"), operation)
        })
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test(start_paused = true)]
async fn a_parameter_that_is_not_described_is_refused_everywhere() {
    let desk = Desk::new().await;
    let id = desk.start("k", GOOD).await.id();
    for (path, method, _) in operations(&document()).iter().filter(|(_, _, about)| about["tags"][0] != "owners") {
        let asked = path.replace("{id}", &id).replace("{reference}", "booking");
        let answer = desk.ask(method.clone(), &format!("{asked}?colour=red"), CHIEF, &[], None).await;
        assert_eq!(answer.problem(), (400, "bad_parameter"), "{method} {path}");
        assert_eq!(answer.body["parameter"], "colour", "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_described_route_is_served_and_asks_for_a_token() {
    let desk = Desk::new().await;
    let operations = operations(&document());
    let ours: Vec<_> = operations.iter().filter(|(_, _, operation)| operation["tags"][0] != "owners").collect();
    assert_eq!((ours.len(), operations.len()), (15, 19));
    for (path, method, _) in ours {
        let asked = path.replace("{id}", "0190f5fe-7c00-7a00-8000-000000000001").replace("{reference}", "booking");
        let answer = desk.ask(method.clone(), &asked, "", &[], None).await;
        assert_eq!(answer.problem(), (401, "unauthorized"), "{method} {path}");
    }
}

#[test]
fn every_operation_says_who_may_ask_and_how_it_fails() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    assert!(document["security"][0].get("token").is_some());
    let mut ids = std::collections::BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        for status in ["401", "500", "503"] {
            let content = &operation["responses"][status]["content"]["application/problem+json"];
            assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
        }
        assert!(
            ids.insert(operation["operationId"].to_string()),
            "two operations are called {}",
            operation["operationId"]
        );
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    references += 1;
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    assert!(references > 20, "the walk found {references}");
}

#[tokio::test(start_paused = true)]
async fn the_description_is_served_to_programs_and_people_without_a_token() {
    let desk = Desk::new().await;
    let served = desk.get("/openapi.json", "").await;
    assert_eq!((served.status.as_u16(), &served.body), (200, &document()));
    assert_eq!(desk.get("/docs", "").await.status, 303);
    for file in ["", "swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert_eq!(desk.get(&format!("/docs/{file}"), "").await.status, 200, "{file}");
    }
}
