//! Who may see and ask what.
//!
//! Must hold: a saga of another principal, one of another tenant, one that does not exist and an id that is none are
//! the same 404, so that nobody learns ids by asking.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use orchestrator::{Engine, Error, Snapshot};
use runtime::http::{Principal, Problem, Role};
use saga_core::Action;
use saga_store::Header;
use uuid::Uuid;

use crate::problems;

/// The saga that a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SagaId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for SagaId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<Uuid>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(problems::no_saga()),
        }
    }
}

/// A principal that is an admin; others are answered 403 before anything else is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Admin(pub(crate) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, state).await?;
        principal.require_admin()?;
        Ok(Self(principal))
    }
}

/// Whether `principal` may see a saga.
pub(crate) fn sees(principal: &Principal, header: &Header) -> bool {
    header.tenant == principal.tenant && (principal.is_admin() || header.principal == principal.name)
}

/// The saga as it is now.
///
/// # Errors
/// 404 when there is none that `principal` may see, or what the engine failed with.
pub(crate) async fn visible(engine: &Engine, principal: &Principal, id: Uuid) -> Result<Snapshot, Problem> {
    match engine.get(id).await {
        Ok(found) => found.filter(|snapshot| sees(principal, &snapshot.header)).ok_or_else(problems::no_saga),
        Err(Error::Unreadable { header, .. }) if !sees(principal, &header) => Err(problems::no_saga()),
        Err(error) => Err(problems::of_engine(error)),
    }
}

/// Why `principal` may not ask for the action called `name`, whatever the saga is like.
pub(crate) fn denied(name: &str, principal: &Principal) -> Option<&'static str> {
    let for_everybody = name == Action::Cancel.as_str();
    (!for_everybody && !principal.is_admin()).then_some("only a token with the role `admin` may ask for this")
}

/// How a principal is named in history.
pub(crate) fn actor(principal: &Principal) -> String {
    match principal.role {
        Role::Client => format!("client:{}", principal.name),
        Role::Admin => format!("admin:{}", principal.name),
    }
}
