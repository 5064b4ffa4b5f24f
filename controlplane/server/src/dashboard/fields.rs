//! Forms of objects: fields that people filled in become the JSON that the API takes, and the other way round.
//!
//! Whether a value is as it must be says the API; here is only refused what is no JSON at all.

use serde_json::{Map, Value, json};

use super::form::Form;
use super::kinds::{Field, Input, Kind, Need};
use crate::objects::FieldFault;
use crate::rest::{Fault, parse};

/// A field as the page shows it.
pub(super) struct Filled {
    pub(super) name: String,
    pub(super) label: &'static str,
    pub(super) hint: &'static str,
    pub(super) shape: Shape,
    pub(super) value: String,
    pub(super) options: Vec<Choice>,
    pub(super) error: String,
    pub(super) is_required: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Line,
    Area,
    Code,
    Select,
    Checks,
}

/// One of several.
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) label: String,
    pub(super) is_chosen: bool,
}

/// What is in the fields, by kind's order.
pub(super) type Values = Vec<Vec<String>>;

/// The name of a field in a form.
pub(super) fn name_of(field: &Field) -> String {
    field.pointer[1..].replace('/', ".")
}

/// Of an object.
pub(super) fn of_object(kind: &Kind, object: &Value) -> Values {
    let texts = |field: &Field| {
        let Some(value) = object.pointer(field.pointer) else { return Vec::new() };
        match (field.input, value) {
            (Input::Json, Value::Object(map)) if map.is_empty() => Vec::new(),
            (Input::Json, value) => vec![serde_json::to_string_pretty(value).unwrap_or_default()],
            (Input::Switch, value) => {
                if *value == json!(true) {
                    vec!["yes".to_owned()]
                } else {
                    Vec::new()
                }
            }
            (_, Value::Array(items)) => items.iter().map(shown).collect(),
            (_, value) => vec![shown(value)],
        }
    };
    kind.fields.iter().map(texts).collect()
}

/// Of a form that was sent.
pub(super) fn of_form(kind: &Kind, form: &Form) -> Values {
    let texts = |field: &Field| {
        let name = name_of(field);
        let found = form.all(&name);
        match field.input {
            Input::Lines | Input::Many(_) | Input::Checks(_) => found
                .flat_map(str::lines)
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            _ => found.filter(|text| !text.is_empty()).take(1).map(str::to_owned).collect(),
        }
    };
    kind.fields.iter().map(texts).collect()
}

/// The object that the API is asked to keep.
pub(super) fn object(kind: &Kind, values: &Values) -> Result<Value, Vec<FieldFault>> {
    let mut object = Value::Object(Map::new());
    let mut faults = Vec::new();
    for (field, texts) in kind.fields.iter().zip(values) {
        let first = || texts.first().cloned().unwrap_or_default();
        let value = match field.input {
            Input::Lines | Input::Many(_) | Input::Checks(_) => json!(texts),
            Input::Switch => json!(!texts.is_empty()),
            Input::Json if texts.is_empty() => continue,
            Input::Json => match parse(first().as_bytes()) {
                Ok(value) => value,
                Err(fault) => {
                    faults.push(FieldFault::new(field.pointer, detail(fault)));
                    continue;
                }
            },
            _ if texts.is_empty() && field.need == Need::Optional => continue,
            _ => json!(first()),
        };
        put(&mut object, field.pointer, value);
    }
    if faults.is_empty() { Ok(object) } else { Err(faults) }
}

/// What is wrong with a field of this pointer, and which faults are of none.
pub(super) fn errors(kind: &Kind, faults: &[FieldFault]) -> (Vec<String>, Vec<FieldFault>) {
    let mut texts = vec![String::new(); kind.fields.len()];
    let mut others = Vec::new();
    for fault in faults {
        let is_below =
            |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'));
        let is_of = |field: &Field| {
            let (ours, theirs) = (field.pointer, fault.pointer.as_str());
            ours == theirs || is_below(theirs, ours) || (!theirs.is_empty() && is_below(ours, theirs))
        };
        let Some(index) = kind.fields.iter().position(is_of) else {
            others.push(fault.clone());
            continue;
        };
        let place = fault.pointer.strip_prefix(kind.fields[index].pointer).unwrap_or_default();
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        texts[index] = format!("{}{place}{}. ", texts[index], fault.detail);
    }
    (texts, others)
}

/// A value in a list.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A field with what is in it; `names` are those of the kind that it chooses from, none if they are too many.
pub(super) fn filled(field: &Field, texts: &[String], error: &str, names: Option<Vec<String>>) -> Filled {
    let first = texts.first().cloned().unwrap_or_default();
    let choice = |value: &str, label: &str| Choice {
        value: value.to_owned(),
        label: label.to_owned(),
        is_chosen: texts.iter().any(|text| text == value),
    };
    let listed =
        |choices: &[(&str, &str)]| choices.iter().map(|(value, label)| choice(value, label)).collect();
    // What is there already stays a choice, although nothing of that name is.
    let named = |names: Vec<String>| -> Vec<Choice> {
        let gone = texts.iter().filter(|text| !names.contains(text) && !text.is_empty());
        names.iter().chain(gone).map(|name| choice(name, name)).collect()
    };
    let lines = texts.join("\n");
    let (shape, value, mut options): (Shape, String, Vec<Choice>) = match (field.input, names) {
        (Input::Text, _) | (Input::One(_), None) => (Shape::Line, first, Vec::new()),
        (Input::Long, _) => (Shape::Area, first, Vec::new()),
        (Input::Lines, _) | (Input::Many(_), None) => (Shape::Area, lines, Vec::new()),
        (Input::Json, _) => (Shape::Code, first, Vec::new()),
        (Input::Choice(choices), _) => (Shape::Select, first, listed(choices)),
        (Input::Checks(choices), _) => (Shape::Checks, String::new(), listed(choices)),
        (Input::Switch, _) => (Shape::Checks, String::new(), listed(&[("yes", "Yes")])),
        (Input::One(_), Some(names)) => (Shape::Select, first, named(names)),
        (Input::Many(_), Some(names)) => (Shape::Checks, String::new(), named(names)),
    };
    let is_required = field.need == Need::Required && matches!(shape, Shape::Line | Shape::Select);
    if shape == Shape::Select && (!is_required || options.iter().all(|option| !option.is_chosen)) {
        options
            .insert(0, Choice { value: String::new(), label: "—".to_owned(), is_chosen: value.is_empty() });
    }
    let (name, error) = (name_of(field), error.trim().to_owned());
    Filled { name, label: field.label, hint: field.hint, shape, value, options, error, is_required }
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    let mut steps = pointer[1..].split('/').peekable();
    while let Some(step) = steps.next() {
        if steps.peek().is_none() {
            place[step] = value;
            return;
        }
        if !place[step].is_object() {
            place[step] = json!({});
        }
        place = &mut place[step];
    }
}

fn detail(fault: Fault) -> String {
    match fault {
        Fault::Malformed(detail) => detail,
        _ => "this is no JSON".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::kinds::{KINDS, kind};

    #[test]
    fn an_object_comes_through_a_form_as_it_was() {
        let member = kind("members").unwrap();
        let whole = json!({
            "cluster": "edge", "roles": ["ingester", "egress"], "link": {"listen": "a:1", "address": "b:2"},
            "description": "x\ny", "settings": {"node": {"workers": 2}},
        });
        assert_eq!(object(member, &of_object(member, &whole)).unwrap(), whole);
        let policy = kind("policies").unwrap();
        let whole = json!({
            "clusters": [], "scope": "links", "allow": ["spiffe://a/*"], "deny": [], "dry_run": true, "description": "",
        });
        assert_eq!(object(policy, &of_object(policy, &whole)).unwrap(), whole);
    }

    #[test]
    fn faults_are_told_at_their_fields() {
        let member = kind("members").unwrap();
        let fault = |pointer: &str| FieldFault::new(pointer, "is wrong");
        let faults = ["/cluster", "/settings/node/x", "/link", "", "/unknown"].map(fault);
        let (texts, others) = errors(member, &faults);
        let of = |pointer: &str| {
            let index = member.fields.iter().position(|field| field.pointer == pointer).unwrap();
            texts[index].as_str()
        };
        assert_eq!((of("/cluster"), of("/settings")), ("is wrong. ", "/node/x: is wrong. "));
        assert_eq!((of("/link/listen"), of("/roles")), ("is wrong. ", ""));
        assert_eq!(others.len(), 2, "{others:?}");
    }

    #[test]
    fn broken_json_is_told_at_its_field() {
        for kind in KINDS {
            for (index, field) in kind.fields.iter().enumerate() {
                let mut values = vec![Vec::new(); kind.fields.len()];
                values[index] = vec!["{\"a\": 1, \"a\": <}".to_owned()];
                let made = object(kind, &values);
                assert_eq!(
                    made.is_err(),
                    matches!(field.input, Input::Json),
                    "{} {}",
                    kind.path,
                    field.pointer
                );
            }
        }
    }
}
