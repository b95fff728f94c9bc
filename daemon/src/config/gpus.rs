//! `[[gpu.static]]` of `flashd.toml`: GPUs of other makers, and such as are not there, of which nobody is asked.
//!
//! Invariant: where there are any, no driver is asked for others.

use api::quantity::Memory;
use scheduler_core::scheduler::GPU_LIMIT;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeValue;

use super::file::{Faults, Slot};
use super::values::GpuUuid;

/// Longest name of a model or profile that a job can ask for.
const NAME_BYTES: usize = 128;

/// A GPU as it is written down.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticGpu {
    /// Its name; unique.
    pub uuid: GpuUuid,
    /// What `gpuModel` of a job names.
    pub model: String,
    /// Its memory.
    pub memory: Memory,
    /// It is a MIG instance of this profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    /// Those with the same number reach each other over fast links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_group: Option<u16>,
    /// The NUMA node that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u16>,
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StaticGpus {
    /// In the order of the file.
    pub items: Vec<StaticGpu>,
}

/// What no job could ask for: which key, and what is wrong with it.
fn fault(gpu: &StaticGpu) -> Option<String> {
    let is_name = |text: &str| !text.trim().is_empty() && text.len() <= NAME_BYTES && !text.chars().any(char::is_control);
    if !is_name(&gpu.model) {
        return Some(format!(
            "model`: `{}` is not the name of a model: 1 to {NAME_BYTES} bytes of one line",
            gpu.model.escape_debug()
        ));
    }
    if gpu.memory.0 == 0 {
        return Some("memory`: a GPU has some: at least 1 byte".to_owned());
    }
    let profile = gpu.mig_profile.as_deref().filter(|profile| !is_name(profile) || profile.contains(' '))?;
    Some(format!("mig_profile`: `{}` is not a MIG profile: write it like `1g.10gb`", profile.escape_debug()))
}

impl Slot for StaticGpus {
    fn read(&mut self, value: Spanned<DeValue<'_>>, faults: &mut Faults<'_>) {
        let span = value.span();
        let DeValue::Array(entries) = value.into_inner() else {
            faults.add(&span, "`gpu.static` are written as [[gpu.static]]");
            return;
        };
        if entries.len() > GPU_LIMIT {
            faults.add(&span, format!("`gpu.static`: there may be {GPU_LIMIT}, not {}", entries.len()));
            return;
        }
        for (index, entry) in entries.into_iter().enumerate() {
            let (place, key) = (entry.span(), format!("gpu.static[{index}]"));
            let Some(item) = faults.entry::<StaticGpu>(&key, entry) else { continue };
            if let Some(fault) = fault(&item) {
                faults.add(&place, format!("`{key}.{fault}"));
            } else if self.items.iter().any(|known| known.uuid == item.uuid) {
                faults.add(&place, format!("GPU `{}` is there twice in `gpu.static`", item.uuid));
            } else {
                self.items.push(item);
            }
        }
    }
}
