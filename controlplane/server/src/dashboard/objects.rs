//! Objects of all kinds: lists, forms, what would change before it is saved, and deletion.

use askama::Template;
use serde::Deserialize;
use serde_json::{Value, json};
use zen_control_api::is_name;

use super::ask::{Listed, query_of};
use super::difference::{Part, Side, differences};
use super::fields::{self, Filled, Shape, Values};
use super::frame::Frame;
use super::kinds::{Input, Kind, Naming, kind};
use super::visit::{Pages, Reply, Visit, page};
use crate::audit::new_request_id;
use crate::objects::FieldFault;
use crate::rest::{Fault, Operation, Verb};

pub(super) const PAGES: Pages = &[
    ("GET", "/tenants/{tenant}/{kind}", list),
    ("GET", "/tenants/{tenant}/new/{kind}", new),
    ("POST", "/tenants/{tenant}/new/{kind}", new),
    ("GET", "/tenants/{tenant}/{kind}/{name}/edit", edit),
    ("POST", "/tenants/{tenant}/{kind}/{name}/edit", edit),
    ("GET", "/tenants/{tenant}/{kind}/{name}/delete", delete),
    ("POST", "/tenants/{tenant}/{kind}/{name}/delete", delete),
];

const CHANGES: &str = "/v1/tenants/{tenant}/changes";
/// Items of a page of a list, and most names that a field lets somebody choose from.
const LISTED: &str = "200";

/// An object as the API gives it.
#[derive(Deserialize)]
pub(super) struct Stored {
    pub(super) name: String,
    revision: i64,
    pub(super) object: Value,
}

#[derive(Template)]
#[template(path = "objects.html")]
struct ListPage {
    frame: Frame,
    kind: &'static Kind,
    rows: Vec<(String, Vec<String>)>,
    next: String,
    may_change: bool,
    may_delete: bool,
}

#[derive(Template)]
#[template(path = "object.html")]
struct FormPage {
    frame: Frame,
    kind: &'static Kind,
    name: String,
    is_new: bool,
    revision: String,
    fields: Vec<Filled>,
    problem: String,
    others: Vec<FieldFault>,
    may_change: bool,
}

#[derive(Template)]
#[template(path = "change.html")]
struct ChangePage {
    frame: Frame,
    kind: &'static Kind,
    name: String,
    is_deletion: bool,
    clusters: Vec<ClusterPart>,
    left_out: u64,
    hidden: Vec<(String, String)>,
}

/// What would change in a cluster.
struct ClusterPart {
    cluster: String,
    parts: Vec<Part>,
    /// Why it could not be published then.
    faults: Vec<FieldFault>,
}

#[derive(Deserialize)]
struct Changes {
    clusters: Vec<Change>,
    left_out: u64,
}

#[derive(Deserialize)]
struct Change {
    cluster: String,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    faults: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    pointer: String,
    detail: String,
}

fn kind_of(visit: &Visit<'_>) -> Result<&'static Kind, Fault> {
    visit.check_tenant()?;
    kind(visit.name("kind")).ok_or(Fault::NotFound("page"))
}

fn list(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    let kind = kind_of(visit)?;
    let cursor = visit.query.text("cursor");
    let found: Listed<Stored> = visit.get(kind.list).query("limit", LISTED).query("cursor", cursor).json()?;
    let row = |stored: Stored| {
        let cell =
            |(_, pointer): &(&str, &str)| stored.object.pointer(pointer).map_or(String::new(), fields::shown);
        (stored.name.clone(), kind.columns.iter().map(cell).collect())
    };
    Ok(page(
        200,
        &ListPage {
            frame: visit.section(kind.title, &format!("/{}", kind.path)),
            kind,
            rows: found.items.into_iter().map(row).collect(),
            next: query_of([("cursor", found.next_cursor.as_str())]),
            may_change: visit.may(kind.change),
            may_delete: visit.may(Operation::Manage),
        },
    ))
}

fn new(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    let kind = kind_of(visit)?;
    if !visit.is_post && !visit.may(kind.change) {
        return Err(Fault::Role(visit.frame("").role));
    }
    let mut draft = Draft { kind, name: String::new(), revision: None, values: Vec::new() };
    if visit.is_post {
        visit.form.text("name").clone_into(&mut draft.name);
        draft.values = fields::of_form(kind, &visit.form);
        return draft.decide(visit);
    }
    if kind.naming == Naming::Made {
        draft.name = new_request_id();
    }
    draft.values = fields::of_form(kind, &visit.query);
    draft.form(visit, 200, String::new(), &[])
}

fn edit(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    let kind = kind_of(visit)?;
    let name = visit.name("name").to_owned();
    if visit.is_post {
        let revision = visit.form.text("revision").parse().unwrap_or_default();
        let values = fields::of_form(kind, &visit.form);
        return Draft { kind, name, revision: Some(revision), values }.decide(visit);
    }
    let stored = find(visit, kind, &name)?;
    let values = fields::of_object(kind, &stored.object);
    Draft { kind, name, revision: Some(stored.revision), values }.form(visit, 200, String::new(), &[])
}

fn delete(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    let kind = kind_of(visit)?;
    let name = visit.name("name").to_owned();
    if visit.is_post {
        visit.ask(Verb::Delete, kind.item).with("cluster", &name).with("name", &name).run()?;
        return Ok(Reply::To(visit.path(&format!("/{}?done=deleted", kind.path))));
    }
    if !visit.may(Operation::Manage) {
        return Err(Fault::Role(visit.frame("").role));
    }
    find(visit, kind, &name)?;
    let changes = visit.ask(Verb::Post, CHANGES).body(json!({"kind": kind.path, "name": name})).json()?;
    let frame = visit.section(format!("Delete {} {name}?", kind.one), &format!("/{}", kind.path));
    Ok(change_page(frame, kind, name, changes, None))
}

fn find(visit: &Visit<'_>, kind: &Kind, name: &str) -> Result<Stored, Fault> {
    visit.get(kind.item).with("cluster", name).with("name", name).json()
}

impl FormPage {
    fn is_refused(&self) -> bool {
        let has_error = self.fields.iter().any(|field| !field.error.is_empty());
        has_error || !self.problem.is_empty() || !self.others.is_empty()
    }
}

/// An object that somebody is writing.
struct Draft {
    kind: &'static Kind,
    name: String,
    /// None for a new one.
    revision: Option<i64>,
    values: Values,
}

impl Draft {
    /// A form came: show what would change, save, or show the form again.
    fn decide(self, visit: &Visit<'_>) -> Result<Reply, Fault> {
        let object = match fields::object(self.kind, &self.values) {
            Ok(object) => object,
            Err(faults) => return self.form(visit, 422, String::new(), &faults),
        };
        if !is_name(&self.name) {
            let detail =
                "a name is 1 to 64 letters, digits, dots, dashes, underscores, and begins with no dot";
            return self.form(visit, 422, String::new(), &[FieldFault::new("", detail)]);
        }
        let asked = match visit.form.text("step") {
            "save" => self.save(visit, object),
            "back" => return self.form(visit, 200, String::new(), &[]),
            _ => self.preview(visit, object),
        };
        match asked {
            Err(Fault::Fields(faults)) => self.form(visit, 422, String::new(), &faults),
            Err(Fault::Conflict(detail)) => self.form(visit, 409, detail.to_owned(), &[]),
            Err(Fault::Precondition) if self.revision.is_none() => {
                self.form(visit, 412, format!("There is a {} of this name.", self.kind.one), &[])
            }
            Err(Fault::Precondition) => {
                let detail = "Somebody changed it meanwhile. Load the page again to see how it is now.";
                self.form(visit, 412, detail.to_owned(), &[])
            }
            other => other,
        }
    }

    fn save(&self, visit: &Visit<'_>, object: Value) -> Result<Reply, Fault> {
        let ask = visit.ask(Verb::Put, self.kind.item).with("cluster", &self.name).with("name", &self.name);
        ask.body(object).only_at(self.revision).run()?;
        Ok(Reply::To(visit.path(&format!("/{}?done=saved", self.kind.path))))
    }

    fn preview(&self, visit: &Visit<'_>, object: Value) -> Result<Reply, Fault> {
        let change = json!({"kind": self.kind.path, "name": self.name, "object": object});
        let changes: Changes = visit.ask(Verb::Post, CHANGES).body(change).json().map_err(inside)?;
        let frame =
            visit.section(format!("What would change: {}", self.name), &format!("/{}", self.kind.path));
        let hidden = visit.form.fields().filter(|(name, _)| !matches!(name.as_str(), "csrf" | "step"));
        let hidden = hidden.cloned().collect();
        Ok(change_page(frame, self.kind, self.name.clone(), changes, Some(hidden)))
    }

    fn form(
        &self,
        visit: &Visit<'_>,
        status: u16,
        problem: String,
        faults: &[FieldFault],
    ) -> Result<Reply, Fault> {
        let kind = self.kind;
        let (errors, others) = fields::errors(kind, faults);
        let mut filled = Vec::new();
        for (index, field) in kind.fields.iter().enumerate() {
            let names = match field.input {
                Input::One(of) | Input::Many(of) => names(visit, of)?,
                _ => None,
            };
            let texts = self.values.get(index).map_or(&[][..], Vec::as_slice);
            filled.push(fields::filled(field, texts, &errors[index], names));
        }
        let is_new = self.revision.is_none();
        let title = if is_new { format!("New {}", kind.one) } else { format!("{} {}", kind.one, self.name) };
        let mut title = title;
        title[..1].make_ascii_uppercase();
        Ok(page(
            status,
            &FormPage {
                frame: visit.section(title, &format!("/{}", kind.path)),
                kind,
                name: self.name.clone(),
                is_new,
                revision: self.revision.map_or(String::new(), |revision| revision.to_string()),
                fields: filled,
                problem,
                others,
                may_change: visit.may(kind.change),
            },
        ))
    }
}

/// There the object is a field of the body.
fn inside(fault: Fault) -> Fault {
    let Fault::Fields(faults) = fault else { return fault };
    let own = |fault: FieldFault| {
        let pointer = fault.pointer.strip_prefix("/object").unwrap_or(&fault.pointer).to_owned();
        FieldFault { pointer, ..fault }
    };
    Fault::Fields(faults.into_iter().map(own).collect())
}

/// All of a kind; none if they are more than fit a field.
fn names(visit: &Visit<'_>, of: &str) -> Result<Option<Vec<String>>, Fault> {
    let Some(kind) = kind(of) else { return Ok(None) };
    let found: Listed<Stored> = visit.get(kind.list).query("limit", LISTED).json()?;
    let names = found.items.into_iter().map(|stored| stored.name).collect();
    Ok(found.next_cursor.is_empty().then_some(names))
}

fn change_page(
    frame: Frame,
    kind: &'static Kind,
    name: String,
    changes: Changes,
    hidden: Option<Vec<(String, String)>>,
) -> Reply {
    let clusters = changes.clusters.into_iter().map(|change| ClusterPart {
        parts: if change.after.is_null() { Vec::new() } else { differences(&change.before, &change.after) },
        cluster: change.cluster,
        faults: change.faults.into_iter().map(|told| FieldFault::new(told.pointer, told.detail)).collect(),
    });
    let is_deletion = hidden.is_none();
    let (clusters, hidden) = (clusters.collect(), hidden.unwrap_or_default());
    page(200, &ChangePage { frame, kind, name, is_deletion, clusters, left_out: changes.left_out, hidden })
}
