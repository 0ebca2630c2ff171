//! Two transactions on one slot, of a caller that locked nothing beforehand: the slot's own guards must do.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use clinic::appointments::{APPOINTMENT_CONFIRMED, appointment_id};
use clinic::seed::slot_id;
use clinic::{Asked, Held, Hold, audit, confirm, release, reserve, seed};
use db::{Transaction, Work};
use fixture::{Owned, Stack};
use saga_defs::contract::Patient;
use saga_defs::contract::booking::{Reserve, SLOT_TAKEN};
use saga_defs::{Outcome, Timestamp};
use sea_orm::DbErr;
use uuid::Uuid;

/// 2026-11-21T09:30:00Z.
const NOW: Timestamp = Timestamp(1_795_253_400_000_000);

fn hold(saga: u128) -> Hold {
    Hold { key: Uuid::from_u128(saga), saga_id: Uuid::from_u128(saga) }
}

fn asked() -> Reserve {
    let patient =
        Patient { name: "Ada".to_owned(), phone: "+15005550006".to_owned(), email: "ada@example.org".to_owned() };
    Reserve { slot_id: slot_id(0), patient }
}

/// Lets `work` run at a second instance while `first` is open, which commits when the second was seen waiting.
async fn second<W>(owned: &Owned, first: Transaction, work: W) -> Outcome
where
    W: for<'c> Fn(&'c Transaction) -> Work<'c, Outcome> + Send + Sync + 'static,
{
    let other = owned.instance("second").await;
    let seen = async {
        owned.blocked("second", "first").await;
        first.commit().await.unwrap();
    };
    tokio::join!(other.transaction(work), seen).0.unwrap()
}

async fn reserve_one(tx: &Transaction, saga: u128) -> Result<Outcome, DbErr> {
    Ok(reserve(tx, NOW, &[Asked { hold: hold(saga), reserve: &asked() }]).await?.remove(0))
}

async fn release_one(tx: &Transaction, saga: u128) -> Result<Outcome, DbErr> {
    Ok(release(tx, NOW, &[hold(saga).key]).await?.remove(0))
}

fn reserving(saga: u128) -> impl for<'c> Fn(&'c Transaction) -> Work<'c, Outcome> {
    move |tx| Box::pin(reserve_one(tx, saga))
}

/// A clinic with one slot.
async fn clinic() -> Owned {
    let owned = Owned::open::<migrations::Clinic>(Stack::Postgres).await;
    seed(&owned.db, 1, NOW).await.unwrap();
    owned
}

async fn assert_sound(owned: &Owned) {
    assert_eq!(audit::double_booked_slots(&owned.db, None, 10).await.unwrap(), Vec::<Uuid>::new());
    assert_eq!(audit::contradicting_slots(&owned.db, None, 10).await.unwrap(), Vec::<Uuid>::new());
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_reservation_that_waits_for_another_finds_the_slot_taken() {
    let owned = clinic().await;
    let first = owned.db.begin().await.unwrap();
    assert!(matches!(reserve_one(&first, 1).await.unwrap(), Outcome::Succeeded { .. }));
    let outcome = second(&owned, first, reserving(2)).await;
    assert!(matches!(&outcome, Outcome::Refused { code, .. } if code == SLOT_TAKEN), "{outcome:?}");
    assert_sound(&owned).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_reservation_that_waits_for_a_release_gets_the_slot() {
    let owned = clinic().await;
    owned.db.transaction(reserving(1)).await.unwrap();
    let first = owned.db.begin().await.unwrap();
    release(&first, NOW, &[hold(1).key]).await.unwrap();
    let outcome = second(&owned, first, reserving(2)).await;
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
    assert_sound(&owned).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_release_that_waits_for_a_confirmation_is_refused() {
    let owned = clinic().await;
    owned.db.transaction(reserving(1)).await.unwrap();
    let first = owned.db.begin().await.unwrap();
    let held = Held { appointment_id: appointment_id(hold(1).key), saga_id: hold(1).saga_id };
    confirm(&first, NOW, &[held]).await.unwrap();
    let outcome = second(&owned, first, |tx| Box::pin(release_one(tx, 1))).await;
    assert!(matches!(&outcome, Outcome::Refused { code, .. } if code == APPOINTMENT_CONFIRMED), "{outcome:?}");
    assert_sound(&owned).await;
}
