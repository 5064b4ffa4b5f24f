//! What a test needs of a browser: links and forms of a page, forms sent with what they hold, somebody who is signed in.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use zen_control::{Role, add_person};

use crate::client::Answer;
use crate::lab::{Browser, Lab, now_ms};

pub const SESSION: &str = "__Host-zen-session";

/// A form of a page.
#[derive(Clone, Debug)]
pub struct Form {
    pub action: String,
    pub is_post: bool,
    /// As they would be sent, buttons among them.
    pub fields: Vec<(String, String)>,
    /// Names of buttons' values, to choose one of.
    pub buttons: Vec<(String, String)>,
}

/// Somebody with a role in the first tenant, if any, in a browser with a session.
pub async fn person(lab: &Lab, name: &str, role: Option<Role>) -> Browser {
    let mut browser = lab.browser().await;
    if let Some(role) = role.filter(|_| name != "owner") {
        add_person(&mut lab.database(), name, (None, role), now_ms()).unwrap();
    }
    let cookie = hex(digest(&SHA256, name.as_bytes()).as_ref());
    let sql = "INSERT INTO sessions (hash, person, actor, made_ms, used_ms) VALUES (?1, ?2, ?3, ?4, ?4)";
    let now = i64::try_from(now_ms()).unwrap();
    let hash = digest(&SHA256, cookie.as_bytes());
    let row = (hash.as_ref(), name, format!("person:{name}"), now);
    lab.database().execute(sql, row).unwrap();
    browser.cookies.insert(SESSION.to_owned(), cookie);
    browser
}

pub async fn owner(lab: &Lab) -> Browser {
    person(lab, "owner", Some(Role::Owner)).await
}

/// Sends a form whose fields are these; others stay as they are in it.
pub async fn send(browser: &mut Browser, form: &Form, fields: &[(&str, &str)]) -> Answer {
    let kept = form.fields.iter().filter(|(name, _)| fields.iter().all(|(other, _)| other != name));
    let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
    let pairs: Vec<String> = kept
        .chain(fields.iter().copied())
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    if !form.is_post {
        return browser.get(&format!("{}?{}", form.action, pairs.join("&"))).await;
    }
    raw(browser, &form.action, &pairs.join("&")).await
}

/// A body as it is.
pub async fn raw(browser: &mut Browser, path: &str, body: &str) -> Answer {
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Sec-Fetch-Site", "same-origin")];
    browser.ask("POST", path, &headers, body).await
}

/// The forms of a page that was at this path.
pub fn forms(page: &str, path: &str) -> Vec<Form> {
    let mut found = Vec::new();
    for part in page.split("<form").skip(1) {
        let (tag, rest) = part.split_once('>').unwrap();
        let inside = rest.split("</form>").next().unwrap();
        let action = attribute(tag, "action").unwrap_or_else(|| path.split('?').next().unwrap().to_owned());
        let is_post = attribute(tag, "method").as_deref() == Some("post");
        let (mut fields, mut buttons) = (Vec::new(), Vec::new());
        for element in inside.split('<').skip(1) {
            let (tag, text) = element.split_once('>').unwrap_or((element, ""));
            let name = attribute(tag, "name").unwrap_or_default();
            let value = attribute(tag, "value").unwrap_or_default();
            if name.is_empty() {
                continue;
            }
            if tag.starts_with("input") {
                let is_box = tag.contains("type=\"checkbox\"");
                if !is_box || tag.contains(" checked") {
                    fields.push((name, value));
                }
            } else if tag.starts_with("textarea") {
                fields.push((name, unescaped(text.strip_prefix('\n').unwrap_or(text))));
            } else if tag.starts_with("select") {
                fields.push((name, String::new()));
            } else if tag.starts_with("button") {
                buttons.push((name, value));
            }
        }
        found.push(Form { action, is_post, fields, buttons });
    }
    found
}

/// The form of a page that has such a field.
pub fn form_with(answer: &Answer, path: &str, field: &str) -> Form {
    let page = answer.text();
    let found = forms(&page, path).into_iter().find(|form| form.fields.iter().any(|(name, _)| name == field));
    found.unwrap_or_else(|| panic!("{} no form with {field}: {page}", answer.status))
}

/// Paths of the same host that a page leads to.
pub fn links(page: &str) -> BTreeSet<String> {
    let found = page.split("href=\"").skip(1).filter_map(|part| part.split('"').next());
    found.filter(|link| link.starts_with('/')).map(unescaped).collect()
}

pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    text.bytes().fold(String::new(), |text, byte| {
        if plain(byte) { text + &char::from(byte).to_string() } else { text + &format!("%{byte:02X}") }
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let rest = tag.split_once(&format!(" {name}=\""))?.1;
    rest.split('"').next().map(unescaped)
}

fn unescaped(text: &str) -> String {
    let pairs = [
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
    ];
    let text = pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    text.replace("&#38;", "&").replace("&amp;", "&")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
