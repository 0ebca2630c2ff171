//! Starting, reading, waiting and listing, over HTTP as clients do it.

use crate::common::{Answer, CHIEF, DECLINED, DESK, Desk, GOOD, MUTE, OTHER, SILENT, body, input, reason};
use axum::http::Method;
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn a_start_has_three_answers() {
    let desk = Desk::new().await;
    let new = desk.start("one", GOOD).await;
    assert_eq!(new.status, 201, "{new:?}");
    let id = new.id();
    assert_eq!(new.header("location"), format!("/v1/sagas/{id}"));
    assert_eq!(new.header("etag"), format!("\"{}\"", new.body["version"]));
    assert_eq!(new.header("idempotent-replayed"), "");
    desk.until(&id, "completed").await;

    let same = desk.start("\"one\"", GOOD).await;
    assert_eq!((same.status.as_u16(), same.header("idempotent-replayed")), (200, "true"));
    assert_eq!((same.id(), &same.body["status"]), (id.clone(), &json!("completed")), "the saga as it is now");
    assert_eq!(same.header("location"), format!("/v1/sagas/{id}"));
    assert_eq!(same.header("etag"), format!("\"{}\"", same.body["version"]));

    assert_eq!(desk.start("one", DECLINED).await.problem(), (422, "idempotency_key_reused"));
}

#[tokio::test(start_paused = true)]
async fn a_key_belongs_to_its_principal() {
    let desk = Desk::new().await;
    let first = desk.start("one", GOOD).await;
    let headers = [("idempotency-key", "one")];
    let second = desk.ask(Method::POST, "/v1/sagas", OTHER, &headers, Some(&body(DECLINED))).await;
    assert_eq!(second.status, 201);
    assert_ne!(first.id(), second.id());
}

#[tokio::test(start_paused = true)]
async fn a_bad_start_starts_nothing_and_repeats_no_value() {
    let desk = Desk::new().await;
    let keyless = desk.ask(Method::POST, "/v1/sagas", DESK, &[], Some(&body(GOOD))).await;
    assert_eq!(keyless.problem(), (400, "idempotency_key_missing"));
    assert!(keyless.body["detail"].as_str().unwrap().contains("`Idempotency-Key: "), "holds the header to paste");
    assert_eq!(desk.start("a b", GOOD).await.problem(), (400, "idempotency_key_invalid"));

    let mut wrong_input = body(GOOD);
    wrong_input["input"]["patient"]["phone"] = json!("call me at home");
    let answer = desk.start_with("k", &wrong_input, &[]).await;
    assert_eq!(answer.problem(), (422, "invalid_input"));
    assert_eq!(answer.body["errors"][0]["pointer"], "/input/patient/phone");
    assert!(!answer.body.to_string().contains("at home"));

    let mut unknown_member = body(GOOD);
    unknown_member["colour"] = json!("secret");
    let mut nul = body(GOOD);
    nul["key"] = json!("a\0b");
    let mut reserved = body(GOOD);
    reserved["input"]["patient"]["$serde_json::private::RawValue"] = json!("{}");
    let mut long_key = body(GOOD);
    long_key["key"] = json!("x".repeat(256));
    let mut empty_key = body(GOOD);
    empty_key["key"] = json!("");
    let mut huge = body(GOOD);
    huge["input"]["payment_method"] = json!("x".repeat(256 * 1024));
    let unknown = |name: &str| json!({"definition": name, "input": input(GOOD)});
    let cases: [(Value, (u16, &str)); 10] = [
        (unknown("nothing"), (422, "unknown_definition")),
        (unknown("booking@9"), (422, "unknown_definition")),
        (unknown(&"x".repeat(200)), (422, "unknown_definition")),
        (json!({"definition": "booking"}), (422, "invalid_body")),
        (unknown_member, (422, "invalid_body")),
        (nul, (400, "nul_character")),
        (reserved, (400, "reserved_key")),
        (long_key, (422, "invalid_body")),
        (empty_key, (422, "invalid_body")),
        (huge, (413, "payload_too_large")),
    ];
    for (body, problem) in cases {
        let answer = desk.start_with("k", &body, &[]).await;
        assert_eq!(answer.problem(), problem);
        assert!(!answer.body.to_string().contains("secret"));
    }
    let headers = [("idempotency-key", "k")];
    assert_eq!(desk.ask(Method::POST, "/v1/sagas", DESK, &headers, None).await.problem().0, 415);
    assert_eq!(desk.ask(Method::POST, "/v1/sagas", "", &headers, Some(&body(GOOD))).await.problem().0, 401);
    assert_eq!(desk.get("/v1/sagas", DESK).await.body["data"], json!([]), "nothing was started");
}

#[tokio::test(start_paused = true)]
async fn a_business_key_in_use_names_its_saga_to_those_who_may_see_it() {
    let desk = Desk::new().await;
    let mut open = body(MUTE);
    open["key"] = json!("order-7");
    let first = desk.start_with("one", &open, &[]).await;
    assert_eq!(first.body["key"], "order-7");
    for (token, shown) in [(DESK, Value::from(first.id())), (CHIEF, Value::from(first.id())), (OTHER, Value::Null)] {
        let headers = [("idempotency-key", "two")];
        let answer = desk.ask(Method::POST, "/v1/sagas", token, &headers, Some(&open)).await;
        assert_eq!(answer.problem(), (409, "business_key_in_use"));
        assert_eq!(answer.body["saga_id"], shown);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_decision_and_the_status_code_does_not_speak_of_it() {
    let desk = Desk::new().await;
    for (payment_method, status, decision) in
        [(GOOD, "running", json!("committed")), (DECLINED, "compensated", json!("undone"))]
    {
        let answer = desk.start_with(payment_method, &body(payment_method), &[("prefer", "wait=20")]).await;
        assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (201, "wait=20"));
        assert_eq!(answer.header("retry-after"), "", "decided");
        assert_eq!(answer.body["decision"], decision);
        // The notice may be sent already when the answer is made.
        assert!(answer.body["status"] == status || answer.body["status"] == "completed", "{answer:?}");
    }
    let stuck = desk.stuck().await;
    let path = format!("/v1/sagas/{}", stuck.id());
    let waited = desk.ask(Method::GET, &path, DESK, &[("prefer", "wait=20")], None).await;
    assert_eq!((&waited.body["status"], waited.header("retry-after")), (&json!("stuck"), ""));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_over_says_when_to_ask_again() {
    let desk = Desk::new().await;
    let begun = tokio::time::Instant::now();
    let answer = desk.start_with("one", &body(SILENT), &[("prefer", "wait=2")]).await;
    assert_eq!(answer.status, 201);
    assert_eq!((answer.header("preference-applied"), answer.header("retry-after")), ("wait=2", "1"));
    assert_eq!((&answer.body["status"], &answer.body["decision"]), (&json!("running"), &Value::Null));
    assert_eq!((&answer.body["waiting"]["step"], &answer.body["waiting"]["for"]), (&json!("payment"), &json!("reply")));
    assert_eq!(begun.elapsed().as_secs(), 2);

    let path = format!("/v1/sagas/{}", answer.id());
    let clamped = desk.ask(Method::GET, &path, DESK, &[("prefer", "wait=3600")], None).await;
    assert_eq!(clamped.header("preference-applied"), "wait=60");
    assert!(begun.elapsed().as_secs() <= 63);
    let malformed = desk.ask(Method::GET, &path, DESK, &[("prefer", "wait=soon")], None).await;
    assert_eq!(malformed.problem(), (400, "bad_preference"));
    assert_eq!(desk.start_with("two", &body(GOOD), &[("prefer", "wait=x")]).await.problem(), (400, "bad_preference"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_wait_with_the_saga_as_it_is() {
    let desk = Desk::new().await;
    let id = desk.start("one", SILENT).await.id();
    let path = format!("/v1/sagas/{id}");
    let waiting = desk.ask(Method::GET, &path, DESK, &[("prefer", "wait=60")], None);
    let stopping = async {
        tokio::task::yield_now().await;
        desk.tasks.stop();
    };
    let begun = tokio::time::Instant::now();
    let (answer, ()) = tokio::join!(waiting, stopping);
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (200, "1"));
    assert!(begun.elapsed().as_secs() < 60);
    assert_eq!(desk.tasks.shutdown(std::time::Duration::from_secs(600)).await, 0);
    let late = desk.start("two", GOOD).await;
    assert_eq!((late.problem(), late.header("retry-after")), ((503, "stopping"), "1"));
    let headers = [("idempotency-key", "k"), ("if-match", "*")];
    let late = desk.operate(&id, "cancel", DESK, &headers, &reason()).await;
    assert_eq!((late.problem(), late.header("retry-after")), ((503, "stopping"), "1"));
}

#[tokio::test(start_paused = true)]
async fn a_saga_is_shown_whole() {
    let desk = Desk::new().await;
    let shown = desk.stuck().await.body;
    assert_eq!(shown["definition"], "booking@1");
    assert_eq!((&shown["principal"], &shown["decision"]), (&json!("desk"), &json!("committed")));
    let stuck = &shown["stuck"];
    assert_eq!(
        (&stuck["cause"], &stuck["step"], &stuck["verb"]),
        (&json!("attempts_exhausted"), &json!("notify"), &json!("execute"))
    );
    assert!(shown["created_at"].as_str().unwrap().starts_with("2023-11-14T22:13:20"));
    assert!(runtime::clock::parse_rfc3339(stuck["since"].as_str().unwrap()).is_some());
    for absent in ["failure", "cancel", "waiting", "deadline_at", "key"] {
        assert_eq!(shown.get(absent), Some(&Value::Null), "{absent}");
    }
    let steps = shown["steps"].as_array().unwrap();
    let column = |name: &str| steps.iter().map(|step| step[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("name"), ["booking", "payment", "confirmation", "notify"]);
    assert_eq!(column("kind"), ["compensatable", "compensatable", "pivot", "retriable"]);
    assert_eq!(column("status"), ["succeeded", "succeeded", "succeeded", "unknown"]);
    assert_eq!(column("holds_effect"), [json!(true), json!(true), json!(true), Value::Null]);
    assert_eq!(column("execute_attempts"), [1, 1, 1, 2]);
    let declined = desk.start_with("two", &body(DECLINED), &[("prefer", "wait=20")]).await.body;
    assert_eq!(
        (&declined["failure"]["step"], &declined["failure"]["code"]),
        (&json!("payment"), &json!("card_declined"))
    );
    assert_eq!(declined["steps"][1]["code"], "card_declined");
    assert!(!shown.to_string().contains("ada@"), "no personal data");
}

#[tokio::test(start_paused = true)]
async fn what_the_client_has_is_not_sent_again() {
    let desk = Desk::new().await;
    let shown = desk.stuck().await;
    let (path, etag) = (format!("/v1/sagas/{}", shown.id()), shown.header("etag").to_owned());
    let same = desk.ask(Method::GET, &path, DESK, &[("if-none-match", &etag)], None).await;
    assert_eq!((same.status.as_u16(), same.header("etag"), &same.body), (304, etag.as_str(), &Value::Null));
    let other = desk.ask(Method::GET, &path, DESK, &[("if-none-match", "\"1\"")], None).await;
    assert_eq!((other.status.as_u16(), other.header("etag")), (200, etag.as_str()));
}

#[tokio::test(start_paused = true)]
async fn anothers_saga_looks_like_none() {
    let desk = Desk::new().await;
    let id = desk.start("one", GOOD).await.id();
    let none = desk.get("/v1/sagas/0190f5fe-7c00-7a00-8000-000000000001", OTHER).await;
    assert_eq!(none.problem(), (404, "not_found"));
    for path in [format!("/v1/sagas/{id}"), "/v1/sagas/nonsense".to_owned(), "/v1/sagas/%FF".to_owned()] {
        let answer = desk.get(&path, OTHER).await;
        assert_eq!(answer.problem(), (404, "not_found"));
        assert_eq!(answer.body, none.body, "{path}");
        assert_eq!(desk.get(&format!("{path}/history"), OTHER).await.body, none.body);
    }
    let headers = [("idempotency-key", "k"), ("if-match", "*")];
    assert_eq!(desk.operate(&id, "cancel", OTHER, &headers, &reason()).await.body, none.body);
    assert_eq!(desk.get(&format!("/v1/sagas/{id}"), CHIEF).await.status, 200);
    assert_eq!(desk.get(&format!("/v1/sagas/{id}"), "").await.problem(), (401, "unauthorized"));
}

#[tokio::test(start_paused = true)]
async fn history_is_paged_and_exact() {
    let desk = Desk::new().await;
    let id = desk.start_with("one", &body(DECLINED), &[("prefer", "wait=20")]).await.id();
    let whole = desk.get(&format!("/v1/sagas/{id}/history?limit=200"), DESK).await;
    let rows = whole.body["data"].as_array().unwrap().clone();
    assert_eq!(whole.body["late_replies"], json!([]));
    assert_eq!((&rows[0]["actor"], &rows[0]["events"][0]["type"]), (&json!("client:desk"), &json!("started")));
    assert_eq!(rows[1]["actor"], "participant:booking");
    assert!(rows.len() > 3);

    let mut paged = Vec::new();
    let mut path = format!("/v1/sagas/{id}/history?limit=2");
    loop {
        let page = desk.get(&path, DESK).await;
        assert_eq!(page.body.get("late_replies").is_some(), paged.is_empty(), "on the first page only");
        paged.extend(page.body["data"].as_array().unwrap().clone());
        if page.body["has_more"] == false {
            assert_eq!(page.header("link"), "");
            break;
        }
        path = next(page.header("link"));
    }
    assert_eq!(paged, rows);
    assert_eq!(desk.get(&format!("/v1/sagas/{id}/history?limit=0"), DESK).await.problem(), (400, "bad_limit"));
    assert_eq!(desk.get(&format!("/v1/sagas/{id}/history?cursor=x"), DESK).await.problem(), (400, "bad_cursor"));
}

#[tokio::test(start_paused = true)]
async fn lists_are_newest_first_filtered_and_paged() {
    let desk = Desk::new().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        // Ids sort by time.
        tokio::time::advance(std::time::Duration::from_millis(5)).await;
        ids.insert(0, desk.start(&format!("k{n}"), if n == 2 { DECLINED } else { GOOD }).await.id());
    }
    for (n, id) in ids.iter().enumerate() {
        desk.until(id, if n == 2 { "compensated" } else { "completed" }).await;
    }
    let headers = [("idempotency-key", "k")];
    desk.ask(Method::POST, "/v1/sagas", OTHER, &headers, Some(&body(GOOD))).await;

    let mut paged = Vec::new();
    let mut path = "/v1/sagas?status=completed&definition=booking&limit=3".to_owned();
    loop {
        let page = desk.get(&path, DESK).await;
        assert_eq!(page.status, 200, "{page:?}");
        paged.extend(page.body["data"].as_array().unwrap().iter().map(|saga| saga["id"].as_str().unwrap().to_owned()));
        if page.body["has_more"] == false {
            break;
        }
        assert!(page.header("link").contains("status=completed"), "{}", page.header("link"));
        path = next(page.header("link"));
    }
    let completed: Vec<_> = ids.iter().enumerate().filter(|(n, _)| *n != 2).map(|(_, id)| id.clone()).collect();
    assert_eq!(paged, completed);
    let count = async |path: &str, token| desk.get(path, token).await.body["data"].as_array().unwrap().len();
    assert_eq!((count("/v1/sagas", DESK).await, count("/v1/sagas", CHIEF).await), (5, 6), "clients see their own");
    assert_eq!(count("/v1/sagas?definition=other", DESK).await, 0);
    assert_eq!(count("/v1/sagas?key=none", DESK).await, 0);
    for bad in ["status=parked", "colour=red", "definition=booking@1", "limit=201", "cursor=zz"] {
        assert_eq!(desk.get(&format!("/v1/sagas?{bad}"), DESK).await.problem().0, 400, "{bad}");
    }
    let long = format!("/v1/sagas?key={}", "x".repeat(256));
    assert_eq!(desk.get(&long, DESK).await.problem(), (400, "bad_parameter"));
}

#[tokio::test(start_paused = true)]
async fn a_list_says_what_holds_a_stuck_saga() {
    let desk = Desk::new().await;
    desk.stuck().await;
    let listed = desk.get("/v1/sagas?status=stuck", DESK).await.body;
    assert_eq!(listed["data"][0]["stuck"], json!({"cause": "attempts_exhausted", "step": "notify"}));
    let id = desk.start("good", GOOD).await.id();
    desk.until(&id, "completed").await;
    let listed = desk.get("/v1/sagas?status=completed", DESK).await.body;
    assert_eq!(listed["data"][0].get("stuck"), Some(&Value::Null));
}

#[tokio::test(start_paused = true)]
async fn definitions_are_listed_and_found_by_name_and_version() {
    let desk = Desk::new().await;
    let first = desk.get("/v1/definitions?limit=2", DESK).await;
    let ids =
        |page: &Answer| page.body["data"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ["booking@1", "booking@2"]);
    assert_eq!(ids(&desk.get(&next(first.header("link")), DESK).await), ["other@1"]);
    let newest = desk.get("/v1/definitions/booking", DESK).await;
    assert_eq!(newest.body["id"], "booking@2");
    assert_eq!(newest.body["definition"]["input"]["type"], "object");
    assert_eq!(newest.body["steps"][2]["kind"], "pivot");
    assert_eq!(desk.get("/v1/definitions/booking@1", DESK).await.body["version"], 1);
    for missing in ["none", "booking@7", "booking@x", "%FF"] {
        let answer = desk.get(&format!("/v1/definitions/{missing}"), DESK).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{missing}");
    }
    assert_eq!(desk.get("/v1/definitions", "").await.problem().0, 401);
}

/// The path in `<…>; rel="next"`.
fn next(link: &str) -> String {
    let path = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).expect("a link");
    path.to_owned()
}
