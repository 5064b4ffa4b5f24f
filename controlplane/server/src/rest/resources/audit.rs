//! The audit log as people read it: a tenant's own entries, what proves one of them, and all of it for a verifier elsewhere.

use serde::Serialize;
use utoipa::ToSchema;
use zen_audit::{Entry, EntryError};

use crate::audit::{self, FILTER_BYTES_MAX, Filter, REQUEST_ENTRIES_MAX, Signer};
use crate::rest::page::{List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};

const ENTRIES: &str = "/v1/tenants/{tenant}/audit";
const ENTRY: &str = "/v1/tenants/{tenant}/audit/{sequence}";
const PROOF: &str = "/v1/tenants/{tenant}/audit/{sequence}/proof";
const TENANT_VERIFICATION: &str = "/v1/tenants/{tenant}/audit/verification";
const EXPORT: &str = "/v1/audit/export";
const CHECKPOINT: &str = "/v1/audit/checkpoint";
const KEY: &str = "/v1/audit/key";
const VERIFICATION: &str = "/v1/audit/verification";
const QUERY: &[&str] = &["limit", "cursor", "actor", "action", "from_ms", "until_ms"];
/// What an export is.
const LINES: &str = "application/jsonl";
/// How many witnesses have to have cosigned what is called anchored here; `zen-audit verify` asks for as many as one likes.
const QUORUM: usize = 1;

/// One act, or one that was refused.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryView {
    /// Its number in the log of the whole installation, which has no gaps.
    sequence: u64,
    /// Unix ms.
    time_ms: u64,
    /// A SPIFFE id, `issuer|subject`, `person:NAME`, `bundle:ID` or `cli:USER`.
    actor: String,
    /// `noun.verb`.
    action: String,
    /// Of what.
    target: String,
    /// `done`, `refused` or `failed`.
    outcome: String,
    /// The same in the log of the process.
    request_id: String,
}

/// The newest checkpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditCheckpoint)]
struct CheckpointView {
    /// How many entries it has.
    size: u64,
    /// When it was last found to be the newest, Unix ms.
    made_ms: u64,
    /// A signed note (C2SP tlog-checkpoint), with the cosignatures of witnesses.
    checkpoint: String,
}

/// A proof that stands alone.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditProof)]
struct ProofView {
    /// The entry's bytes, as they were hashed: JSON.
    entry: String,
    /// C2SP tlog-proof, for `zen-audit check`.
    proof: String,
}

/// What checkpoints are verified with.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditKey)]
struct KeyView {
    /// Of the log: `NAME+ID+BASE64`.
    key: String,
    /// Of the agents that are witnesses.
    witnesses: Vec<WitnessView>,
}

/// A witness.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditWitness)]
struct WitnessView {
    /// Whose agent.
    cluster: String,
    /// As the log's.
    key: String,
    /// Unix ms.
    since_ms: i64,
    /// When another key took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
    /// How many entries the newest checkpoint has that it cosigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    cosigned: Option<i64>,
}

/// How far the log is vouched for, by the word of this server: a verifier elsewhere needs no such word.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditVerification)]
struct VerificationView {
    /// Entries from the first on that a witness cosigned.
    anchored: u64,
    /// Entries that the log itself signed for.
    signed: u64,
    /// How many there are.
    entries: u64,
    /// `anchored`, `unanchored` or `failed`.
    verdict: &'static str,
    /// The first entry of which nothing can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_from: Option<u64>,
    /// What does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, ENTRIES, Operation::Audit, list)
            .says("Who did what in the tenant, newest first; actor whole, action by its beginning, times in Unix ms")
            .query(QUERY)
            .gives::<List<EntryView>>(200),
        Route::new(Verb::Get, ENTRY, Operation::Audit, get).says("One entry").gives::<EntryView>(200),
        Route::new(Verb::Get, PROOF, Operation::Audit, proof)
            .says("One entry, and the proof that it is in the log")
            .gives::<ProofView>(200),
        Route::new(Verb::Get, TENANT_VERIFICATION, Operation::Audit, verification)
            .says("Walks through the whole log; says how far it is vouched for, and nothing of others' entries")
            .gives::<VerificationView>(200),
        Route::new(Verb::Get, EXPORT, Operation::Audit, export)
            .says("The whole log with its checkpoints, for zen-audit verify: lines of JSON")
            .media(LINES)
            .gives::<String>(200),
        Route::new(Verb::Get, CHECKPOINT, Operation::Audit, checkpoint)
            .says("The newest checkpoint")
            .gives::<CheckpointView>(200),
        Route::new(Verb::Get, KEY, Operation::Audit, key)
            .says("The log's key, and those of its witnesses")
            .gives::<KeyView>(200),
        Route::new(Verb::Get, VERIFICATION, Operation::Audit, verification)
            .says("Walks through the whole log; says how far it is vouched for")
            .gives::<VerificationView>(200),
    ]
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let page = Page::read(&call.query, "audit")?;
    let before = match page.after.as_str() {
        "" => None,
        after => Some(number(after, "cursor is the next_cursor of this list")?),
    };
    let time = |name: &str| {
        call.query
            .get(name)
            .map(|text| number(text, "from_ms and until_ms are Unix milliseconds"))
            .transpose()
    };
    let text = |name: &str| match call.query.get(name).map(String::as_str) {
        Some(text) if text.is_empty() || text.len() > FILTER_BYTES_MAX => {
            Err(Fault::Malformed("actor and action are 1 to 2048 bytes, or left out".to_owned()))
        }
        text => Ok(text),
    };
    let filter = Filter {
        tenant: Some(call.name("tenant")),
        actor: text("actor")?,
        action: text("action")?,
        from_ms: time("from_ms")?,
        until_ms: time("until_ms")?,
        before,
    };
    let found = audit::entries(unit.database, &filter, page.count + 1)?;
    let list = page.list(found, "audit", |entry| entry.sequence.to_string(), EntryView::from);
    Ok(Answer::json(200, &list))
}

/// The path's entry, if it is the path's tenant's, and its bytes.
fn entry(unit: &Unit<'_>, call: &Call) -> Result<(Entry, String), Fault> {
    let missing = || Fault::NotFound("entry of this tenant");
    let sequence = number(call.name("sequence"), "an entry is named by its number")?;
    let bytes = audit::entry_bytes(unit.database, sequence)?.ok_or_else(missing)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let entry: Entry = serde_json::from_str(&text).map_err(|_| damaged())?;
    if entry.tenant == call.name("tenant") { Ok((entry, text)) } else { Err(missing()) }
}

fn get(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    Ok(Answer::json(200, &EntryView::from(entry(unit, call)?.0)))
}

fn proof(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let (Entry { sequence, .. }, text) = entry(unit, call)?;
    let proof = audit::entry_proof(unit.database, sequence)?;
    let proof = proof.ok_or(Fault::Conflict("no checkpoint has the entry yet; ask again in ten seconds"))?;
    Ok(Answer::json(200, &ProofView { entry: text, proof: proof.to_string() }))
}

fn export(unit: &Unit<'_>, _: &Call) -> Result<Answer, Fault> {
    check_length(unit)?;
    let mut text = String::new();
    audit::export(unit.database, |line| {
        text.push_str(&line);
        Ok(())
    })?;
    Ok(Answer { body: Some(text), media: Some(LINES), status: 200, ..Answer::default() })
}

fn checkpoint(unit: &Unit<'_>, _: &Call) -> Result<Answer, Fault> {
    let last = audit::latest(unit.database)?;
    let last = last.ok_or(Fault::Conflict("there is no checkpoint yet; ask again in ten seconds"))?;
    let checkpoint = audit::with_cosignatures(unit.database, last.size, &last.note)?.to_string();
    Ok(Answer::json(200, &CheckpointView { size: last.size, made_ms: last.made_ms, checkpoint }))
}

fn key(unit: &Unit<'_>, _: &Call) -> Result<Answer, Fault> {
    let signer = Signer::open(unit.directory, unit.trust_domain, None)?;
    let witnesses = audit::witnesses(unit.database)?.into_iter().map(|witness| WitnessView {
        cluster: witness.cluster,
        key: witness.key,
        since_ms: witness.since_ms,
        until_ms: witness.until_ms,
        cosigned: witness.cosigned,
    });
    Ok(Answer::json(200, &KeyView { key: signer.public().to_string(), witnesses: witnesses.collect() }))
}

fn verification(unit: &Unit<'_>, _: &Call) -> Result<Answer, Fault> {
    check_length(unit)?;
    let signer = Signer::open(unit.directory, unit.trust_domain, None)?;
    let found = audit::verify(unit.database, signer.public(), QUORUM)?;
    let verdict = match found.fault {
        Some(_) => "failed",
        None if found.anchored == found.entries => "anchored",
        None => "unanchored",
    };
    let view = VerificationView {
        anchored: found.anchored,
        signed: found.signed,
        entries: found.entries,
        verdict,
        failed_from: found.fault.map(|fault| fault.at()),
        fault: found.fault.map(|fault| fault.to_string()),
    };
    Ok(Answer::json(200, &view))
}

fn check_length(unit: &Unit<'_>) -> Result<(), Fault> {
    const _: () = assert!(REQUEST_ENTRIES_MAX == 100_000);
    if audit::is_long(unit.database)? {
        return Err(Fault::Conflict("the log has over 100000 entries; run: zen-control audit export"));
    }
    Ok(())
}

fn number(text: &str, otherwise: &str) -> Result<u64, Fault> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = text.parse().ok().filter(|number| is_plain && i64::try_from(*number).is_ok());
    read.ok_or_else(|| Fault::Malformed(otherwise.to_owned()))
}

fn damaged() -> Fault {
    crate::ControlError::AuditEntry(EntryError::Form).into()
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let Entry { sequence, time_ms, actor, action, target, outcome, request_id, .. } = entry;
        Self { sequence, time_ms, actor, action, target, outcome: outcome.to_string(), request_id }
    }
}
