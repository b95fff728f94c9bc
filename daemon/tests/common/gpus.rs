//! A machine with GPUs that has none: a stand-in for the NVML library, compiled here, that says what is asked at a start.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Two devices, `GPU-1` with 1 GiB and `GPU-2` with 2 GiB.
const STAND_IN: &str = r#"
#include <stdio.h>
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(unsigned long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { snprintf(text, size, "GPU-%lu", (unsigned long)device); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { (void)device; snprintf(text, size, "Stand-in"); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory *out) { out->total = out->free = (unsigned long)device << 30; out->used = 0; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *out) {
    out->total = out->free = (unsigned long)device << 30; out->reserved = out->used = 0; return 0;
}
"#;

/// The library, in this folder.
pub fn stand_in(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("nvml.c"), folder.join("libstandin.so"));
    std::fs::write(&source, STAND_IN).unwrap();
    // The compiler driver that Rust links with.
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(status.success());
    library
}
