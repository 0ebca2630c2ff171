//! What is accepted, what is refused, and which source wins.

use std::collections::BTreeSet;

use super::*;

fn read(environment: &[(&str, &str)], flags: Flags) -> anyhow::Result<Settings> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::from_sources(None, environment, flags)
}

#[test]
fn the_manual_is_complete_and_fits() {
    let settings = read(&[], Vec::new()).unwrap();
    assert_eq!(settings.api.listen.port(), 7878);
    assert_eq!(settings.engine.workers, orchestrator::Options::default().workers);
}

#[test]
fn flags_beat_the_environment_which_beats_the_defaults() {
    let environment = [("BOOKEND_ENGINE__WORKERS", "7"), ("BOOKEND_SERVER", "ignored"), ("OTHER__KEY", "x")];
    assert_eq!(read(&environment, Vec::new()).unwrap().engine.workers, 7);
    let flags = vec![("engine.workers", config::Value::from(9_i64))];
    assert_eq!(read(&environment, flags).unwrap().engine.workers, 9);
}

#[test]
fn a_file_beats_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bookend.toml");
    std::fs::write(&path, "[log]\nfilter = \"debug\"\n").unwrap();
    assert_eq!(Settings::from_sources(Some(&path), [], Vec::new()).unwrap().log.filter, "debug");
}

fn refusal(key: &'static str, value: impl Into<config::Value>) -> String {
    let value = value.into();
    match read(&[], vec![(key, value.clone())]) {
        Ok(_) => panic!("{key} = {value} is accepted"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_number_works_from_its_least_to_its_most_and_no_further() {
    let numbers = read(&[], Vec::new()).unwrap().numbers();
    for Number { key, min, max, .. } in numbers {
        for accepted in [min, max] {
            assert!(read(&[], vec![(key, accepted.into())]).is_ok(), "{key} = {accepted}");
        }
        let above = refusal(key, max + 1);
        assert!(above.contains(&format!("{key} is {}; accepted is {min} to {max}", max + 1)), "{above}");
        if min > 0 {
            let zero = refusal(key, 0_u64);
            assert!(zero.contains(&format!("{key} is 0; accepted is {min} to {max}")), "{zero}");
        }
    }
}

#[test]
fn a_lease_outlasts_a_silent_database_and_sagas_outlast_a_lease() {
    let settings = read(&[], Vec::new()).unwrap();
    let external = participant_kit::ExternalOptions::default();
    let sweep_ms = u64::try_from(external.sweep_every.as_millis()).unwrap();
    let (lease_ms, budget) = (settings.participants.lease_ms, saga_defs::Retry::default());
    assert_eq!(u128::from(lease_ms), external.lease.as_millis());
    // A statement is given up after twice its time; then a connection is made.
    let silence_ms = 2 * settings.database.statement_timeout_ms + 3_000 + 2 * sweep_ms;
    assert!(lease_ms * 2 / 3 > silence_ms, "renewed in spite of {silence_ms} ms of silence");
    // The last `retry` uses up the budget. What is then to be called for waits in line, too.
    let patience_ms = u64::from(budget.attempts - 1) * participant_kit::inbox::OPEN_RETRY_MS;
    assert!(patience_ms >= lease_ms + 10_000, "a saga waits for {patience_ms} ms");
    assert!(LEASE_MIN_MS > 2 * sweep_ms);
    let short = refusal("participants.lease_ms", LEASE_MIN_MS - 1);
    assert!(short.contains("participants.lease_ms is 1499; accepted is 1500 to"), "{short}");
}

/// A key that is added without a range would be accepted whatever it says.
#[test]
fn every_number_of_the_manual_has_a_range() {
    let manual = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build().unwrap();
    let sections: Map<String, Map<String, config::Value>> = manual.try_deserialize().unwrap();
    let mut documented: Vec<String> = Vec::new();
    for (section, keys) in sections {
        let numbers = keys.iter().filter(|(_, value)| matches!(value.kind, config::ValueKind::I64(_)));
        documented.extend(numbers.map(|(key, _)| format!("{section}.{key}")));
    }
    let mut checked: Vec<String> =
        read(&[], Vec::new()).unwrap().numbers().iter().map(|number| number.key.to_owned()).collect();
    documented.sort();
    checked.sort();
    assert_eq!(documented, checked);
}

#[test]
fn an_address_that_can_not_be_called_is_refused() {
    let bad = [
        "notaurl",
        "https://gateway.example",
        "localhost:7890",
        "ftp://host",
        "http://",
        "http:///path",
        "http:host",
        "http://h?a=b",
    ];
    for key in ["payment.gateway_url", "notify.sms_url", "notify.mail_url"] {
        for url in bad {
            let refused = refusal(key, url);
            assert!(refused.contains(key) && refused.contains(url) && refused.contains("http://"), "{refused}");
        }
        for url in ["", "http://127.0.0.1:7890", "http://gateway.example/base/", "http://[::1]:1"] {
            assert!(read(&[], vec![(key, url.into())]).is_ok(), "{key} = {url}");
        }
    }
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let flags = vec![("engine.queue", 0_u64.into()), ("payment.gateway_url", "notaurl".into())];
    let refused = format!("{:#}", read(&[], flags).unwrap_err());
    assert!(refused.contains("engine.queue") && refused.contains("payment.gateway_url"), "{refused}");
}

#[test]
fn a_file_with_the_reference_of_another_definition_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = saga_defs::catalog::booking();
    let path = dir.path().join("booking.json");
    let flags = || vec![("definitions.dir", config::Value::from(dir.path().display().to_string()))];
    std::fs::write(&path, serde_json::to_string(&other).unwrap()).unwrap();
    assert_eq!(read(&[], flags()).unwrap().catalog().unwrap().iter().count(), 1, "equal content is fine");
    other.description = "Something else under the same name.".to_owned();
    std::fs::write(&path, serde_json::to_string(&other).unwrap()).unwrap();
    let refused = format!("{:#}", read(&[], flags()).unwrap().catalog().unwrap_err());
    assert!(refused.contains("booking.json") && refused.contains("booking@1"), "{refused}");
}

#[test]
fn a_typing_mistake_is_an_error() {
    let mistaken = read(&[("BOOKEND_ENGINE__WORKRES", "7")], Vec::new()).unwrap_err();
    assert!(format!("{mistaken:#}").contains("workres"), "{mistaken:#}");
}

#[test]
fn tables_of_participants_stand_beside_keys() {
    let settings = read(&[], Vec::new()).unwrap();
    let ours = ["booking", "confirmation", "notify", "payment"].map(str::to_owned);
    assert_eq!((settings.told_of_ended(), settings.one_at_a_time()), (ours.into(), BTreeSet::new()));
    let environment = [
        ("BOOKEND_PARTICIPANTS__PREFETCH", "7"),
        ("BOOKEND_PARTICIPANTS__PAYMENT__ENDED", "false"),
        ("BOOKEND_PARTICIPANTS__TILL__BATCH", "false"),
    ];
    let settings = read(&environment, Vec::new()).unwrap();
    assert_eq!(settings.participants.prefetch, 7);
    let told = ["booking", "confirmation", "notify", "till"].map(str::to_owned);
    assert_eq!(
        (settings.told_of_ended(), settings.one_at_a_time()),
        (told.into(), BTreeSet::from(["till".to_owned()]))
    );
}

#[test]
fn a_typing_mistake_beside_or_in_a_table_of_a_participant_is_an_error() {
    let flat = refusal("participants.prefech", 7_i64);
    assert!(flat.contains("unknown key `participants.prefech`"), "{flat}");
    let nested = refusal("participants.payment.endet", true);
    assert!(nested.contains("participants.payment: unknown field `endet`"), "{nested}");
    let kind = refusal("participants.payment.ended", "perhaps");
    assert!(kind.contains("participants.payment"), "{kind}");
}

#[test]
fn start_keys_are_kept_at_least_as_long_as_sagas() {
    let set = |after: i64, keys: i64| {
        read(&[], vec![("retention.after_ms", after.into()), ("retention.keys_after_ms", keys.into())])
    };
    assert!(read(&[], Vec::new()).unwrap().retention().unwrap().is_none(), "nothing is deleted unless it is asked for");
    let kept = set(1_000, 0).unwrap().retention().unwrap().unwrap();
    assert_eq!((kept.after_ms, kept.keys_after_ms, kept.told.len()), (1_000, None, 4));
    assert_eq!(set(1_000, 1_000).unwrap().retention().unwrap().unwrap().keys_after_ms, Some(1_000));
    let short = format!("{:#}", set(1_000, 999).unwrap_err());
    assert!(short.contains("retention.keys_after_ms is 999"), "{short}");
}
