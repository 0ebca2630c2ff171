//! Who is asking: bearer tokens from configuration, known only by their SHA-256.
//!
//! Not for deciding what a caller may see: a handler does that with its [`Principal`]. Must hold: a presented token
//! is compared with every known one in constant time; no token and no hash reaches a log.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::problem::Problem;

/// The only tenant there is for now.
const TENANT: &str = "default";

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Starts, reads and cancels its own sagas.
    Client,
    /// Sees everything and decides about stuck sagas.
    Admin,
}

/// A known token. `Debug` shows no hash.
#[derive(Clone)]
pub struct Token {
    /// The principal's name.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// SHA-256 of the token's text.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// All known tokens.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Knows these tokens; the first wins where two have the same hash.
    #[must_use]
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Whether no token is known, so that every request is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token this is. Takes the same time whichever token matches, or none.
    #[must_use]
    pub fn principal(&self, presented: &str) -> Option<Principal> {
        let presented = sha256(presented);
        let mut found = Choice::from(0);
        let mut at = 0_u64;
        for (index, token) in (0_u64..).zip(&self.0) {
            let equal = token.sha256.ct_eq(&presented);
            at.conditional_assign(&index, equal & !found);
            found |= equal;
        }
        if !bool::from(found) {
            return None;
        }
        let token = self.0.get(usize::try_from(at).ok()?)?;
        Some(Principal { name: token.name.clone(), tenant: TENANT.to_owned(), role: token.role })
    }
}

/// The hash under which a token is known.
#[must_use]
pub fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Who is asking. As an extractor it answers 401 when nobody known is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's name.
    pub name: String,
    /// Whose data it works on.
    pub tenant: String,
    /// What it may do.
    pub role: Role,
}

impl Principal {
    /// Whether it is an admin.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Client => false,
        }
    }

    /// Refuses everyone but admins.
    ///
    /// # Errors
    /// 403 for a client.
    pub fn require_admin(&self) -> Result<(), Problem> {
        if self.is_admin() { Ok(()) } else { Err(Problem::forbidden("Use a token with the role `admin`.")) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// Lets the routes of `router` know who is asking. Refuses nobody: a handler that takes a [`Principal`] does.
pub fn identify<S>(router: Router<S>, tokens: Arc<Tokens>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    router.layer(from_fn_with_state(tokens, authenticate))
}

/// The middleware behind [`identify`].
pub async fn authenticate(State(tokens): State<Arc<Tokens>>, mut request: Request, next: Next) -> Response {
    if let Some(principal) = bearer(request.headers()).and_then(|token| tokens.principal(token)) {
        request.extensions_mut().insert(principal);
    }
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        // Two credentials: which one is meant must not be guessed.
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::http::header::WWW_AUTHENTICATE;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn tokens() -> Tokens {
        let token = |name: &str, role, text| Token { name: name.to_owned(), role, sha256: sha256(text) };
        Tokens::new(vec![token("desk", Role::Client, "desk-secret"), token("chief", Role::Admin, "chief-secret")])
    }

    async fn ask(path: &str, authorization: &[&str]) -> Response {
        let router = Router::new()
            .route("/me", get(|principal: Principal| async move { principal.name }))
            .route("/admin", get(|principal: Principal| async move { principal.require_admin() }));
        let mut request = Request::get(path);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        identify(router, Arc::new(tokens())).oneshot(request).await.unwrap()
    }

    #[test]
    fn a_token_names_its_principal() {
        let principal = tokens().principal("chief-secret").unwrap();
        assert_eq!(principal, Principal { name: "chief".into(), tenant: "default".into(), role: Role::Admin });
        assert_eq!(tokens().principal("chief-secret "), None);
        assert_eq!(Tokens::default().principal(""), None);
    }

    #[test]
    fn debug_shows_no_hash() {
        let shown = format!("{:?}", tokens());
        assert!(shown.contains("desk") && !shown.contains("sha256"), "{shown}");
    }

    #[tokio::test]
    async fn a_known_bearer_passes() {
        assert_eq!(ask("/me", &["Bearer desk-secret"]).await.status(), StatusCode::OK);
        assert_eq!(ask("/me", &["bearer desk-secret"]).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn missing_wrong_or_double_credentials_are_401() {
        let cases: [&[&str]; 4] =
            [&[], &["Bearer nobody"], &["Basic desk-secret"], &["Bearer desk-secret", "Bearer chief-secret"]];
        for authorization in cases {
            let response = ask("/me", authorization).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{authorization:?}");
            assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        }
    }

    #[tokio::test]
    async fn only_an_admin_passes_where_one_is_required() {
        assert_eq!(ask("/admin", &["Bearer desk-secret"]).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(ask("/admin", &["Bearer chief-secret"]).await.status(), StatusCode::OK);
    }
}
