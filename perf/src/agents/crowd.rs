//! All agents of a run: enrolled together, started together, and who of them has which version.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::agent::{Agent, Event, Told};
use super::site::Site;
use crate::error::LabError;
use crate::lab::Process;

/// Commands at a time: each writes the database, and waits for the others.
const COMMANDS: usize = 2;
/// Enrollments at a time.
const ENROLLING: usize = 16;
const TOLD_MAX: usize = 65_536;
const ARRIVE_TIMEOUT: Duration = Duration::from_mins(2);
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Agents, and what they tell.
pub(super) struct Crowd {
    agents: Vec<Arc<Agent>>,
    running: JoinSet<()>,
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    /// What each has: the version, when it came, and what it has reported.
    has: Vec<(u64, Instant, u64)>,
    failures: usize,
}

impl Crowd {
    /// `count` agents, each with a bundle of its own.
    pub(super) async fn enroll(site: &Site, count: usize) -> Result<Self, LabError> {
        let mut bundles = Vec::with_capacity(count);
        std::thread::scope(|scope| {
            let part = |first: usize| (first..count).step_by(COMMANDS);
            let add = |index| site.add_cluster(&cluster(index)).map(|bundle| (index, bundle));
            let threads: Vec<_> = (0..COMMANDS)
                .map(|first| scope.spawn(move || part(first).map(add).collect::<Result<Vec<_>, _>>()))
                .collect();
            for thread in threads {
                bundles.extend(thread.join().expect("commands do not panic")?);
            }
            Ok::<(), LabError>(())
        })?;
        let (authorities, places) = (site.authorities()?, Arc::new(Semaphore::new(ENROLLING)));
        let mut enrolling = JoinSet::new();
        for (index, bundle) in bundles {
            let (authorities, places, address) = (authorities.clone(), places.clone(), site.address);
            enrolling.spawn(async move {
                let _place = places.acquire().await;
                Agent::enroll(index, address, &authorities, &bundle).await
            });
        }
        let mut agents = Vec::with_capacity(count);
        while let Some(enrolled) = enrolling.join_next().await {
            agents.push(Arc::new(enrolled.expect("an agent does not panic")?));
        }
        agents.sort_by_key(|agent| agent.index());
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let has = vec![(0, Instant::now(), 0); count];
        Ok(Self { agents, running: JoinSet::new(), told, tell, has, failures: 0 })
    }

    /// Lets all of them live.
    pub(super) fn start(&mut self) {
        for agent in &self.agents {
            let (agent, tell) = (agent.clone(), self.tell.clone());
            self.running.spawn(async move { agent.live(tell).await });
        }
    }

    /// One of them.
    pub(super) fn agent(&self, index: usize) -> Arc<Agent> {
        self.agents[index].clone()
    }

    /// Waits until all have told that they run `version`, and says when each got it.
    pub(super) async fn wait_for(
        &mut self,
        version: u64,
        control: &mut Process,
    ) -> Result<Vec<Instant>, LabError> {
        let begun = Instant::now();
        while self.has.iter().any(|(_, _, reported)| *reported < version) {
            control.check()?;
            if begun.elapsed() > ARRIVE_TIMEOUT {
                return Err(LabError::Late {
                    what: "a change at all agents",
                    seconds: ARRIVE_TIMEOUT.as_secs(),
                });
            }
            if let Ok(Some(told)) = tokio::time::timeout(CHECK_EVERY, self.told.recv()).await {
                self.note(told);
            }
        }
        Ok(self.has.iter().map(|(_, at, _)| *at).collect())
    }

    /// Waits until the control plane has refused the question of one of them, and all others run a version above `version`;
    /// says when the one was refused, and when the last of the others had its version.
    pub(super) async fn wait_for_denial(
        &mut self,
        denied: usize,
        version: u64,
    ) -> Result<(Instant, Instant), LabError> {
        let (begun, mut refused) = (Instant::now(), None);
        let is_behind = |(index, has): (usize, &(u64, Instant, u64))| index != denied && has.0 <= version;
        while refused.is_none() || self.has.iter().enumerate().any(is_behind) {
            if begun.elapsed() > ARRIVE_TIMEOUT {
                return Err(LabError::Late {
                    what: "a denial at all agents",
                    seconds: ARRIVE_TIMEOUT.as_secs(),
                });
            }
            let Ok(Some(told)) = tokio::time::timeout(CHECK_EVERY, self.told.recv()).await else { continue };
            self.note(told);
            if told.0 == denied && told.1 == Event::Refused {
                refused = refused.or(Some(told.2));
            }
        }
        let others = self.has.iter().enumerate().filter(|(index, _)| *index != denied);
        let last = others.map(|(_, (_, at, _))| *at).max().unwrap_or(begun);
        Ok((refused.unwrap_or(begun), last))
    }

    /// The highest version that any of them has, after all that was told until now.
    pub(super) fn version(&mut self) -> u64 {
        while let Ok(told) = self.told.try_recv() {
            self.note(told);
        }
        self.has.iter().map(|(version, _, _)| *version).max().unwrap_or_default()
    }

    /// Exchanges that came to nothing since this was asked last.
    pub(super) fn take_failures(&mut self) -> usize {
        std::mem::take(&mut self.failures)
    }

    fn note(&mut self, (index, event, at): Told) {
        let (version, since, reported) = &mut self.has[index];
        match event {
            Event::Version(new) => (*version, *since) = (new, at),
            Event::Reported(new) => *reported = new,
            Event::Refused | Event::Failed => self.failures += 1,
        }
    }
}

/// The cluster of an agent.
pub(super) fn cluster(index: usize) -> String {
    format!("c{index}")
}
