//! The GPU inventory through a real library with NVML's symbols: the project's stand-in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use executors::gpu::{Gpu, GpuProcess, Nvml, View, Watcher};

/// How long a test waits for what only a broken watcher keeps it waiting for.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(5);

/// A watcher on an own copy of the library.
struct Machine {
    _folder: tempfile::TempDir,
    library: std::path::PathBuf,
    watcher: Watcher,
}

impl Machine {
    fn new(state: &str) -> Self {
        Self::patient(state, PATIENCE)
    }

    fn patient(state: &str, patience: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = nvml_stand_in::install(folder.path(), state).unwrap();
        let watcher = Watcher::start(Box::new(Nvml::new(Some(library.clone()))), SHORT, patience).unwrap();
        Self { _folder: folder, library, watcher }
    }

    fn set(&self, state: &str) {
        nvml_stand_in::set(&self.library, state).unwrap();
    }

    async fn until(&self, what: impl FnMut(&Arc<View>) -> bool) -> Arc<View> {
        let mut views = self.watcher.views();
        let found = tokio::time::timeout(PATIENCE, views.wait_for(what)).await.unwrap().unwrap();
        Arc::clone(&found)
    }

    /// The first survey that begins from now on.
    async fn look(&self) -> Arc<View> {
        let round = self.watcher.look();
        self.until(|view| view.round >= round).await
    }
}

fn device(number: u32, more: &str) -> String {
    format!("[[devices]]\nuuid = \"GPU-{number}\"\nmemory = \"80Gi\"\n{more}\n")
}

fn uuids(view: &View) -> Vec<&str> {
    view.survey.gpus.iter().map(|reading| reading.gpu.uuid.as_str()).collect()
}

#[tokio::test]
async fn what_nvml_says_is_what_there_is() {
    let state = [
        device(
            1,
            "model = \"H100\"\nlinks = [\"GPU-2\"]\nnuma = 1\nswitch = 7\nused = \"1Gi\"\nbusy = 30\nwatts = 300\njoules = 5\ncelsius = 60\necc_errors = 2\nprocesses = [{ pid = 42, memory = \"2Gi\", busy = 40 }, { pid = 43, graphics = true }]",
        ),
        device(2, "links = [\"GPU-1\"]\nswitch = 7"),
        device(3, ""),
    ];
    let machine = Machine::new(&state.concat());
    let view = machine.until(|view| view.round > 0).await;
    assert_eq!(view.survey.problems, [""; 0]);
    let driver = view.survey.driver.as_ref().unwrap();
    assert_eq!((driver.version.as_str(), driver.cuda.as_str()), ("550.54.15", "12.4"));
    let first = &view.survey.gpus[0];
    let expected = Gpu {
        uuid: "GPU-1".to_owned(),
        index: 0,
        minor: Some(0),
        model: "H100".to_owned(),
        memory_bytes: 80 << 30,
        pci: Some("0000:01:00.0".to_owned()),
        compute: Some("9.0".to_owned()),
        mig: None,
        link_group: Some(0),
        pcie_group: Some(0),
        numa: Some(1),
    };
    assert_eq!(*first.gpu, expected);
    assert_eq!((first.memory_used_bytes, first.busy_percent, first.celsius), (Some(3 << 30), Some(30), Some(60)));
    assert_eq!((first.milliwatts, first.energy_millijoules, first.ecc_errors), (Some(300_000), Some(5_000), Some(2)));
    let processes = [
        GpuProcess { pid: 42, memory_bytes: Some(2 << 30), graphics: false, busy_percent: Some(40) },
        GpuProcess { pid: 43, memory_bytes: Some(0), graphics: true, busy_percent: None },
    ];
    assert_eq!(first.processes.as_deref(), Some(&processes[..]));
    let groups: Vec<_> = view.survey.gpus.iter().map(|reading| (reading.gpu.link_group, reading.gpu.pcie_group)).collect();
    assert_eq!(groups, [(Some(0), Some(0)), (Some(0), Some(0)), (None, None)]);
}

#[tokio::test]
async fn a_divided_gpu_is_its_instances() {
    let mig = "[[devices.mig]]\nuuid = \"MIG-1\"\nprofile = \"1g.10gb\"\nmemory = \"10Gi\"\nprocesses = [{ pid = 7, memory = \"1Gi\" }]\n\
               [[devices.mig]]\nuuid = \"MIG-2\"\nprofile = \"2g.20gb\"\nmemory = \"20Gi\"\n";
    let machine = Machine::new(&format!("{}{mig}{}", device(1, ""), device(2, "mig_mode = true")));
    let view = machine.until(|view| view.round > 0).await;
    assert_eq!(uuids(&view), ["MIG-1", "MIG-2"]);
    let part = &view.survey.gpus[0];
    let mig = part.gpu.mig.as_ref().unwrap();
    assert_eq!((mig.profile.as_str(), mig.parent.as_str(), part.gpu.memory_bytes), ("1g.10gb", "GPU-1", 10 << 30));
    assert_eq!((part.memory_used_bytes, part.processes.as_ref().map(Vec::len)), (Some(1 << 30), Some(1)));
    assert!(view.survey.problems[0].contains("GPU 1 is in MIG mode and has no instances"), "{:?}", view.survey.problems);
    machine.set(&device(1, ""));
    let whole = machine.look().await;
    assert_eq!(uuids(&whole), ["GPU-1"], "MIG was switched off");
}

#[tokio::test]
async fn gpus_come_fall_off_the_bus_and_go() {
    let machine = Machine::new(&device(1, ""));
    assert_eq!(uuids(&*machine.until(|view| view.round > 0).await), ["GPU-1"]);
    machine.set(&[device(1, ""), device(2, "")].concat());
    assert_eq!(uuids(&*machine.look().await), ["GPU-1", "GPU-2"]);
    machine.set(&[device(1, ""), device(2, "lost = true")].concat());
    let view = machine.look().await;
    assert_eq!(uuids(&view), ["GPU-1", "GPU-2"], "what was known is not forgotten");
    assert!(view.survey.gpus[0].lost.is_none() && view.survey.gpus[1].lost.is_some());
    machine.set(&device(1, ""));
    assert_eq!(uuids(&*machine.look().await), ["GPU-1"]);
    // Lost before anybody knew it: there is nothing to be known by.
    machine.set(&[device(1, ""), device(3, "lost = true")].concat());
    let view = machine.look().await;
    assert_eq!(uuids(&view), ["GPU-1"]);
    assert!(view.survey.problems[0].contains("GPU 1 cannot be used"), "{:?}", view.survey.problems);
}

#[tokio::test]
async fn critical_errors_are_told_once() {
    let event = |xid: u32| format!("[[events]]\ndevice = \"GPU-1\"\nxid = {xid}\n");
    let machine = Machine::new(&(device(1, "") + &event(31)));
    machine.until(|view| view.round > 0).await;
    machine.set(&(device(1, "") + &event(31) + &event(79) + &event(48)));
    let view = machine.until(|view| view.survey.gpus.iter().any(|gpu| !gpu.xids.is_empty())).await;
    assert_eq!(view.survey.gpus[0].xids, [79, 48], "not what was before anybody listened");
    assert!(machine.look().await.survey.gpus[0].xids.is_empty());
}

#[tokio::test]
async fn an_old_driver_leaves_out_what_it_does_not_know() {
    let faults: String = [
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetMigMode",
        "nvmlEventSetCreate",
        "nvmlDeviceGetName",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    ]
    .map(|function| format!("[[faults]]\nfunction = \"{function}\"\nerror = \"function_not_found\"\n"))
    .concat();
    let machine = Machine::new(&(device(1, "celsius = 50") + &faults));
    let view = machine.until(|view| view.round > 0).await;
    let reading = &view.survey.gpus[0];
    assert_eq!((reading.gpu.model.as_str(), reading.gpu.memory_bytes, reading.lost.as_ref()), ("", 0, None));
    assert_eq!((reading.busy_percent, reading.memory_used_bytes, reading.celsius), (None, None, Some(50)));
    assert_eq!(reading.processes, None, "not known is not none");
}

#[tokio::test]
async fn without_a_usable_driver_there_are_no_gpus_and_a_reason() {
    let machine =
        Machine::new(&format!("{}[[faults]]\nfunction = \"nvmlInit_v2\"\nerror = \"driver_not_loaded\"\n", device(1, "")));
    let view = machine.until(|view| view.round > 0).await;
    assert!(view.survey.gpus.is_empty());
    assert!(view.survey.problems[0].contains("driver"), "{:?}", view.survey.problems);
    machine.set(&device(1, ""));
    machine.until(|view| uuids(view) == ["GPU-1"]).await;
    machine.set("[driver]\nnonsense = 1\n");
    let view = machine.until(|view| !view.survey.problems.is_empty()).await;
    assert!(view.survey.gpus.iter().all(|reading| reading.lost.is_some()), "a broken driver is not a machine without GPUs");
    machine.set("");
    let view = machine.until(|view| view.survey.gpus.is_empty()).await;
    assert!(view.survey.problems[0].contains("no GPU"), "{:?}", view.survey.problems);

    for (library, said) in [("/nowhere/libnvidia-ml.so.1", "/nowhere/libnvidia-ml.so.1"), ("libc.so.6", "libc.so.6")] {
        let source = Box::new(Nvml::new(Some(Path::new(library).to_owned())));
        let watcher = Watcher::start(source, PATIENCE, PATIENCE).unwrap();
        let mut views = watcher.views();
        let view = tokio::time::timeout(PATIENCE, views.wait_for(|view| view.round > 0)).await.unwrap().unwrap();
        assert!(view.survey.gpus.is_empty() && view.survey.problems[0].contains(said), "{:?}", view.survey.problems);
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_named_and_what_was_known_stays() {
    let machine = Machine::patient(&device(1, ""), Duration::from_millis(40));
    machine.until(|view| view.round > 0).await;
    let hang = "[[faults]]\nfunction = \"nvmlDeviceGetPowerUsage\"\ndevice = \"GPU-1\"\nhang = true\n";
    machine.set(&(device(1, "") + hang));
    let view = machine.until(|view| view.stall.is_some()).await;
    assert_eq!(view.stall.map(|stall| stall.function), Some("nvmlDeviceGetPowerUsage"));
    assert_eq!(uuids(&view), ["GPU-1"]);
    machine.set(&device(1, "celsius = 51"));
    machine.until(|view| view.stall.is_none() && view.survey.gpus[0].celsius == Some(51)).await;
}
