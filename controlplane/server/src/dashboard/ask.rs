//! How pages ask the API: a route by verb and path, in the name of whoever looks at the page.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::form::encoded;
use super::visit::Visit;
use crate::Refusal;
use crate::listener::now_ms;
use crate::rest::{Answer, Call, Conditions, Fault, Tags, Verb};

/// A question, not asked yet.
pub(super) struct Ask<'a> {
    visit: &'a Visit<'a>,
    verb: Verb,
    path: &'static str,
    names: Vec<(&'static str, String)>,
    query: Vec<(&'static str, String)>,
    conditions: Conditions,
    body: Option<Value>,
}

/// A page of a list.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Listed<T> {
    pub(super) items: Vec<T>,
    #[serde(default)]
    pub(super) next_cursor: String,
}

impl<'a> Ask<'a> {
    pub(super) fn new(visit: &'a Visit<'a>, verb: Verb, path: &'static str) -> Self {
        let (names, query) = (Vec::new(), Vec::new());
        Self { visit, verb, path, names, query, conditions: Conditions::default(), body: None }
    }

    /// A name of the path that is not one of the page's own.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.names.push((name, value.to_owned()));
        self
    }

    /// A field of the query, unless it is empty.
    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            self.query.push((name, value.to_owned()));
        }
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Only if it is still this revision, or, without any, is not there yet.
    pub(super) fn only_at(mut self, revision: Option<i64>) -> Self {
        match revision {
            Some(revision) => self.conditions.if_match = Some(Tags::Revisions(vec![revision])),
            None => self.conditions.if_none_match = Some(Tags::Any),
        }
        self
    }

    pub(super) fn run(self) -> Result<Answer, Fault> {
        let Self { visit, verb, path, names, query, conditions, body } = self;
        let found = visit.dashboard.routes.iter().find(|route| route.verb == verb && route.path == path);
        let route = found.ok_or(Fault::NotFound("route of the API"))?;
        let mut target = String::new();
        let mut of_path = BTreeMap::new();
        for part in path.split('/').skip(1) {
            target.push('/');
            let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
                target.push_str(part);
                continue;
            };
            let own = names.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
            let value = own.unwrap_or_else(|| visit.name(name));
            if !zen_control_api::is_name(value) {
                return Err(Fault::NotFound("thing: that is no name"));
            }
            target.push_str(value);
            of_path.insert(name.to_owned(), value.to_owned());
        }
        for (index, (name, value)) in query.iter().enumerate() {
            let sign = if index == 0 { '?' } else { '&' };
            let _ = write!(target, "{sign}{name}={}", encoded(value));
        }
        let call = Call {
            request_id: visit.request_id.clone(),
            caller: visit.session.caller.clone(),
            target,
            names: of_path,
            query: query.into_iter().collect(),
            conditions,
            key: None,
            body,
        };
        visit.dashboard.server.perform(route, &call, now_ms())
    }

    /// The answer as what it is for a page.
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, Fault> {
        let path = self.path;
        let answer = self.run()?;
        serde_json::from_str(answer.body.as_deref().unwrap_or("null"))
            .map_err(|error| Refusal::Kept(format!("the answer of {path}: {error}")).into())
    }
}

/// `?a=1&b=2` of what is not empty.
pub(super) fn query_of<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let parts: Vec<Cow<'_, str>> =
        fields.map(|(name, value)| format!("{name}={}", encoded(value)).into()).collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}
