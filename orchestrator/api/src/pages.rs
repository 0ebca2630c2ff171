//! Pages of lists: the envelope as it is documented, and the link to the next one.

use axum::body::Body;
use axum::http::Response;
use axum::http::header::LINK;
use axum::response::IntoResponse;
use runtime::http::{Json, Page};
use serde::Serialize;
use utoipa::ToSchema;

use crate::headers::ascii;

/// Items of a page when nothing is said.
pub(crate) const LIMIT_DEFAULT: u32 = 50;
/// Most items of a page.
pub(crate) const LIMIT_MAX: u32 = 200;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub(crate) struct PageView<T> {
    data: Vec<T>,
    /// Whether there are more behind them.
    has_more: bool,
    /// The parameter `cursor` of the next page; null on the last one.
    next_cursor: Option<String>,
}

impl<T> PageView<T> {
    /// The page with its items in the words of the edge.
    pub(crate) fn of<U: Into<T>>(page: Page<U>) -> Self {
        let data = page.data.into_iter().map(U::into).collect();
        Self { data, has_more: page.has_more, next_cursor: page.next_cursor }
    }
}

/// Answers with a page and a `Link` to the next one: `path` with the parameters of this one and the new cursor.
pub(crate) fn answer<T: Serialize>(
    page: &T,
    next_cursor: Option<&str>,
    path: &str,
    parameters: &[(&str, Option<String>)],
) -> Response<Body> {
    let mut response = Json(page).into_response();
    if let Some(cursor) = next_cursor {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in parameters {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.append_pair("cursor", cursor);
        let link = format!("<{path}?{}>; rel=\"next\"", query.finish());
        response.headers_mut().insert(LINK, ascii(&link));
    }
    response
}

impl<T: Serialize> PageView<T> {
    /// Answers with this page; see [`answer`].
    pub(crate) fn answer(&self, path: &str, parameters: &[(&str, Option<String>)]) -> Response<Body> {
        answer(self, self.next_cursor.as_deref(), path, parameters)
    }
}
