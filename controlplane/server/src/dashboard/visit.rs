//! One request for a page: who it is of, what it says, and how the page is answered.

use std::collections::BTreeMap;

use askama::Template;
use serde::Deserialize;

use super::Dashboard;
use super::ask::Ask;
use super::form::Form;
use super::frame::{Frame, notice};
use super::session::Session;
use crate::people::Role;
use crate::rest::{Fault, Operation, Verb, may};

/// What a page does, in one blocking go.
pub(super) type Step = fn(&mut Visit<'_>) -> Result<Reply, Fault>;
/// Pages of a part: method, path, step.
pub(super) type Pages = &'static [(&'static str, &'static str, Step)];

/// What a page is answered with.
pub(super) enum Reply {
    /// Status and HTML.
    Page(u16, String),
    /// Something was done: look there.
    To(String),
    /// Name, type, content.
    File(String, &'static str, String),
    /// A problem, inside the person's frame.
    Refused(Box<Frame>, Fault, String),
}

/// A request.
pub(super) struct Visit<'a> {
    pub(super) dashboard: &'a Dashboard,
    pub(super) session: Session,
    pub(super) query: Form,
    pub(super) form: Form,
    pub(super) request_id: String,
    pub(super) is_post: bool,
    names: BTreeMap<String, String>,
    person: Greeting,
}

/// Who looks.
#[derive(Default, Deserialize)]
struct Greeting {
    person: String,
    roles: BTreeMap<String, Role>,
}

impl<'a> Visit<'a> {
    /// Who it is, is asked here; whoever has no role in the page's tenant gets no further.
    pub(super) fn begin(
        dashboard: &'a Dashboard,
        session: Session,
        (names, query, form): (BTreeMap<String, String>, Form, Form),
        request_id: String,
        is_post: bool,
    ) -> Result<Self, Fault> {
        session.touch(&dashboard.server)?;
        let person = Greeting::default();
        let mut visit = Self { dashboard, session, query, form, request_id, is_post, names, person };
        visit.person = visit.get("/healthz").json()?;
        Ok(visit)
    }

    /// A name of the page's path.
    pub(super) fn name(&self, which: &str) -> &str {
        self.names.get(which).map_or("", String::as_str)
    }

    pub(super) fn tenant(&self) -> &str {
        self.name("tenant")
    }

    pub(super) fn tenants(&self) -> Vec<String> {
        self.person.roles.keys().cloned().collect()
    }

    /// Whether the person has a role in the page's tenant at all.
    pub(super) fn check_tenant(&self) -> Result<(), Fault> {
        let is_known = self.person.roles.contains_key(self.tenant());
        if is_known { Ok(()) } else { Err(Fault::NotFound("tenant")) }
    }

    pub(super) fn may(&self, operation: Operation) -> bool {
        self.person.roles.get(self.tenant()).is_some_and(|role| may(*role, operation))
    }

    pub(super) fn get(&self, path: &'static str) -> Ask<'_> {
        Ask::new(self, Verb::Get, path)
    }

    pub(super) fn ask(&self, verb: Verb, path: &'static str) -> Ask<'_> {
        Ask::new(self, verb, path)
    }

    /// Around a page of this title; the section is the path's.
    pub(super) fn frame(&self, title: impl Into<String>) -> Frame {
        let role = self.person.roles.get(self.tenant()).copied();
        Frame {
            title: title.into(),
            person: self.person.person.clone(),
            role: role.map_or("", Role::name),
            may: role,
            csrf: self.session.csrf.clone(),
            tenant: role.map_or("", |_| self.tenant()).to_owned(),
            tenants: self.tenants(),
            section: String::new(),
            notice: notice(self.query.text("done")),
        }
    }

    pub(super) fn section(&self, title: impl Into<String>, section: &str) -> Frame {
        Frame { section: section.to_owned(), ..self.frame(title) }
    }

    /// A path below the tenant.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/tenants/{}{rest}", self.tenant())
    }
}

/// A page of a template.
pub(super) fn page(status: u16, template: &impl Template) -> Reply {
    match template.render() {
        Ok(text) => Reply::Page(status, text),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Reply::Page(
                500,
                "<!doctype html><title>Zen Mesh</title><p>The page could not be written.".to_owned(),
            )
        }
    }
}
