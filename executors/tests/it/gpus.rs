//! The GPU inventory through a real library with NVML's symbols: a stand-in, compiled here, that says what it is told to say.

use std::path::Path;
use std::process::Command;

use executors::gpu::{Gpu, inventory};

/// Three devices: a whole one, one that keeps its name and memory to itself, one that cannot be identified.
const STAND_IN: &str = r#"
#include <string.h>
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(unsigned long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    if (device == (void *)3) return 15; /* the GPU is lost */
    strncpy(text, device == (void *)1 ? "GPU-11111111-2222" : "GPU-33333333-4444", size);
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    if (device != (void *)1) return 3; /* not supported */
    strncpy(text, "Stand-in 80GB", size);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *out) {
    if (device != (void *)1) return 3;
    out->total = 80ULL << 30; out->free = out->total; out->used = 0;
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *out) {
    if (device != (void *)1) return 3;
    out->total = 80ULL << 30; out->reserved = 0; out->free = out->total; out->used = 0;
    return 0;
}
"#;

fn stand_in(folder: &Path) -> std::path::PathBuf {
    let (source, library) = (folder.join("nvml.c"), folder.join("libstandin.so"));
    std::fs::write(&source, STAND_IN).unwrap();
    // The compiler driver that Rust links with.
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(status.success());
    library
}

#[test]
fn what_nvml_says_is_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let found = inventory(Some(&stand_in(folder.path())));
    let whole = Gpu { uuid: "GPU-11111111-2222".to_owned(), model: "Stand-in 80GB".to_owned(), memory_bytes: 80 << 30 };
    let silent = Gpu { uuid: "GPU-33333333-4444".to_owned(), model: String::new(), memory_bytes: 0 };
    assert_eq!(found.gpus, [whole, silent]);
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].contains("GPU 2"), "{:?}", found.problems);
}
