//! One route: how it is reached, who may use it, what it takes and gives, and the step that does it.
//!
//! The router and the `OpenAPI` document are both made from these, so that neither has one that the other has not.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::permission::{Operation, Scope};
use super::problem::Fault;
use super::unit::{Answer, Call, Unit};

/// What a route does: in one transaction, whose outcome is committed if this is a success.
pub(crate) type Step = fn(&Unit<'_>, &Call) -> Result<Answer, Fault>;

/// Of most answers.
const JSON: &str = "application/json";

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

/// Whether a route heeds `If-Match` and `If-None-Match`; one that does not refuses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditional {
    Yes,
    No,
}

/// One route.
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// As `OpenAPI` and the router write it, with names in braces.
    pub(crate) path: String,
    pub(crate) operation: Operation,
    pub(crate) summary: &'static str,
    /// `noun.verb`, if path and verb do not say it.
    acts: Option<&'static str>,
    /// Fields of the query.
    pub(crate) query: &'static [&'static str],
    pub(crate) conditional: Conditional,
    pub(crate) body: Option<Shape>,
    pub(crate) status: u16,
    pub(crate) answer: Option<Shape>,
    /// Of the answer.
    pub(crate) media: &'static str,
    pub(crate) step: Step,
}

/// A type of a body, for the document.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: fn() -> Cow<'static, str>,
    pub(crate) schema: fn() -> RefOr<Schema>,
    pub(crate) schemas: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Verb {
    /// As `OpenAPI` writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }
}

impl Shape {
    /// Of a type.
    pub(crate) fn of<T: ToSchema>() -> Self {
        Self { name: T::name, schema: T::schema, schemas: T::schemas }
    }
}

impl Route {
    /// A route that answers 204 unless more is said.
    pub(crate) fn new(verb: Verb, path: impl Into<String>, operation: Operation, step: Step) -> Self {
        Self {
            verb,
            path: path.into(),
            operation,
            summary: "",
            acts: None,
            query: &[],
            conditional: Conditional::No,
            body: None,
            status: 204,
            answer: None,
            media: JSON,
            step,
        }
    }

    /// What it is for.
    pub(crate) fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// What it does, where kind and verb do not say it.
    pub(crate) fn acts(mut self, action: &'static str) -> Self {
        self.acts = Some(action);
        self
    }

    /// Fields of its query.
    pub(crate) fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    /// It heeds conditions.
    pub(crate) fn conditional(mut self) -> Self {
        self.conditional = Conditional::Yes;
        self
    }

    /// What it takes.
    pub(crate) fn takes<T: DeserializeOwned + ToSchema>(mut self) -> Self {
        self.body = Some(Shape::of::<T>());
        self
    }

    /// What it gives.
    pub(crate) fn gives<T: Serialize + ToSchema>(mut self, status: u16) -> Self {
        self.status = status;
        self.answer = Some(Shape::of::<T>());
        self
    }

    /// Whose role lets somebody use it.
    pub(crate) fn scope(&self) -> Scope {
        if self.operation == Operation::Greet {
            Scope::Anybody
        } else if self.path.split('/').any(|part| part == "{tenant}") {
            Scope::Tenant
        } else {
            Scope::Installation
        }
    }

    /// What a call is about, as the log of acts has it: the path with its names, however they were encoded.
    pub(crate) fn target(&self, call: &Call) -> String {
        let name = |part: &str| {
            let which = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            which.map_or_else(|| part.to_owned(), |which| call.name(which).to_owned())
        };
        let parts: Vec<String> = self.path.trim_start_matches("/v1/").split('/').map(name).collect();
        parts.join("/")
    }

    /// What it does, as the log of acts calls it: the last kind of thing in the path, and a verb.
    pub(crate) fn action(&self) -> String {
        if let Some(action) = self.acts {
            return action.to_owned();
        }
        let kind = self.path.split('/').rfind(|part| !part.starts_with('{')).unwrap_or_default();
        let verb = if self.verb == Verb::Post { "create" } else { self.verb.name() };
        format!("{kind}.{verb}")
    }

    /// What its answer is, if it is no JSON.
    pub(crate) fn media(mut self, media: &'static str) -> Self {
        self.media = media;
        self
    }

    /// Whether it only looks.
    pub(crate) fn is_safe(&self) -> bool {
        self.verb == Verb::Get
    }
}
