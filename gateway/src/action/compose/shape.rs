//! What a composed answer looks like: JSON with references to what the parts have answered.

use serde_json::{Map, Value};

use super::Answers;
use crate::exchange::template::{Escape, Template};
use crate::exchange::{Context, Request};
use crate::routing::Pattern;

/// A value of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text, which may have values in it. One that is nothing but a reference is what it refers to,
    /// whatever that is.
    Text(Template),
    /// Members by name.
    Object(Vec<(String, Self)>),
    /// Elements.
    Array(Vec<Self>),
    /// A number or a boolean.
    Plain(Value),
}

impl Shape {
    /// The references in it.
    pub fn references(&self) -> Vec<&str> {
        match self {
            Self::Text(template) => template.references().collect(),
            Self::Object(members) => {
                members.iter().flat_map(|(_, shape)| shape.references()).collect()
            }
            Self::Array(elements) => elements.iter().flat_map(Self::references).collect(),
            Self::Plain(_) => Vec::new(),
        }
    }

    /// The value for a request whose parts have answered so. What is not there is null.
    pub(super) fn fill(
        &self,
        request: &Request<'_>,
        context: &Context,
        pattern: Option<&Pattern>,
        answers: &Answers,
    ) -> Value {
        match self {
            Self::Text(template) => match template.only_reference() {
                Some(reference) => answers.find(reference).cloned().unwrap_or_default(),
                None => {
                    let text = |reference: &str| match answers.find(reference)? {
                        Value::String(text) => Some(text.clone().into_bytes()),
                        Value::Null => None,
                        other => Some(other.to_string().into_bytes()),
                    };
                    let text =
                        template.render_with(request, context, pattern, Escape::Nothing, &text);
                    String::from_utf8_lossy(&text).into_owned().into()
                }
            },
            Self::Object(members) => {
                let filled = members.iter().map(|(name, shape)| {
                    (name.clone(), shape.fill(request, context, pattern, answers))
                });
                filled.collect::<Map<_, _>>().into()
            }
            Self::Array(elements) => elements
                .iter()
                .map(|shape| shape.fill(request, context, pattern, answers))
                .collect(),
            Self::Plain(value) => value.clone(),
        }
    }
}
