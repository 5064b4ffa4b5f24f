//! What the demo shows before its load: a duplicate, a fan-out, a dead letter and its replay, a line each.
//!
//! Each is done as a user would, with the curl line and the node's own commands, and is wrong if it does not show.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::own::{Curl, send};
use super::{Arrival, Screen};
use crate::error::LabError;
use crate::lab::{Lab, Metrics, Steps, TOUR_FAN_OUT, TOUR_FLAKY};
use crate::pki::write_file;

/// How long each thing may take.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// While this file is there, the target `flaky` answers 500.
pub(super) const DOWN_FILE: &str = "flaky-is-down";

/// A demo before its load.
pub(super) struct Tour<'a> {
    pub(super) lab: &'a Lab,
    pub(super) program: &'a Path,
    pub(super) curl: &'a Curl,
    pub(super) screen: &'a Screen,
    pub(super) lines: &'a mut mpsc::Receiver<String>,
    pub(super) steps: &'a mut Steps,
}

impl Tour<'_> {
    /// Shows all four; what did not show is a complaint.
    pub(super) async fn run(mut self) -> Result<Vec<String>, LabError> {
        let mut complaints = Vec::new();
        complaints.extend(self.duplicate().await.err());
        complaints.extend(self.fan_out().await.err());
        let down = self.lab.directory.join(DOWN_FILE);
        write_file(&down, b"", 0o644)?;
        match self.dead_letter().await {
            Err(complaint) => complaints.push(complaint),
            Ok(event) => {
                std::fs::remove_file(&down).map_err(LabError::file(&down))?;
                complaints.extend(self.replay(&event).await.err());
            }
        }
        Ok(complaints)
    }

    async fn duplicate(&mut self) -> Result<(), String> {
        let command = self.curl.line("ping", "tour-duplicate");
        let (first, _) = send(&command)?;
        let arrival = self.arrival().await?;
        self.steps.done("an event was signed and sent, and is delivered");
        let (again, answer) = send(&command)?;
        if first != again || !answer.contains("\"duplicate\":true") || arrival.event_id != first {
            return Err(format!("duplicate: {first} was sent again and answered {answer}"));
        }
        self.show("duplicate", &first, "sent again: 200 with the same id, not delivered again");
        Ok(())
    }

    async fn fan_out(&mut self) -> Result<(), String> {
        let (event, _) = send(&self.curl.line(TOUR_FAN_OUT, "tour-fan-out"))?;
        let mut reached = BTreeSet::new();
        for _ in 0..3 {
            let arrival = self.arrival().await?;
            if arrival.event_id != event {
                return Err(format!("fan-out: {} arrived in place of {event}", arrival.event_id));
            }
            reached.insert(arrival.target);
        }
        let reached: Vec<String> = reached.into_iter().collect();
        if reached != ["archive", "audit", "billing"] {
            return Err(format!("fan-out: {event} reached {}", reached.join(", ")));
        }
        self.show("fan-out", &event, &format!("delivered to {}", reached.join(", ")));
        Ok(())
    }

    /// The event that became one.
    async fn dead_letter(&mut self) -> Result<String, String> {
        let (event, _) = send(&self.curl.line(TOUR_FLAKY, "tour-dead-letter"))?;
        // At billing once, and at the target that fails twice.
        for _ in 0..3 {
            self.arrival().await?;
        }
        let until = Instant::now() + PATIENCE;
        let letter = loop {
            let listed = self.command(&["list", "--event", &event, "--json"])?;
            match serde_json::from_str::<Value>(listed.lines().next().unwrap_or_default()) {
                Ok(letter) => break letter,
                Err(_) if Instant::now() < until => tokio::time::sleep(POLL).await,
                Err(_) => return Err(format!("dead letter: {event} is not listed")),
            }
        };
        let text = |name: &str| letter[name].to_string().trim_matches('"').to_owned();
        let [target, reason, status, attempts] = ["target", "reason", "status", "attempts"].map(text);
        self.show(
            "dead letter",
            &event,
            &format!("for {target}: {reason} ({status}) after {attempts} attempts"),
        );
        Ok(event)
    }

    async fn replay(&mut self, event: &str) -> Result<(), String> {
        self.command(&["replay", "--event", event])?;
        let arrival = self.arrival().await?;
        let mark = arrival.headers.get("zen-replay").map(String::as_str);
        if arrival.event_id != event || arrival.target != "flaky" || mark != Some("1") {
            return Err(format!(
                "replay: {} arrived at {} with the mark {mark:?}",
                arrival.event_id, arrival.target
            ));
        }
        let egress = &self.lab.egresses[0];
        let until = Instant::now() + PATIENCE;
        while Metrics::scrape(egress.admin).await.sum("zen_dead_letters_kept", "") > 0.0 {
            if Instant::now() > until {
                return Err(format!("replay: {event} is still a dead letter"));
            }
            tokio::time::sleep(POLL).await;
        }
        self.show("replay", event, "delivered to flaky, with the same id and zen-replay: 1");
        Ok(())
    }

    /// A command of the egress's dead letters.
    fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program);
        command.args(["dead-letters", arguments[0], "--config"]).arg(&self.lab.egresses[0].config);
        let output = command.args(&arguments[1..]).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!(
                "dead-letters {}: {}",
                arguments[0],
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn arrival(&mut self) -> Result<Arrival, String> {
        let line = timeout(PATIENCE, self.lines.recv()).await.ok().flatten();
        let line = line.ok_or("nothing arrived at the targets")?;
        let arrival: Arrival = serde_json::from_str(&line).map_err(|_| format!("target: {line}"))?;
        match &arrival.fault {
            Some(fault) => Err(format!("{} at {}: {fault}", arrival.event_id, arrival.target)),
            None => Ok(arrival),
        }
    }

    fn show(&self, what: &str, event: &str, text: &str) {
        let id = event.get(24..).unwrap_or(event);
        self.screen.line(&format!("{what:<11}  {id}  {text}"));
    }
}
