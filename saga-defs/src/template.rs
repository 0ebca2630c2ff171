//! Payload mapping: a JSON template in which a string that is one whole `"${path}"` is replaced by what the path names.
//!
//! Paths start at `input` (the saga's input) or `steps.NAME.output` and go down by member name or array index.
//! They are copied, never evaluated: anything more than a path is refused when the definition is checked.

use serde_json::Value;

/// What paths are looked up in.
#[derive(Debug)]
pub struct Scope<'a, F> {
    /// The saga's input document.
    pub input: &'a Value,
    /// Output of a step by name; `None` when it has none yet.
    pub output: F,
}

/// A path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path ${{{0}}} leads nowhere")]
pub struct Missing(pub String);

/// A parsed `"${…}"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// Where the path starts.
    pub root: Root<'a>,
    /// Member names and array indexes below the root.
    pub rest: Vec<&'a str>,
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root<'a> {
    /// The saga's input.
    Input,
    /// The output of the step with this name.
    Output(&'a str),
}

/// What a template string is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// Copied as it stands.
    Literal,
    /// Replaced by what the path names.
    Path(Path<'a>),
    /// Contains `${` but is not one whole plain path.
    Unsupported,
}

/// Reads one template string.
#[must_use]
pub fn parse(text: &str) -> Text<'_> {
    if !text.contains("${") {
        return Text::Literal;
    }
    let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return Text::Unsupported;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let parts: Vec<&str> = inner.split('.').collect();
    if parts.iter().any(|part| part.is_empty() || !part.chars().all(plain)) {
        return Text::Unsupported;
    }
    match parts.as_slice() {
        ["input", rest @ ..] => Text::Path(Path { root: Root::Input, rest: rest.to_vec() }),
        ["steps", step, "output", rest @ ..] => Text::Path(Path { root: Root::Output(step), rest: rest.to_vec() }),
        _ => Text::Unsupported,
    }
}

/// Fills in a template.
///
/// # Errors
/// The first path that leads nowhere.
pub fn render<'a, F>(template: &Value, scope: &Scope<'a, F>) -> Result<Value, Missing>
where
    F: Fn(&str) -> Option<&'a Value>,
{
    Ok(match template {
        Value::String(text) => match parse(text) {
            Text::Literal => template.clone(),
            Text::Unsupported => return Err(Missing(text.clone())),
            Text::Path(path) => {
                lookup(&path, scope).cloned().ok_or_else(|| Missing(text[2..text.len() - 1].to_owned()))?
            }
        },
        Value::Array(items) => Value::Array(items.iter().map(|item| render(item, scope)).collect::<Result<_, _>>()?),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, item)| Ok((name.clone(), render(item, scope)?)))
                .collect::<Result<_, Missing>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    })
}

fn lookup<'a, F>(path: &Path<'_>, scope: &Scope<'a, F>) -> Option<&'a Value>
where
    F: Fn(&str) -> Option<&'a Value>,
{
    let mut value = match path.root {
        Root::Input => scope.input,
        Root::Output(step) => (scope.output)(step)?,
    };
    for part in &path.rest {
        value = match value {
            Value::Object(members) => members.get(*part)?,
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_copied_and_literals_stay() {
        let input = json!({"slot_id": "s", "tags": ["a", "b"]});
        let output = json!({"price": {"amount_minor": 4500}});
        let scope = Scope { input: &input, output: |step: &str| (step == "booking").then_some(&output) };
        let template =
            json!({"a": "${input.slot_id}", "b": ["${input.tags.1}"], "c": "${steps.booking.output.price}", "d": 7});
        let filled = render(&template, &scope).unwrap();
        assert_eq!(filled, json!({"a": "s", "b": ["b"], "c": {"amount_minor": 4500}, "d": 7}));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_named() {
        let input = json!({});
        let scope = Scope { input: &input, output: |_: &str| None };
        for path in ["input.x", "steps.gone.output", "steps.gone.output.y"] {
            assert_eq!(render(&json!(format!("${{{path}}}")), &scope), Err(Missing(path.to_owned())));
        }
    }

    #[test]
    fn more_than_a_path_is_unsupported() {
        for text in ["${a + b}", "Hello ${input.name}", "${input..x}", "${steps.a.result}", "${"] {
            assert_eq!(parse(text), Text::Unsupported, "{text}");
        }
        assert_eq!(parse("plain $5"), Text::Literal);
    }
}
