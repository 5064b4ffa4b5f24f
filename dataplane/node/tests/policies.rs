//! Policies of peers as operators write them: deny beats allow, prefixes end at segments, and what is only tried refuses nobody.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh::{Mesh, delivered, distinct, ingester_dials, target};
use nix::sys::signal::Signal;
use support::node::{Node, run, wait_until};
use support::pki::TRUST_DOMAIN;
use support::{Lab, Ports, change};
use target::{Answer, Target};

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dials {
    Egress,
    Ingester,
}

/// What each section gets, one for each peer that is expected.
#[derive(Clone, Copy, Default)]
struct Policies<'a> {
    /// Of the egress, at the ingester.
    egress: &'a str,
    /// Of the ingester, at the egress.
    ingester: &'a str,
    target: &'a str,
}

/// `text` with more keys behind the SPIFFE ids of the peer with this path.
fn with(text: &str, peer: &str, keys: &str) -> String {
    let line = format!("spiffe_ids = [\"spiffe://{TRUST_DOMAIN}/{peer}\"]\n");
    change(text, &line, &format!("{line}{}\n", keys.replace("TD", TRUST_DOMAIN)))
}

fn path(dials: Dials, policies: Policies<'_>) -> (Mesh, Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let (edge_ports, inside_ports) = (Ports::pick(), Ports::pick());
    let retries =
        "retry = { first_ms = 50, max_ms = 200, attempts_max = 100 }\nbreaker = { enabled = false }";
    let section = with(&lab.target_text("demo", target.address, retries), "target/demo", policies.target);
    let pauses = |text: &str| change(text, "log = \"info\"", "log = \"info\"\nlink_pause_ms_max = 200");
    let edge = with(&pauses(&lab.ingester_text(edge_ports)), "egress/inside", policies.egress);
    let inside = pauses(&lab.egress_text(inside_ports, edge_ports.link, &section));
    let inside = with(&inside, "ingester/edge", policies.ingester);
    let (edge, inside) = match dials {
        Dials::Egress => (edge, inside),
        Dials::Ingester => ingester_dials(&edge, &inside, inside_ports.link, edge_ports.link),
    };
    let (edge_text, inside_text) = (edge, inside);
    let edge = lab.start("edge", edge_ports, &edge_text);
    let inside = lab.start("inside", inside_ports, &inside_text);
    (Mesh { edge, inside, edge_ports, inside_ports, edge_text, inside_text, lab }, target)
}

fn trials(node: &Node, at: &str, verdict: &str) -> usize {
    node.metric(&format!("zen_policy_trials_total{{at=\"{at}\",verdict=\"{verdict}\"}}")) as usize
}

/// Nothing is refused by any of them, at either end of the link, whoever dials, nor at the target.
#[test]
fn what_is_only_tried_is_counted_and_refuses_nobody() {
    let policies = Policies {
        egress: "dry_run = { spiffe_ids = [\"spiffe://TD/egress/insid/*\"] }",
        ingester: "dry_run = { spiffe_ids = [\"spiffe://TD/*\"], deny_spiffe_ids = [\"spiffe://TD/ingester/*\"] }",
        target: "dry_run = { spiffe_ids = [\"spiffe://TD/target/*\"] }",
    };
    for (dials, edge_at, inside_at) in
        [(Dials::Egress, "listener", "link"), (Dials::Ingester, "link", "listener")]
    {
        let (mesh, target) = path(dials, policies);
        let ids = mesh.send_many(3, 100);
        assert_eq!(delivered(&target.wait(3)), distinct(ids), "{dials:?}");
        assert!(trials(&mesh.edge, edge_at, "not_listed") >= 1, "{dials:?}");
        assert!(trials(&mesh.inside, inside_at, "denied") >= 1, "{dials:?}");
        assert!(trials(&mesh.inside, "target", "allowed") >= 1, "{dials:?}");
        mesh.edge.wait_log("a policy that is only tried decides otherwise");
        let log = mesh.inside.log();
        let line = log.lines().find(|line| line.contains("only tried decides otherwise")).unwrap();
        for part in ["decided=\"allowed\"", "would_be=\"denied\"", "/ingester/edge"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(
            mesh.edge.metric("zen_policy_trials_total") as usize,
            trials(&mesh.edge, edge_at, "not_listed")
        );
    }
}

/// The same rules in force refuse, and what waited arrives when they are gone.
#[test]
fn deny_beats_allow_at_links_and_targets() {
    let deny = |path: &str| format!("deny_spiffe_ids = [\"spiffe://{TRUST_DOMAIN}/{path}\"]");
    let (egress, ingester, of_target) = (deny("egress/*"), deny("ingester/edge"), deny("target/*"));
    for dials in [Dials::Egress, Dials::Ingester] {
        for (at_edge, policies) in [
            (true, Policies { egress: &egress, ..Policies::default() }),
            (false, Policies { ingester: &ingester, ..Policies::default() }),
        ] {
            let (mut mesh, target) = path(dials, policies);
            let node = if at_edge { &mesh.edge } else { &mesh.inside };
            node.wait_log("(Denied)");
            let id = mesh.send(b"{}");
            assert_eq!(node.metric("zen_link_connects_total") as usize, 0);
            for denial in [&egress, &ingester] {
                mesh.edge_text = mesh.edge_text.replace(denial, "");
                mesh.inside_text = mesh.inside_text.replace(denial, "");
            }
            mesh.edge.kill();
            mesh.inside.kill();
            mesh.restart_edge();
            mesh.restart_inside();
            wait_until("what waited is delivered", || delivered(&target.deliveries()) == [id.clone()]);
        }
    }
    let (mesh, target) = path(Dials::Egress, Policies { target: &of_target, ..Policies::default() });
    let id = mesh.send(b"{}");
    mesh.inside.wait_log("(Denied)");
    mesh.inside.wait_metric("zen_deliveries_total{outcome=\"tls_failed\"}", 2.0);
    assert!(target.deliveries().is_empty());
    let text = mesh.inside_text.replace(&of_target, "");
    mesh.lab.write("inside.toml", &text);
    mesh.inside.signal(Signal::SIGHUP);
    wait_until("what waited is delivered", || delivered(&target.deliveries()) == [id.clone()]);
}

/// A rule that comes by a reload ends the links of whom it denies, and the connections to such a target.
#[test]
fn a_reload_ends_what_its_policies_deny() {
    for dials in [Dials::Egress, Dials::Ingester] {
        let (mesh, target) = path(dials, Policies::default());
        mesh.send(b"{\"before\":1}");
        target.wait(1);
        let denied =
            with(&mesh.inside_text, "ingester/edge", "deny_spiffe_ids = [\"spiffe://TD/ingester/*\"]");
        reload(&mesh.lab, &mesh.inside, &denied);
        mesh.inside.wait_metric("zen_link_errors_total{reason=\"not_admitted\"}", 1.0);
        mesh.inside.wait_log("(Denied)");
        let waits = mesh.send(b"{\"waits\":1}");
        let denied =
            with(&mesh.inside_text, "target/demo", "deny_spiffe_ids = [\"spiffe://TD/target/demo\"]");
        reload(&mesh.lab, &mesh.inside, &denied);
        mesh.inside.wait_metric("zen_deliveries_total{outcome=\"tls_failed\"}", 1.0);
        assert!(!delivered(&target.deliveries()).contains(&waits), "{dials:?}");
        reload(&mesh.lab, &mesh.inside, &mesh.inside_text);
        wait_until("what waited is delivered", || delivered(&target.deliveries()).contains(&waits));
    }
}

fn reload(lab: &Lab, node: &Node, text: &str) {
    let before = node.log().matches("configuration in force").count();
    lab.write("inside.toml", text);
    node.signal(Signal::SIGHUP);
    wait_until("it is in force", || node.log().matches("configuration in force").count() > before);
}

#[test]
fn mistakes_are_said_with_their_key() {
    let lab = Lab::new();
    let address = support::free_address();
    let section = lab.target_text("demo", address, "");
    let ids = format!("spiffe_ids = [\"spiffe://{TRUST_DOMAIN}/target/demo\"]");
    let base = |section: &str| lab.egress_text(Ports::pick(), address, section);
    let target = |keys: &str| base(&with(&section, "target/demo", keys));
    for (text, said) in [
        (target("deny_spiffe_ids = [\"spiffe://TD\"]"), "egress.targets[0].deny_spiffe_ids"),
        (target("dry_run = { spiffe_ids = [] }"), "egress.targets[0].dry_run.spiffe_ids: is empty"),
        (target("dry_run = { spiffe_ids = [\"spiffe://TD/a*\"] }"), "egress.targets[0].dry_run.spiffe_ids"),
        (target("dry_run = { spiffe_ids = [\"spiffe://TD/a\"], x = 1 }"), "unknown field"),
        (base(&change(&section, &ids, "dry_run = { spiffe_ids = [\"spiffe://a/b\"] }")), "and no spiffe_ids"),
        (base(&change(&section, &ids, "deny_spiffe_ids = [\"spiffe://a/b\"]")), "and no spiffe_ids"),
        (
            with(&base(""), "ingester/edge", "deny_spiffe_ids = [\"*\"]"),
            "egress.ingesters[0].deny_spiffe_ids",
        ),
    ] {
        let file = lab.write("checked.toml", &text);
        let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
        let error = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && error.contains(said), "{said}: {error}");
    }
}
