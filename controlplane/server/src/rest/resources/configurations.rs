//! What clusters run by: compiled from the tenant's objects as they are at one moment, signed and published, or only shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::check_cluster;
use crate::compile::{CompileFault, compile};
use crate::configuration::{newest, publish};
use crate::objects::FieldFault;
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::{ConfigurationInput, store};

const CONFIGURATIONS: &str = "/v1/tenants/{tenant}/clusters/{cluster}/configurations";

/// A configuration that was published, or would be.
#[derive(Serialize, ToSchema)]
struct Published {
    /// None if it was not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Members, secrets and the rest, as `zen-control configuration set` takes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    configuration: Option<ConfigurationInput>,
}

/// The newest configuration, as agents get it.
#[derive(Serialize, ToSchema)]
struct Newest {
    /// Of it.
    version: i64,
    /// What was signed: JSON.
    text: String,
    /// Ed25519, base64.
    signature: String,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Post, CONFIGURATIONS, Operation::Publish, create)
            .says("Compiles, signs and publishes what the objects say; with dry_run=true only shows it")
            .query(&["dry_run"])
            .gives::<Published>(201),
        Route::new(Verb::Get, CONFIGURATIONS, Operation::Read, get)
            .says("The newest that was published")
            .gives::<Newest>(200),
    ]
}

fn create(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let is_dry = match call.query.get("dry_run").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Fault::Malformed("dry_run is true or false".to_owned())),
    };
    check_cluster(unit, call)?;
    let cluster = call.name("cluster");
    let objects = store::snapshot(unit.database, call.name("tenant"))?;
    let compiled = compile(&objects, cluster, unit.trust_domain);
    let input = compiled.map_err(|faults| Fault::Fields(faults.into_iter().map(field).collect()))?;
    if is_dry {
        let shown = Answer::json(200, &Published { version: None, configuration: Some(input) });
        return Ok(Answer { is_shown_only: true, ..shown });
    }
    let version = publish(unit.database, unit.directory, cluster, input)?;
    let revision = i64::try_from(version).ok();
    let published = Published { version: Some(version), configuration: None };
    Ok(Answer { revision, ..Answer::json(201, &published) })
}

fn get(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    check_cluster(unit, call)?;
    let found = newest(unit.database, call.name("cluster"))?;
    let (version, signed) = found.ok_or(Fault::NotFound("configuration"))?;
    let signature = serde_json::to_value(signed.signature).expect("base64 is a text");
    let signature = signature.as_str().unwrap_or_default().to_owned();
    let newest = Newest { version, text: signed.text, signature };
    Ok(Answer { revision: Some(version), ..Answer::json(200, &newest) })
}

/// Here pointers lead into all objects of the tenant: kind, name, then the field.
fn field(fault: CompileFault) -> FieldFault {
    FieldFault::new(format!("/{}/{}{}", fault.kind, fault.name, fault.pointer), fault.detail)
}
