//! The REST API as clients and admins meet it: the real router before a real engine.

mod common;

mod dead_letters;

mod description;

mod operations;

mod sagas;
