//! What a try learns of SMS and mail, and whom the next one asks because of it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::Arc;

use notify::Notify;
use participant_kit::{Effect, External};
use runtime::Tasks;
use support::{PHONE, Script, again, channel, code, effect, noted};

/// Nothing went out: the provider is down.
const DOWN: u16 = 503;
/// It may have gone out.
const OPEN: u16 = 500;
/// The provider will never take this message.
const REFUSED: u16 = 400;
const TAKEN: u16 = 200;

struct World {
    script: Arc<Script>,
    notify: Notify,
    tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl World {
    async fn new() -> Self {
        let tasks = Tasks::new();
        let (script, notify) = Script::serve(&tasks).await;
        Self { script, notify, tasks }
    }

    /// A try that comes to nothing: what it noted, and whom it asked.
    async fn fails(&self, effect: &Effect, sms: u16, mail: u16) -> (Option<String>, Vec<String>) {
        self.script.say(sms, mail);
        let note = noted(&self.notify.execute(effect).await);
        (note, self.script.asked().0)
    }

    /// A try that tells the patient: by which channel, and whom it asked.
    async fn tells(&self, effect: &Effect, sms: u16, mail: u16) -> (String, Vec<String>) {
        self.script.say(sms, mail);
        let by = channel(&self.notify.execute(effect).await);
        (by, self.script.asked().0)
    }

    /// A try that both providers refuse: the code, and whom it asked.
    async fn refuses(&self, effect: &Effect) -> (String, Vec<String>) {
        self.script.say(REFUSED, REFUSED);
        let code = code(&self.notify.execute(effect).await);
        (code, self.script.asked().0)
    }
}

fn failed(note: &str, asked: &[&str]) -> (Option<String>, Vec<String>) {
    (Some(note.to_owned()), asked.iter().map(|&one| one.to_owned()).collect())
}

fn told(by: &str, asked: &[&str]) -> (String, Vec<String>) {
    (by.to_owned(), asked.iter().map(|&one| one.to_owned()).collect())
}

#[tokio::test]
async fn a_notice_that_both_providers_refuse_is_refused() {
    let world = World::new().await;
    assert_eq!(world.refuses(&effect(1, PHONE)).await, told("undeliverable", &["sms", "mail"]));
}

#[tokio::test]
async fn who_refused_is_not_asked_again_while_the_other_is_down() {
    let world = World::new().await;
    let first = effect(1, PHONE);
    assert_eq!(world.fails(&first, REFUSED, DOWN).await, failed("sms_refused", &["sms", "mail"]));
    let next = again("sms_refused");
    assert_eq!(world.fails(&next, TAKEN, DOWN).await, failed("sms_refused", &["mail"]));
    assert_eq!(world.tells(&next, TAKEN, TAKEN).await, told("mail", &["mail"]));
    assert_eq!(world.refuses(&next).await, told("undeliverable", &["mail"]));

    assert_eq!(world.fails(&first, DOWN, REFUSED).await, failed("mail_refused", &["sms", "mail"]));
    let next = again("mail_refused");
    assert_eq!(world.fails(&next, DOWN, TAKEN).await, failed("mail_refused", &["sms"]));
    assert_eq!(world.tells(&next, TAKEN, TAKEN).await, told("sms", &["sms"]));
    assert_eq!(world.refuses(&next).await, told("undeliverable", &["sms"]));
    assert_eq!(world.notify.switches_after_unknown(), 0);
}

#[tokio::test]
async fn a_mail_that_may_have_gone_out_is_sent_again_alone_and_under_its_key() {
    let world = World::new().await;
    world.script.say(DOWN, OPEN);
    let first = world.notify.execute(&effect(1, PHONE)).await;
    assert_eq!(noted(&first).as_deref(), Some("mail_unknown"));
    let (_, keys) = world.script.asked();

    let next = again("mail_unknown");
    assert_eq!(world.fails(&next, TAKEN, DOWN).await, failed("mail_unknown", &["mail"]), "not unsent again");
    world.script.say(TAKEN, TAKEN);
    assert_eq!(channel(&world.notify.execute(&next).await), "mail");
    let (asked, repeated) = world.script.asked();
    assert_eq!((asked, &repeated[0]), (vec!["mail".to_owned()], &keys[1]));
    assert_eq!(world.notify.switches_after_unknown(), 0, "no SMS went out");
}

#[tokio::test]
async fn an_sms_is_sent_after_all_when_the_unknown_mail_turns_out_refused() {
    let world = World::new().await;
    let next = again("mail_unknown");
    assert_eq!(world.fails(&next, TAKEN, REFUSED).await, failed("mail_refused", &["mail"]));
    assert_eq!(world.tells(&again("mail_refused"), TAKEN, TAKEN).await, told("sms", &["sms"]));
}

#[tokio::test]
async fn an_sms_that_may_have_gone_out_is_sent_again_under_its_key_only_when_mail_is_refused() {
    let world = World::new().await;
    world.script.say(OPEN, REFUSED);
    let first = world.notify.execute(&effect(1, PHONE)).await;
    assert_eq!(noted(&first).as_deref(), Some("sms_unknown mail_refused"));
    let (_, keys) = world.script.asked();

    let next = again("sms_unknown mail_refused");
    assert_eq!(world.fails(&next, DOWN, TAKEN).await, failed("sms_unknown mail_refused", &["sms"]));
    assert_eq!(world.refuses(&next).await, told("undeliverable", &["sms"]));
    world.script.say(TAKEN, TAKEN);
    assert_eq!(channel(&world.notify.execute(&next).await), "sms");
    let (asked, repeated) = world.script.asked();
    assert_eq!((asked, &repeated[0]), (vec!["sms".to_owned()], &keys[0]));
    assert_eq!(world.notify.switches_after_unknown(), 0, "no mail went out");
}

#[tokio::test]
async fn only_mails_after_an_unknown_sms_are_counted() {
    let world = World::new().await;
    let interrupted = |effect| Effect { interrupted: true, ..effect };
    // The run that ended had asked for the mail alone.
    let (by_mail, mail) = ("mail", ["mail"]);
    for effect in
        [interrupted(again("mail_unknown")), interrupted(again("sms_refused")), again("sms_refused mail_unknown")]
    {
        assert_eq!(world.tells(&effect, TAKEN, TAKEN).await, told(by_mail, &mail));
    }
    assert_eq!(world.notify.switches_after_unknown(), 0);
    for effect in [again("sms_unknown"), again("sms_unknown mail_unknown"), interrupted(effect(1, PHONE))] {
        assert_eq!(world.tells(&effect, TAKEN, TAKEN).await, told(by_mail, &mail));
    }
    assert_eq!(world.notify.switches_after_unknown(), 3);
}

#[tokio::test]
async fn only_a_status_that_speaks_of_the_message_refuses_it() {
    let world = World::new().await;
    for status in [400, 413, 422] {
        assert_eq!(world.fails(&effect(1, PHONE), status, DOWN).await.0.as_deref(), Some("sms_refused"), "{status}");
    }
    for status in [401, 402, 403, 404, 410, 425, 429, 503] {
        assert_eq!(world.fails(&effect(1, PHONE), status, status).await.0, None, "{status} is everybody's");
    }
    for status in [302, 408, 409, 500, 502, 504] {
        let note = world.fails(&effect(1, PHONE), status, status).await.0;
        assert_eq!(note.as_deref(), Some("sms_unknown mail_unknown"), "{status} leaves it open");
    }
}
