//! What a job says of its nodes and GPUs, as the core's constraints.
//!
//! Invariant: two ways to say the same are one constraint, so that jobs that ask for the same share a shape.

use api::quantity::{GpuMillis, Memory};
use api::{NodeExpression, NodeSelector, Operator, Resources};
use scheduler_core::amounts::{GPU_MILLIS, GpuShare, MemoryBytes};
use scheduler_core::ids::Name;
use scheduler_core::job::{Constraints, Selector};

use super::{Checked, Invalid, checks};
use crate::names;

/// Labels and expressions of one task.
const SELECTORS: usize = 64;
/// Values of one of them, and GPU models.
const VALUES: usize = 64;
/// Units of MPS that are one GPU.
const MPS_UNITS: u32 = 10;
/// Longest UUID of a GPU.
const UUID_BYTES: usize = 96;
/// Longest name of a GPU model.
const MODEL_CHARS: usize = 128;

/// What a task asks of its nodes and its GPUs.
pub(super) fn constraints(
    selector: &NodeSelector,
    expressions: &[NodeExpression],
    terms: &[Vec<NodeExpression>],
    resources: &Resources,
) -> Checked<Constraints> {
    let parts = [
        ("nodeSelector", selector.len()),
        ("nodeExpressions", expressions.len()),
        ("nodeTerms", terms.iter().map(Vec::len).sum()),
    ];
    let all = parts.iter().map(|(_, count)| count).sum::<usize>();
    if all > SELECTORS {
        let most = parts.iter().max_by_key(|(_, count)| *count).map_or("nodeExpressions", |(field, _)| field);
        return Err(Invalid::new(most, format!("{all} labels and expressions; a task may have {SELECTORS}")));
    }
    let mut nodes = Vec::with_capacity(selector.len() + expressions.len() + 1);
    for (label, any_of) in selector {
        checks::key_of(label).map_err(|invalid| invalid.under("nodeSelector"))?;
        let values = values(&any_of.0).map_err(|invalid| invalid.under(label).under("nodeSelector"))?;
        nodes.push(Selector::In { label: Name::from(label.as_str()), values });
    }
    for (index, asked) in expressions.iter().enumerate() {
        nodes.push(expression(asked).map_err(|invalid| invalid.under(&format!("nodeExpressions[{index}]")))?);
    }
    nodes.extend(alternatives(terms).map_err(|invalid| invalid.under("nodeTerms"))?);
    in_order(&mut nodes);
    let of_gpus = gpus(resources).map_err(|invalid| invalid.under("resources"))?;
    Ok(Constraints { nodes, ..of_gpus })
}

/// Each once. No two look alike that are not the same: labels and values have no blanks, commas and brackets.
fn in_order(selectors: &mut Vec<Selector>) {
    selectors.sort_by_cached_key(ToString::to_string);
    selectors.dedup();
}

/// Of terms one has to hold; all that one of them says.
fn alternatives(terms: &[Vec<NodeExpression>]) -> Checked<Option<Selector>> {
    let mut of = Vec::with_capacity(terms.len());
    for (at, term) in terms.iter().enumerate() {
        if term.is_empty() {
            let rule = "it asks for nothing: write what has to hold there, or leave it out";
            return Err(Invalid::new("", rule).under(&format!("[{at}]")));
        }
        let asked = term
            .iter()
            .enumerate()
            .map(|(index, asked)| expression(asked).map_err(|invalid| invalid.under(&format!("[{at}][{index}]"))));
        let mut all: Vec<Selector> = asked.collect::<Checked<_>>()?;
        in_order(&mut all);
        of.push(all);
    }
    of.sort_by_cached_key(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
    of.dedup();
    Ok((!of.is_empty()).then_some(Selector::Any { of }))
}

/// Says in `gpu` what was said otherwise: in units of MPS, or by naming GPUs.
pub(super) fn spell_out(resources: &mut Resources) -> Checked<()> {
    if let Some(units) = resources.gpu_mps_units.take() {
        let refuse = |detail: String| Err(Invalid::new("gpuMpsUnits", detail));
        if resources.gpu.is_some() {
            return refuse("it says how much of a GPU the task gets, and so does `gpu`: say one of the two".to_owned());
        }
        let Some(tenths) = u32::try_from(units).ok().filter(|tenths| (1..=MPS_UNITS).contains(tenths)) else {
            let rule = format!("1 to {MPS_UNITS}, of which {MPS_UNITS} are one whole GPU; for several GPUs there is `gpu`");
            return refuse(format!("`{units}` is not a number of MPS units: {rule}"));
        };
        resources.gpu = Some(GpuMillis(tenths * (GPU_MILLIS / MPS_UNITS)));
    }
    let Some(uuids) = &resources.gpu_uuids else { return Ok(()) };
    let refuse = |detail: String| Err(Invalid::new("gpuUuids", detail));
    if uuids.is_empty() || uuids.len() > VALUES {
        return refuse(format!("{} UUIDs; 1 to {VALUES} are taken, and where any GPU will do it is left out", uuids.len()));
    }
    let is_uuid = |text: &String| (1..=UUID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(text) = uuids.iter().find(|text| !is_uuid(text)) {
        let rule = "write it as `flash gpus -o wide` shows it (`GPU-...`, `MIG-...`)";
        return refuse(format!("`{}` is not the UUID of a GPU: {rule}", text.escape_debug()));
    }
    if let Some((_, text)) = uuids.iter().enumerate().find(|(at, text)| uuids[..*at].contains(text)) {
        return refuse(format!("`{text}` is there twice"));
    }
    let count = uuids.len() as u32;
    let asked = *resources.gpu.get_or_insert(GpuMillis::whole(count));
    match asked.gpus() {
        Some(gpus) if gpus != count => refuse(format!("it names {count}, and `gpu` asks for {gpus}: leave `gpu` out")),
        None if count > 1 => refuse(format!("it names {count}, and `gpu` asks for a part of one GPU")),
        _ => Ok(()),
    }
}

/// How many GPUs a task asks for, and what part of one.
pub(super) fn gpu_count(resources: &Resources) -> Checked<(u32, Option<GpuShare>)> {
    let asked = resources.gpu.unwrap_or_default();
    let share = |memory: Option<Memory>| GpuShare { millis: asked.0, memory: MemoryBytes(memory.unwrap_or_default().0) };
    match (asked.gpus(), resources.gpu_memory_share) {
        (Some(gpus), None) => Ok((gpus, None)),
        (Some(_), Some(_)) => {
            Err(Invalid::new("gpuMemoryShare", "it is for a part of a GPU (`gpu` below 1): whole GPUs have all of their memory"))
        }
        (None, Some(memory)) if memory.0 == 0 => Err(Invalid::new("gpuMemoryShare", "a task needs some of it: at least 1 byte")),
        (None, memory) if asked.0 < GPU_MILLIS => Ok((1, Some(share(memory)))),
        (None, _) => {
            let rule = "write a whole number of GPUs (\"2\"), or a part of one below 1 (\"0.5\", \"500m\")";
            Err(Invalid::new("gpu", format!("`{asked}` is more than one GPU and not whole: {rule}")))
        }
    }
}

fn expression(asked: &NodeExpression) -> Checked<Selector> {
    checks::key_of(&asked.key).map_err(|invalid| invalid.under("key"))?;
    let label = Name::from(asked.key.as_str());
    let values = || values(&asked.values).map_err(|invalid| invalid.under("values"));
    let operator = asked.operator.name();
    let none = |selector| match asked.values.as_slice() {
        [] => Ok(selector),
        _ => Err(Invalid::new("values", format!("`{operator}` has no values"))),
    };
    let bound = || {
        let number = <&[String; 1]>::try_from(asked.values.as_slice()).ok().and_then(|[value]| value.parse().ok());
        number.ok_or_else(|| Invalid::new("values", format!("`{operator}` has one value, a whole number as in [\"40000\"]")))
    };
    match asked.operator {
        Operator::In => Ok(Selector::In { label, values: values()? }),
        Operator::NotIn => Ok(Selector::NotIn { label, values: values()? }),
        Operator::Exists => none(Selector::Exists { label }),
        Operator::DoesNotExist => none(Selector::Absent { label }),
        Operator::Gt => Ok(Selector::Above { label, bound: bound()? }),
        Operator::Lt => Ok(Selector::Below { label, bound: bound()? }),
    }
}

fn values(values: &[String]) -> Checked<Vec<Name>> {
    if values.is_empty() || values.len() > VALUES {
        return Err(Invalid::new("", format!("{} values; 1 to {VALUES} are taken", values.len())));
    }
    if let Some(value) = values.iter().find(|value| !names::is_label_value(value)) {
        return Err(Invalid::new("", checks::value_rule(value)));
    }
    Ok(sorted(values))
}

/// Each once, in order.
fn sorted(texts: &[String]) -> Vec<Name> {
    let mut names: Vec<Name> = texts.iter().map(|text| Name::from(text.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is asked of GPUs.
fn gpus(resources: &Resources) -> Checked<Constraints> {
    let without = |field: &str| {
        let asks_for_none = resources.gpu.is_none_or(|gpus| gpus.0 == 0);
        asks_for_none.then(|| Invalid::new(field, "it says what GPUs have to be, and `gpu` asks for none"))
    };
    let mut models = Vec::new();
    if let Some(any_of) = &resources.gpu_model {
        if let Some(invalid) = without("gpuModel") {
            return Err(invalid);
        }
        if any_of.0.is_empty() || any_of.0.len() > VALUES {
            return Err(Invalid::new("gpuModel", format!("{} models; 1 to {VALUES} are taken", any_of.0.len())));
        }
        let is_name =
            |text: &String| !text.trim().is_empty() && text.chars().count() <= MODEL_CHARS && !text.chars().any(char::is_control);
        if let Some(text) = any_of.0.iter().find(|text| !is_name(text)) {
            let rule = format!("1 to {MODEL_CHARS} characters of one line, as `flash nodes` shows it");
            return Err(Invalid::new("gpuModel", format!("`{}` is not the name of a GPU model: {rule}", text.escape_debug())));
        }
        models = sorted(&any_of.0);
    }
    let memory = resources.gpu_memory.unwrap_or_default();
    if resources.gpu_memory.is_some() {
        if let Some(invalid) = without("gpuMemory") {
            return Err(invalid);
        }
        if memory.0 == 0 {
            return Err(Invalid::new("gpuMemory", "every GPU has that much: leave it out, or say at least 1 byte"));
        }
    }
    let (_, gpu_share) = gpu_count(resources)?;
    let mig_profile = match resources.mig_profile.as_deref() {
        None => None,
        Some(_) if gpu_share.is_some() => {
            return Err(Invalid::new("gpu", "MIG instances are not shared: ask for a whole number of them"));
        }
        Some(profile) => {
            if let Some(invalid) = without("migProfile") {
                return Err(invalid);
            }
            let is_name =
                !profile.is_empty() && profile.len() <= MODEL_CHARS && profile.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_name {
                let detail =
                    format!("`{}` is not a MIG profile: write it as `flash nodes` shows it (`1g.10gb`)", profile.escape_debug());
                return Err(Invalid::new("migProfile", detail));
            }
            Some(Name::from(profile))
        }
    };
    let gpu_uuids = sorted(resources.gpu_uuids.as_deref().unwrap_or_default());
    let gpu_memory = MemoryBytes(memory.0);
    Ok(Constraints { gpu_models: models, gpu_memory, mig_profile, gpu_share, gpu_uuids, ..Constraints::NONE })
}
