//! The ladder of the owner `clinic`: inbox, slots, appointments.
//!
//! Must hold: the schema itself makes two active appointments on one slot impossible, whatever the code does.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, integer, pk_uuid, string, text_null, uuid, uuid_uniq};

use crate::inbox;

/// The ladder of the owner `clinic`.
#[derive(Debug)]
pub struct Clinic;

#[async_trait::async_trait]
impl MigratorTrait for Clinic {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(First),
            Box::new(inbox::Announcing("clinic_0002_announcing")),
            Box::new(inbox::Forgetting("clinic_0003_forgetting")),
        ]
    }
}

struct First;

impl MigrationName for First {
    fn name(&self) -> &str {
        "clinic_0001_first"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait elides it, and an impl must bind it alike")]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        inbox::up(manager).await?;
        manager.create_table(slots()).await?;
        for index in slot_indexes() {
            manager.create_index(index).await?;
        }
        manager.create_table(appointments()).await?;
        for index in appointment_indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

fn slots() -> TableCreateStatement {
    Table::create()
        .table("slots")
        .col(pk_uuid("id"))
        .col(uuid("doctor_id"))
        .col(big_integer("starts_at"))
        .col(big_integer("ends_at"))
        .col(big_integer("price_minor"))
        .col(string("currency"))
        .col(string("status"))
        // Every change of a slot is guarded by the version it was decided on.
        .col(integer("version"))
        .to_owned()
}

fn slot_indexes() -> [IndexCreateStatement; 2] {
    let by_time = Index::create().name("slots_starts_at").table("slots").col("starts_at").col("id").to_owned();
    let by_doctor = Index::create()
        .name("slots_doctor_id_starts_at")
        .table("slots")
        .col("doctor_id")
        .col("starts_at")
        .col("id")
        .to_owned();
    [by_time, by_doctor]
}

fn appointments() -> TableCreateStatement {
    Table::create()
        .table("appointments")
        .col(pk_uuid("id"))
        .col(uuid("slot_id"))
        .col(uuid("saga_id"))
        .col(uuid_uniq("key"))
        // Who is treated: wiped when the appointment is released.
        .col(text_null("patient_name"))
        .col(text_null("patient_phone"))
        .col(text_null("patient_email"))
        .col(string("status"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .foreign_key(ForeignKey::create().from("appointments", "slot_id").to("slots", "id"))
        .to_owned()
}

fn appointment_indexes() -> [IndexCreateStatement; 3] {
    let active = Index::create()
        .name("appointments_one_active_per_slot")
        .unique()
        .table("appointments")
        .col("slot_id")
        .and_where(Expr::col("status").is_in(["pending", "confirmed"]))
        .to_owned();
    let by_slot =
        Index::create().name("appointments_slot_id_id").table("appointments").col("slot_id").col("id").to_owned();
    let by_saga =
        Index::create().name("appointments_saga_id_id").table("appointments").col("saga_id").col("id").to_owned();
    [active, by_slot, by_saga]
}
