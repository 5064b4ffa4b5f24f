//! The log that is written: lines at the end of the newest segment, a digest when it is closed. Several processes may write:
//! the daemon, and commands beside it. Each holds the lock while it appends, and first takes in what others appended.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zen_audit::{Digest, Segment, SigningKey, segment_lines};

use super::place::{Place, failed};
use super::{Act, Receipt, Receipts, ReceiptsError, Verdict};

/// Lines for refusals, per second.
const REFUSALS_PER_S_MAX: u32 = 50;
/// Digests that are kept; the oldest go.
const DIGESTS_MAX: usize = 20_000;
/// How many segments the bound of bytes is divided into.
const SEGMENTS_PER_LOG: u64 = 8;
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(1);

/// When a segment is closed, and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all segments together; the oldest closed ones go.
    pub bytes_max: u64,
    /// A segment is closed when its first line is as old as this, ms.
    pub digest_interval_ms: u64,
    /// A segment is closed when it has as many lines.
    pub digest_receipts_max: u64,
}

/// Receipts of this host.
#[derive(Debug)]
pub struct ReceiptLog {
    place: Place,
    limits: Limits,
    key: SigningKey,
    lock: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: Open,
    second: u64,
    refusals: u32,
    not_written: u64,
}

/// The newest segment.
#[derive(Debug)]
struct Open {
    file: File,
    segment: Segment,
    bytes: u64,
    before: Option<Digest>,
    since_ms: Option<u64>,
    is_synced: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    receipt: &'a Receipt,
    /// Refusals before it that have no line.
    #[serde(skip_serializing_if = "is_zero")]
    more_refusals: u64,
}

#[derive(Deserialize)]
struct Timed {
    time_ms: u64,
}

impl ReceiptLog {
    /// Goes on with a directory, made if it is not there. A torn last line is cut; what is missing besides is an error.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, ReceiptsError> {
        let place = Place::prepare(directory)?;
        let lock = place.open_lock()?;
        hold(&lock, &place)?;
        let key = place.key()?;
        let open = Open::newest(&place, &key)?;
        lock.unlock().map_err(failed(&place.lock()))?;
        let state = State { open, second: 0, refusals: 0, not_written: 0 };
        Ok(Self { place, limits, key, lock, state: Mutex::new(state) })
    }

    /// Syncs what was appended, and closes a segment that is old enough.
    pub fn tick(&self, now_ms: u64) -> Result<(), ReceiptsError> {
        self.locked(|log, state| {
            if state.open.is_due(&log.limits, now_ms) { log.close(state) } else { log.sync(&mut state.open) }
        })
    }

    /// The last digest of this process: all lines so far are signed.
    pub fn close_now(&self) -> Result<(), ReceiptsError> {
        self.locked(|log, state| if state.open.segment.count() > 0 { log.close(state) } else { Ok(()) })
    }

    fn locked<T>(
        &self,
        work: impl FnOnce(&Self, &mut State) -> Result<T, ReceiptsError>,
    ) -> Result<T, ReceiptsError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        hold(&self.lock, &self.place)?;
        let done = self.catch_up(&mut state).and_then(|()| work(self, &mut state));
        self.lock.unlock().map_err(failed(&self.place.lock()))?;
        done
    }

    fn catch_up(&self, state: &mut State) -> Result<(), ReceiptsError> {
        if self.place.digest(state.open.segment.number()).exists() {
            state.open = Open::newest(&self.place, &self.key)?;
            return Ok(());
        }
        state.open.take_in(&self.place)
    }

    fn append(&self, state: &mut State, mut line: Vec<u8>, time_ms: u64) -> Result<(), ReceiptsError> {
        let is_long = state.open.bytes + line.len() as u64 >= self.limits.bytes_max / SEGMENTS_PER_LOG;
        if state.open.is_due(&self.limits, time_ms) || (is_long && state.open.bytes > 0) {
            self.close(state)?;
        }
        let open = &mut state.open;
        line.push(b'\n');
        if let Err(source) = open.file.write_all(&line) {
            // Half a line must not run into the next.
            let _ = open.file.set_len(open.bytes);
            return Err(failed(&self.place.segment(open.segment.number()))(source));
        }
        open.handle(&line[..line.len() - 1], time_ms);
        open.is_synced = false;
        Ok(())
    }

    fn sync(&self, open: &mut Open) -> Result<(), ReceiptsError> {
        if !open.is_synced {
            open.file.sync_data().map_err(failed(&self.place.segment(open.segment.number())))?;
            open.is_synced = true;
        }
        Ok(())
    }

    /// First the lines, then the digest, then the next segment: whenever the power goes, it goes on from there.
    fn close(&self, state: &mut State) -> Result<(), ReceiptsError> {
        let open = &mut state.open;
        open.is_synced = false;
        self.sync(open)?;
        let digest = open.segment.digest(self.key.public().name(), open.before.as_ref());
        self.place.write_digest(digest.segment, &digest.sign(&self.key))?;
        state.open = Open::behind(&self.place, Some(digest))?;
        self.trim(state.open.segment.number())
    }

    /// Lets the oldest closed segments go; one that is being written has its share of the bound.
    fn trim(&self, newest: u64) -> Result<(), ReceiptsError> {
        let mut segments = self.place.segments()?;
        segments.remove(&newest);
        let mut bytes: u64 = segments.values().sum();
        let kept = self.limits.bytes_max - self.limits.bytes_max / SEGMENTS_PER_LOG;
        while let Some((number, size)) = segments.pop_first()
            && (bytes > kept || segments.len() >= DIGESTS_MAX)
        {
            let path = self.place.segment(number);
            fs::remove_file(&path).map_err(failed(&path))?;
            bytes -= size;
        }
        let mut digests = self.place.digests()?;
        while digests.len() > DIGESTS_MAX
            && let Some((number, _)) = digests.pop_first()
        {
            let path = self.place.digest(number);
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        Ok(())
    }
}

impl Receipts for ReceiptLog {
    fn record(&self, receipt: &Receipt) -> Result<(), ReceiptsError> {
        self.locked(|log, state| {
            if receipt.verdict != Verdict::Opened && !state.takes_refusal(receipt.time_ms / 1000) {
                return Ok(());
            }
            let line = Line { receipt, more_refusals: state.not_written };
            log.append(state, json(&line), receipt.time_ms)?;
            state.not_written = 0;
            Ok(())
        })
    }

    fn act(&self, act: &Act) -> Result<(), ReceiptsError> {
        self.locked(|log, state| {
            log.append(state, json(act), act.time_ms)?;
            log.sync(&mut state.open)
        })
    }
}

impl State {
    fn takes_refusal(&mut self, second: u64) -> bool {
        if second != self.second {
            (self.second, self.refusals) = (second, 0);
        }
        self.refusals += 1;
        let takes = self.refusals <= REFUSALS_PER_S_MAX;
        self.not_written += u64::from(!takes);
        takes
    }
}

impl Open {
    /// Behind the newest digest; there may be no segment further on.
    fn newest(place: &Place, key: &SigningKey) -> Result<Self, ReceiptsError> {
        let newest = place.digests()?.keys().next_back().copied();
        let before = newest.map(|number| place.digest_by(number, key.public())).transpose()?;
        let next = before.as_ref().map_or(0, |digest| digest.segment + 1);
        if let Some(number) = place.segments()?.keys().next_back().copied().filter(|number| *number > next) {
            return Err(ReceiptsError::Undigested(number));
        }
        Self::behind(place, before)
    }

    fn behind(place: &Place, before: Option<Digest>) -> Result<Self, ReceiptsError> {
        let segment = Segment::behind(before.as_ref());
        let file = place.open_segment(segment.number())?;
        let mut open = Self { file, segment, bytes: 0, before, since_ms: None, is_synced: true };
        open.take_in(place)?;
        Ok(open)
    }

    /// Takes in what others appended, and cuts what they did not bring to an end: nobody writes now.
    fn take_in(&mut self, place: &Place) -> Result<(), ReceiptsError> {
        let path = place.segment(self.segment.number());
        let length = self.file.metadata().map_err(failed(&path))?.len();
        if length == self.bytes {
            return Ok(());
        }
        if length < self.bytes {
            return Err(ReceiptsError::Cut(self.segment.number()));
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.bytes)).map_err(failed(&path))?;
        self.file.read_to_end(&mut bytes).map_err(failed(&path))?;
        let (lines, torn) = segment_lines(&bytes);
        let is_torn = !torn.is_empty();
        for line in lines {
            let timed = serde_json::from_slice(line).map_or(0, |Timed { time_ms }| time_ms);
            self.handle(line, timed);
        }
        if is_torn {
            self.file.set_len(self.bytes).map_err(failed(&path))?;
        }
        self.is_synced = false;
        Ok(())
    }

    fn handle(&mut self, line: &[u8], time_ms: u64) {
        self.segment.handle_line(line, time_ms);
        self.bytes += line.len() as u64 + 1;
        self.since_ms.get_or_insert(time_ms);
    }

    fn is_due(&self, limits: &Limits, now_ms: u64) -> bool {
        let is_old = |since_ms: u64| now_ms.saturating_sub(since_ms) >= limits.digest_interval_ms;
        self.segment.count() >= limits.digest_receipts_max || self.since_ms.is_some_and(is_old)
    }
}

/// Waits for the lock, within a bound: a process that was stopped must not stop all others.
fn hold(lock: &File, place: &Place) -> Result<(), ReceiptsError> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(fs::TryLockError::WouldBlock) => return Err(ReceiptsError::Held(place.lock())),
            Err(fs::TryLockError::Error(source)) => return Err(failed(&place.lock())(source)),
        }
    }
}

fn json(line: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(line).expect("texts and numbers are JSON")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
