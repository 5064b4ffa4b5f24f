//! `agents --revocation`: from the command to what is out. Each round denies a simulated agent, and an egress whose link
//! with an ingester is up: real nodes, a real zen-agent and zen-lockd, whose control plane the simulated agents share.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::crowd::{Crowd, cluster};
use super::site::Site;
use super::{Options, SETTLE};
use crate::bench::machine;
use crate::error::LabError;
use crate::lab::{Lab, Metrics, Shape, Steps, node_program, wait_ready};
use crate::pairs::Rounds;
use crate::pki::TRUST_DOMAIN;

const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_mins(2);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The cluster of the lab's own nodes.
const LAB_CLUSTER: &str = "demo";
const LINKS: &str = "zen_link_connections";
const LINK_ERRORS: &str = "zen_link_errors_total";

/// Milliseconds from the command's start.
#[derive(Default)]
struct Times {
    /// Until the waiting question of a denied agent was refused, which ends its connection.
    question: Rounds,
    /// Until its handshakes are refused.
    handshake: Rounds,
    /// Until all others had the list.
    list: Rounds,
    /// Until the link of a denied node was gone.
    link: Rounds,
    /// Until its next attempt was refused, after the pause that the node makes.
    attempt: Rounds,
}

/// Measures, and prints a table.
pub(super) async fn run(options: &Options) -> Result<ExitCode, LabError> {
    let program = node_program(None)?;
    let (lab, vault, trust) = Lab::make_managed(&options.dir, Shape::DEMO, 1, &program)?;
    let mut lockd = vault.start()?;
    vault.wait_ready(&mut lockd).await?;
    let mut control = trust.start_control(&lab)?;
    trust.enroll(&lab, &vault, &mut control, &mut Steps::begin()).await?;
    let mut agent = trust.start_agent(&lab)?;
    trust.wait_published(&lab, &mut agent).await?;
    let mut egress = lab.start(&lab.egresses[0], &program)?;
    let mut ingester = lab.start(&lab.ingester, &program)?;
    wait_ready(&lab.egresses[0], &mut egress).await?;
    wait_ready(&lab.ingester, &mut ingester).await?;

    let site = Site::of_lab(&lab.directory, trust.listen())?;
    let mut crowd = Crowd::enroll(&site, options.count).await?;
    crowd.start();
    crowd.wait_for(1, &mut control).await?;
    println!(
        "{}; {} simulated agents, a zen-agent and two nodes with a live link; {} rounds",
        machine(),
        options.count,
        options.rounds
    );
    let mut times = Times::default();
    for round in 0..options.rounds.min(options.count) {
        wait_links(&lab, |links| links > 0.0).await?;
        // Whoever was let in again, and all who have a new list, wait again by then.
        tokio::time::sleep(SETTLE).await;
        times.deny_agent(&site, &mut crowd, round).await?;
        times.deny_node(&site, &lab).await?;
    }
    times.print();
    for process in [&mut ingester, &mut egress, &mut agent, &mut control, &mut lockd] {
        process.stop(STOP_TIMEOUT).await;
    }
    Ok(ExitCode::SUCCESS)
}

impl Times {
    async fn deny_agent(&mut self, site: &Site, crowd: &mut Crowd, index: usize) -> Result<(), LabError> {
        let (agent, version) = (crowd.agent(index), crowd.version());
        let begun = Instant::now();
        let refused = tokio::spawn(refused_at(agent));
        site.deny(&format!("spiffe://{TRUST_DOMAIN}/agent/{}", cluster(index)))?;
        let (question, list) = crowd.wait_for_denial(index, version).await?;
        let handshake = refused.await.expect("it does not panic")?;
        let ms = |at: Instant| at.saturating_duration_since(begun).as_secs_f64() * 1e3;
        self.question.0.push(ms(question));
        self.handshake.0.push(ms(handshake));
        self.list.0.push(ms(list));
        // It is let in again: rounds are alike.
        site.allow(&format!("spiffe://{TRUST_DOMAIN}/agent/{}", cluster(index)))
    }

    async fn deny_node(&mut self, site: &Site, lab: &Lab) -> Result<(), LabError> {
        let id = format!("spiffe://{TRUST_DOMAIN}/{LAB_CLUSTER}/{}", lab.egresses[0].name);
        let errors = Metrics::scrape(lab.ingester.admin).await.sum(LINK_ERRORS, "");
        let begun = Instant::now();
        site.deny(&id)?;
        wait_links(lab, |links| links == 0.0).await?;
        self.link.0.push(begun.elapsed().as_secs_f64() * 1e3);
        while Metrics::scrape(lab.ingester.admin).await.sum(LINK_ERRORS, "") <= errors {
            check(begun)?;
            tokio::time::sleep(POLL).await;
        }
        self.attempt.0.push(begun.elapsed().as_secs_f64() * 1e3);
        site.allow(&id)
    }

    fn print(&self) {
        println!(
            "ms from the start of `zen-control deny`: median (least to most)\n| until | ms |\n|---|---|"
        );
        for (what, times) in [
            ("the waiting question of a denied agent is refused, and its connection closed", &self.question),
            ("its next handshake is refused", &self.handshake),
            ("all other agents have the list", &self.list),
            ("the link of a denied node is gone at its peer", &self.link),
            ("the peer has counted a refusal of it", &self.attempt),
        ] {
            println!("| {what} | {} |", times.text(0));
        }
    }
}

/// When a connection of this agent came to nothing for the first time.
async fn refused_at(agent: Arc<Agent>) -> Result<Instant, LabError> {
    let begun = Instant::now();
    loop {
        check(begun)?;
        if agent.is_refused().await {
            return Ok(Instant::now());
        }
        tokio::time::sleep(4 * POLL).await;
    }
}

async fn wait_links(lab: &Lab, is_so: impl Fn(f64) -> bool) -> Result<(), LabError> {
    let begun = Instant::now();
    while !is_so(Metrics::scrape(lab.ingester.admin).await.sum(LINKS, "")) {
        check(begun)?;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn check(begun: Instant) -> Result<(), LabError> {
    if begun.elapsed() < PATIENCE {
        return Ok(());
    }
    Err(LabError::Late { what: "a denial, or what it takes back", seconds: PATIENCE.as_secs() })
}
