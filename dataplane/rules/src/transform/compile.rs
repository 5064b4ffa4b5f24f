//! From what TOML gives to a transform.

use super::function::Function;
use super::source::{Source, split_dots};
use super::write::Shape;
use super::{FIELDS_MAX, FUNCTIONS_MAX, Field, RawField, RawTransform, TO_DEPTH_MAX, Transform};
use crate::condition::media_type;
use crate::rule_error::{RuleError, RuleFault};
use zen_core::event::BODY_BYTES_MAX;

pub(super) fn compile(raw: &RawTransform, place: &str) -> Result<Transform, RuleError> {
    media_type(&raw.content_type).map_err(|fault| fault.at(format!("{place}.content_type")))?;
    RuleFault::check_bound(raw.output_bytes_max as usize, 2, BODY_BYTES_MAX)
        .map_err(|fault| fault.at(format!("{place}.output_bytes_max")))?;
    RuleFault::check_bound(raw.fields.len(), 1, FIELDS_MAX)
        .map_err(|fault| fault.at(format!("{place}.fields")))?;
    let mut shape = Shape::default();
    let mut fields = Vec::with_capacity(raw.fields.len());
    for (index, raw) in raw.fields.iter().enumerate() {
        let place = format!("{place}.fields[{index}]");
        let field = compile_field(raw, &place)?;
        let to = split_dots(&field.to).map_err(|fault| fault.at(format!("{place}.to")))?;
        RuleFault::check_bound(to.len(), 1, TO_DEPTH_MAX).map_err(|fault| fault.at(format!("{place}.to")))?;
        shape.place(&to, index).map_err(|fault| fault.at(format!("{place}.to")))?;
        fields.push(field);
    }
    Ok(Transform {
        content_type: raw.content_type.as_str().into(),
        output_bytes_max: raw.output_bytes_max as usize,
        fields: fields.into(),
        shape,
    })
}

fn compile_field(raw: &RawField, place: &str) -> Result<Field, RuleError> {
    let source = Source::compile(raw, place)?;
    let Some(to) = raw.to.as_ref().or(raw.direct.as_ref()) else {
        return Err(RuleFault::Absent { key: "to" }.at(place));
    };
    RuleFault::check_bound(raw.functions.len(), 0, FUNCTIONS_MAX)
        .map_err(|fault| fault.at(format!("{place}.functions")))?;
    let functions = raw.functions.iter().enumerate().map(|(index, raw)| {
        Function::compile(raw).map_err(|fault| fault.at(format!("{place}.functions[{index}]")))
    });
    Ok(Field {
        to: to.as_str().into(),
        source,
        functions: functions.collect::<Result<_, _>>()?,
        on_missing: raw.on_missing,
    })
}
