//! `zen-agent run`: one loop. Whatever it waits for can be dropped at any moment: all that counts is on disk.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use zen_control_api::{MemberReport, SignedConfiguration, StatusReport};

use crate::agent::{Agent, ExchangeError, Kept};
use crate::clock::random;
use crate::config::Config;
use crate::core::{Backoff, jittered};
use crate::state::StateError;
use crate::status::Snapshot;

/// A report at least this often; the wall clock is looked at as often.
const HEARTBEAT_MS: u64 = 30_000;
/// Between two questions for a configuration, half more or less.
const QUESTION_PAUSE_MS: u64 = 1_000;
const QUESTION_JITTER_PERCENT: u64 = 50;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no identity.
    #[error("not enrolled; first: zen-agent enroll --bundle FILE --config FILE")]
    NotEnrolled,
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system.
    #[error("signals: {0}")]
    Signals(#[from] std::io::Error),
}

type Question = Pin<Box<dyn Future<Output = Result<Option<SignedConfiguration>, ExchangeError>>>>;

/// What is said to the control plane and to the disk, and when it was.
#[derive(Default)]
struct Reporter {
    reported: Option<StatusReport>,
    report_steady_ms: u64,
    backoff: Backoff,
    written: Option<Snapshot>,
    write_steady_ms: u64,
}

/// Runs until a signal ends it.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let mut agent = Agent::load(config)?;
    tracing::info!(configuration = agent.version(), members = agent.nodes.len(), "ready");
    tokio::select! {
        never = serve(&mut agent, hangup) => match never {},
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn serve(agent: &mut Agent, mut hangup: Signal) -> Infallible {
    let mut reporter = Reporter::default();
    let mut backoff = Backoff::default();
    let mut question = question(agent, 0);
    loop {
        if agent.renew().await {
            // What was asked for without an identity is asked again with one.
            backoff.handle_success();
            question = self::question(agent, 0);
        }
        agent.advance_links();
        agent.publish();
        agent.tell().await;
        // What nodes have taken is news for the other ends of their links.
        agent.advance_links();
        agent.state_links().await;
        agent.sync().await;
        agent.relay().await;
        reporter.report(agent).await;
        let wait = agent.wait_ms().min(reporter.wait_ms(agent));
        tokio::select! {
            answer = &mut question => {
                let pause = handle_answer(agent, &mut backoff, answer);
                question = self::question(agent, pause);
            }
            _ = hangup.recv() => agent.handle_order(),
            () = sleep(Duration::from_millis(wait)) => {}
        }
    }
}

/// A question for the next configuration, after a pause.
fn question(agent: &mut Agent, pause_ms: u64) -> Question {
    let (control, after) = (agent.control(), agent.version());
    Box::pin(async move {
        sleep(Duration::from_millis(pause_ms)).await;
        Ok(control?.configuration(after).await?)
    })
}

/// How long to wait before the next question, ms.
fn handle_answer(
    agent: &mut Agent,
    backoff: &mut Backoff,
    answer: Result<Option<SignedConfiguration>, ExchangeError>,
) -> u64 {
    let now = agent.clock.now();
    let (is_good, retry_after_ms) = match answer {
        Ok(signed) => {
            agent.reach.handle_answer(now);
            agent.syncing.handle_news();
            if signed.is_none() {
                agent.confirm();
            }
            (signed.is_none_or(|signed| agent.handle_configuration(&signed, Kept::Nowhere)), None)
        }
        Err(error) => (false, handle_error(agent, &error)),
    };
    if !is_good {
        return backoff.handle_failure(retry_after_ms, random());
    }
    backoff.handle_success();
    jittered(QUESTION_PAUSE_MS, QUESTION_JITTER_PERCENT, random())
}

fn handle_error(agent: &mut Agent, error: &ExchangeError) -> Option<u64> {
    let now = agent.clock.now();
    match error {
        ExchangeError::Control(error) if error.is_answered() => agent.reach.handle_answer(now),
        error => agent.reach.handle_silence(error.to_string(), now),
    }
    match error {
        ExchangeError::Control(error) => error.retry_after_ms(),
        ExchangeError::Identity(_) | ExchangeError::State(_) => None,
    }
}

impl Reporter {
    /// Says what has changed, or that nothing has for a while.
    async fn report(&mut self, agent: &mut Agent) {
        let now = agent.clock.now();
        let report = report_of(agent);
        let is_new = self.reported.as_ref() != Some(&report) && self.backoff.failures() == 0;
        if is_new || now.steady_ms >= self.report_steady_ms {
            let sent = match agent.control() {
                Ok(control) => control.report(&report).await.map_err(ExchangeError::from),
                Err(error) => Err(error),
            };
            let now = agent.clock.now();
            let wait = match sent {
                Ok(()) => {
                    agent.reach.handle_answer(now);
                    self.backoff.handle_success();
                    self.reported = Some(report);
                    HEARTBEAT_MS
                }
                Err(error) => {
                    let retry_after_ms = handle_error(agent, &error);
                    self.backoff.handle_failure(retry_after_ms, random())
                }
            };
            self.report_steady_ms = now.steady_ms.saturating_add(wait);
        }
        self.write(agent);
    }

    fn write(&mut self, agent: &Agent) {
        let (now, mut snapshot) = (agent.clock.now(), agent.snapshot());
        let at_ms = std::mem::take(&mut snapshot.at_ms);
        if self.written.as_ref() == Some(&snapshot) && now.steady_ms < self.write_steady_ms {
            return;
        }
        agent.write_snapshot(&Snapshot { at_ms, ..snapshot.clone() });
        self.written = Some(snapshot);
        self.write_steady_ms = now.steady_ms.saturating_add(HEARTBEAT_MS);
    }

    fn wait_ms(&self, agent: &Agent) -> u64 {
        let now = agent.clock.now().steady_ms;
        let report = self.report_steady_ms.saturating_sub(now);
        report.min(self.write_steady_ms.saturating_sub(now))
    }
}

fn report_of(agent: &Agent) -> StatusReport {
    let named = |name: &str| agent.configuration.as_ref().is_some_and(|read| read.members.contains_key(name));
    let members = agent.nodes.iter().filter(|(name, _)| named(name)).map(|(name, node)| {
        let validity = node.holder.renewal.validity();
        let certificate_not_after_ms = validity.map_or(0, |validity| validity.not_after_ms);
        (name.clone(), MemberReport { outcome: node.outcome(), certificate_not_after_ms })
    });
    StatusReport {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        configuration: agent.version(),
        members: members.collect(),
    }
}
