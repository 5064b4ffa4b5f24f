//! What people are told when they do not get what they asked for (RFC 9457).
//!
//! One enum of faults, sorted by whose they are; one function says which problem each is. Our own are told as nothing but that.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use zen_control_api::{PROBLEM_CONTENT_TYPE, ProblemType};

use crate::objects::FieldFault;
use crate::store::NotKept;
use crate::{ControlError, Refusal};

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Which kind.
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The kind in words.
    pub(crate) title: &'static str,
    /// This occurrence, and what to do.
    pub(crate) detail: String,
    /// Which fields, if it was fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FieldError>,
    /// Of the request, as in the log.
    pub(crate) request_id: String,
}

/// A field that is not as it must be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// A JSON pointer (RFC 6901) into the body.
    pub(crate) pointer: String,
    /// What is wrong, and what would be right.
    pub(crate) detail: String,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A request that breaks HTTP's or JSON's rules, or has a query or header that the route does not take.
    Malformed,
    /// Nobody who may do this.
    Forbidden,
    /// No such thing.
    NotFound,
    /// The thing has other methods.
    MethodNotAllowed,
    /// The client wants an answer of another type.
    NotAcceptable,
    /// It is there already, or another has it.
    Conflict,
    /// It was changed meanwhile.
    PreconditionFailed,
    /// Longer than it may be.
    TooLarge,
    /// The body is of another type.
    UnsupportedMediaType,
    /// The body is JSON, and not the object that it should be; or objects do not fit each other.
    Invalid,
    /// The idempotency key was used with another request.
    IdempotencyKeyReused,
    /// Too many requests.
    Busy,
    /// Our fault.
    Internal,
}

/// Why a request is not granted.
#[derive(Debug)]
pub(crate) enum Fault {
    /// For reasons that agents have too.
    Refused(Refusal),
    /// By what commands are refused for too.
    Control(ControlError),
    /// A part of the request is not as the route takes it.
    Malformed(String),
    /// Fields of the body.
    Fields(Vec<FieldFault>),
    /// The thing that the path names.
    NotFound(&'static str),
    /// No such path at all.
    Route,
    /// The path has other methods.
    Method,
    /// An answer would be JSON.
    Accept,
    /// A body has to be JSON.
    ContentType,
    /// The role does not allow it.
    Role(&'static str),
    /// It cannot be now.
    Conflict(&'static str),
    /// What was asked for is not what is there.
    Precondition,
    /// The idempotency key was used before.
    KeyReused,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::IdempotencyKeyReused,
        Self::Busy,
        Self::Internal,
    ];

    /// The status that goes with it.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid | Self::IdempotencyKeyReused => 422,
            Self::Busy => 429,
            Self::Internal => 500,
        }
    }

    /// In words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is malformed",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Not with this method",
            Self::NotAcceptable => "No such representation",
            Self::Conflict => "It cannot be now",
            Self::PreconditionFailed => "It was changed meanwhile",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMediaType => "The body is of another type",
            Self::Invalid => "The request says what cannot be",
            Self::IdempotencyKeyReused => "The idempotency key was used with another request",
            Self::Busy => "Too many requests",
            Self::Internal => "The control plane failed",
        }
    }
}

impl Fault {
    /// One field.
    pub(crate) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Fields(vec![FieldFault::new(pointer, detail)])
    }

    /// Which problem it is.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_) => Kind::Malformed,
            Self::Fields(_) => Kind::Invalid,
            Self::NotFound(_) | Self::Route => Kind::NotFound,
            Self::Method => Kind::MethodNotAllowed,
            Self::Accept => Kind::NotAcceptable,
            Self::ContentType => Kind::UnsupportedMediaType,
            Self::Role(_) => Kind::Forbidden,
            Self::Conflict(_) => Kind::Conflict,
            Self::Precondition => Kind::PreconditionFailed,
            Self::KeyReused => Kind::IdempotencyKeyReused,
            Self::Refused(refusal) => kind_of_refusal(refusal),
            Self::Control(error) => kind_of_error(error),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Malformed(detail) => detail.clone(),
            Self::Fields(_) => "see errors".to_owned(),
            Self::NotFound(what) => format!("there is no such {what}"),
            Self::Route => "there is no such path; see /v1/openapi.json".to_owned(),
            Self::Method => "the header Allow says which methods there are".to_owned(),
            Self::Accept => "answers are application/json".to_owned(),
            Self::ContentType => "a body is application/json, in UTF-8".to_owned(),
            Self::Role(role) => format!("the role {role} may not do this"),
            Self::Conflict(detail) => (*detail).to_owned(),
            Self::Precondition => "get it again: its ETag is not what the request demands".to_owned(),
            Self::KeyReused => "take a new Idempotency-Key for each new request".to_owned(),
            Self::Refused(refusal) => refusal.to_string(),
            Self::Control(error) => error.to_string(),
        }
    }

    /// What the client is told.
    pub(crate) fn problem(self, request_id: &str) -> Problem {
        let kind = self.kind();
        let detail = match kind {
            Kind::Internal => "try again later; the operator's log says why".to_owned(),
            Kind::Busy => Refusal::Busy.to_string(),
            _ => self.detail(),
        };
        let error = |fault: FieldFault| FieldError { pointer: fault.pointer, detail: fault.detail };
        let errors = match self {
            Self::Fields(faults) => faults.into_iter().map(error).collect(),
            _ => Vec::new(),
        };
        let request_id = request_id.to_owned();
        Problem { kind, status: kind.status(), title: kind.title(), detail, errors, request_id }
    }
}

impl Problem {
    /// As it travels.
    pub(crate) fn response(&self) -> Response<Body> {
        let text = serde_json::to_vec(self).expect("texts and numbers are JSON");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = StatusCode::from_u16(self.status).expect("problems have a status");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn kind_of_refusal(refusal: &Refusal) -> Kind {
    match refusal.kind() {
        ProblemType::Malformed => Kind::Malformed,
        ProblemType::Forbidden => Kind::Forbidden,
        ProblemType::TooLarge => Kind::TooLarge,
        ProblemType::Busy => Kind::Busy,
        _ => Kind::Internal,
    }
}

/// What a command is refused for because of what was said to it, is the client's here.
fn kind_of_error(error: &ControlError) -> Kind {
    match error {
        ControlError::Id { .. }
        | ControlError::Argument(_)
        | ControlError::Member { .. }
        | ControlError::Bundle(_)
        | ControlError::Configuration(_) => Kind::Invalid,
        _ => Kind::Internal,
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<ControlError> for Fault {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Database(error) => error.into(),
            ControlError::LastOwner => {
                Self::Conflict("the last owner of a tenant stays, as owner; make another one first")
            }
            error => Self::Control(error),
        }
    }
}

impl From<FieldFault> for Fault {
    fn from(fault: FieldFault) -> Self {
        Self::Fields(vec![fault])
    }
}

impl From<NotKept> for Fault {
    fn from(reason: NotKept) -> Self {
        match reason {
            NotKept::Full => Self::Conflict("there are as many as there may be; delete some"),
            NotKept::Elsewhere => {
                Self::Conflict("another tenant has a cluster of this name; take another name")
            }
            NotKept::Database(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_on_the_page() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/control-plane.md");
        let page = std::fs::read_to_string(page).unwrap();
        for kind in Kind::ALL {
            let name = serde_json::to_value(kind).unwrap();
            let row = format!("| `{}` | {} |", name.as_str().unwrap(), kind.status());
            assert!(page.contains(&row), "{row}");
        }
    }
}
