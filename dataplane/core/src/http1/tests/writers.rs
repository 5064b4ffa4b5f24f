use std::string::String;
use std::vec::Vec;

use super::at_every_cut;
use crate::http1::fuzz::Seen;
use crate::http1::{
    Connection, Limits, RequestParser, ResponseParser, Status, write_problem, write_request_head,
    write_response,
};

#[test]
fn responses_are_exact() {
    let mut out = b"before".to_vec();
    let extra = [("retry-after", "1")];
    write_response(
        &mut out,
        Status::Accepted202,
        "application/json",
        &extra,
        &[b"{", b"}"],
        Connection::KeepAlive,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "beforeHTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: keep-alive\r\ncontent-length: 2\r\n\r\n{}"
    );
    let mut out = Vec::new();
    write_response(&mut out, Status::Ok200, "", &[], &[], Connection::Close);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn every_problem_is_json_that_our_own_parser_reads() {
    let detail = "a \"quote\", a \\, a \n, a \u{0} and \u{e4}";
    for status in Status::ALL {
        let mut out = Vec::new();
        write_problem(&mut out, status, detail, &[], Connection::KeepAlive);
        let seen = at_every_cut(&out, || ResponseParser::new(Limits::default()));
        let [Seen::Head(head), Seen::Body(body), Seen::End, _] = &seen[..] else { panic!("{seen:?}") };
        assert!(head.contains("content-type=application/problem+json\n"), "{head}");
        assert!(head.starts_with(&std::format!("{} keep=true\n", status.code())), "{head}");
        let problem: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(problem["detail"], detail);
        assert_eq!(problem["status"], status.code());
        assert_eq!(problem["title"], status.reason());
        assert_eq!(problem["type"], std::format!("https://zen-mesh.io/errors/{}", status.slug()));
    }
}

#[test]
fn a_written_request_is_read_back() {
    let mut out = Vec::new();
    let headers = [("Webhook-Id", "e1"), ("content-type", "text/plain")];
    write_request_head(&mut out, "POST", "/in?a=b", "target.example:8443", headers, 3);
    assert_eq!(
        out,
        b"POST /in?a=b HTTP/1.1\r\nhost: target.example:8443\r\nWebhook-Id: e1\r\ncontent-type: text/plain\r\n\
          content-length: 3\r\n\r\n"
    );
    out.extend_from_slice(b"abc");
    let seen = at_every_cut(&out, || RequestParser::new(Limits::default()));
    assert!(matches!(&seen[..], [Seen::Head(_), Seen::Body(body), Seen::End, _] if body == b"abc"));
}

#[test]
fn values_that_break_framing_abort() {
    let request = |method: &str, target: &str, host: &str, header: (&str, &str)| {
        let case = std::format!("{method} {target} {host} {header:?}");
        let (method, target, host) = (String::from(method), String::from(target), String::from(host));
        let (name, value) = (String::from(header.0), String::from(header.1));
        let written = std::panic::catch_unwind(move || {
            write_request_head(&mut Vec::new(), &method, &target, &host, [(&name[..], &value[..])], 0);
        });
        (written.is_ok(), case)
    };
    assert!(request("POST", "/", "a", ("x", "y")).0);
    for (method, target, host, header) in [
        ("PO ST", "/", "a", ("x", "y")),
        ("POST", "x", "a", ("x", "y")),
        ("POST", "/ x", "a", ("x", "y")),
        ("POST", "/\r\nx", "a", ("x", "y")),
        ("POST", "/", "a\r\nx: y", ("x", "y")),
        ("POST", "/", "", ("x", "y")),
        ("POST", "/", "a", ("x\r\ny", "z")),
        ("POST", "/", "a", ("", "z")),
        ("POST", "/", "a", ("x ", "z")),
        ("POST", "/", "a", ("x", "a\r\nb: c")),
        ("POST", "/", "a", ("x", "a\nb")),
        ("POST", "/", "a", ("x", "\u{0}")),
        ("POST", "/", "a", ("Content-Length", "1")),
        ("POST", "/", "a", ("transfer-encoding", "chunked")),
        ("POST", "/", "a", ("Host", "b")),
    ] {
        let (written, case) = request(method, target, host, header);
        assert!(!written, "{case}");
    }
    let response = std::panic::catch_unwind(|| {
        write_response(&mut Vec::new(), Status::Ok200, "a\r\nb: c", &[], &[], Connection::Close);
    });
    assert!(response.is_err());
}
