//! The real `flashd` as a child process, and a small client for its socket.
//!
//! Waiting is on signals: readiness on the systemd notification, progress on the event stream, ends on `waitpid`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    missing_docs,
    reason = "shared by test binaries, each of which uses a part of it"
)]

pub mod flash;
pub mod gpus;
pub mod tcp;

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// How long a test waits for a signal before it gives up: generous, because it only ever runs out when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the daemon on a data folder, over its Unix socket. Works on over restarts.
#[derive(Clone)]
pub struct Client {
    pub dir: PathBuf,
}

/// A data folder with a configuration, and the daemon on it. Ends daemon and runner when dropped.
pub struct Daemon {
    child: Option<Child>,
    client: Client,
    binary: PathBuf,
    pub extra: Vec<String>,
    pub envs: Vec<(String, String)>,
}

impl Daemon {
    /// A folder with a configuration; nothing is started yet.
    pub fn prepare(dir: &Path, config: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("flashd.toml"), config).unwrap();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_flashd"));
        Self { child: None, client: Client { dir: dir.to_owned() }, binary, extra: Vec::new(), envs: Vec::new() }
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(dir: &Path, config: &str) -> Self {
        let mut daemon = Self::prepare(dir, config);
        daemon.restart();
        daemon
    }

    pub fn use_binary(&mut self, path: PathBuf) {
        self.binary = path;
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--data")
            .arg(&self.dir)
            .arg("--config")
            .arg(self.dir.join("flashd.toml"))
            .args(&self.extra)
            .envs(self.envs.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        command
    }

    /// What `flashd doctor` prints with its configuration, its flags and these, and whether it found everything.
    pub fn doctor(&self, more: &[&str]) -> (bool, String) {
        let serve = self.command();
        let envs = serve.get_envs().filter_map(|(key, value)| Some((key, value?)));
        let mut doctor = Command::new(&self.binary);
        // What comes after the subcommand is the same.
        let output = doctor.arg("doctor").args(serve.get_args().skip(1)).args(more).envs(envs).output().unwrap();
        let text = format!("{}{}", String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        // For who reads the output of the test.
        eprintln!("{text}");
        (output.status.success(), text)
    }

    /// Starts it (again) on the same folder; returns when it is ready.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|status| panic!("flashd ended before it was ready: {status}\n{}", self.log()));
    }

    /// As [`Daemon::restart`]; the exit status where it ended instead.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        assert!(self.child.is_none(), "it runs already");
        let notify = self.dir.join("notify.sock");
        let _absent = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("flashd.log")).unwrap();
        let mut child = self.command().env("NOTIFY_SOCKET", &notify).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let begun = std::time::Instant::now();
        let mut message = [0; 512];
        loop {
            if let Ok(length) = socket.recv(&mut message)
                && String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1")
            {
                self.child = Some(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(begun.elapsed() < PATIENCE, "flashd did not become ready\n{}", self.log());
        }
    }

    /// As [`Daemon::restart`], for one that will not be ready: returns when it answers at all.
    pub fn restart_unready(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("flashd.log")).unwrap();
        let mut child = self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let begun = std::time::Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "flashd does not answer: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// SIGTERM; returns its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Pids of the runners of this folder.
    pub fn runners(&self) -> Vec<Pid> {
        let dir = self.dir.as_os_str().as_encoded_bytes();
        let found: BTreeMap<i32, Option<i32>> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
                words.get(1) == Some(&b"runner".as_slice()) && words.contains(&dir)
            })
            .map(|pid| (pid, parent(pid)))
            .collect();
        // A task that has not executed its program yet still shows the runner's command line, and is no runner.
        let is_task = |parent: &Option<i32>| parent.is_none_or(|parent| found.contains_key(&parent));
        found.iter().filter(|(_, parent)| !is_task(parent)).filter_map(|(pid, _)| Pid::from_raw(*pid)).collect()
    }

    /// A client of its own.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

impl std::ops::Deref for Daemon {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Client {
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("flashd.log")).unwrap_or_default()
    }

    /// Waits until the log is so; woken by each write to it, for what is told nowhere else.
    pub async fn logged(&self, so: impl Fn(&str) -> bool) {
        let writes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&writes, self.dir.join("flashd.log"), inotify::WatchFlags::MODIFY).unwrap();
        // It is read as a pipe is.
        let writes = pipe::Receiver::from_file_unchecked(writes.into()).unwrap();
        let look = async {
            while !so(&self.log()) {
                writes.readable().await.unwrap();
                while writes.try_read(&mut [0; 4_096]).is_ok() {}
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("it is never said in\n{}", self.log()));
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("flashd.sock")
    }

    /// One request over the Unix socket.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let response = self.open(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    }

    /// As [`Daemon::send`], without reading the body.
    pub async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<hyper::body::Incoming>, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let stream = UnixStream::connect(self.socket()).await.map_err(|error| text(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| text(&error))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call("GET", path, None, &[]).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", path, Some(body), &[]).await.unwrap()
    }

    /// A JSON request; the body is `Null` where the answer has none.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<(StatusCode, Value), String> {
        let request = request(method, path, body.map(|body| body.to_string()).unwrap_or_default(), headers);
        let (status, body) = self.send(request).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Submits one job; its id.
    pub async fn submit(&self, spec: Value) -> String {
        let (status, body) = self.post("/api/v1/jobs", spec).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    pub async fn job(&self, id: &str) -> Value {
        let (status, job) = self.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!(status, StatusCode::OK, "{job}");
        job
    }

    /// Waits until a job is in this state or finished; the job. Driven by the event stream.
    pub async fn until(&self, id: &str, state: &str) -> Value {
        let path = format!("/api/v1/events?job={id}");
        let wait = async {
            let job = self.job(id).await;
            if job["state"] == state || job["state"] == "finished" {
                return job;
            }
            let after = job["revision"].as_u64().unwrap();
            let mut events = self.events(&format!("{path}&after={after}")).await;
            loop {
                let event = events.next().await.expect("the stream ended early");
                if event["state"] == state || event["state"] == "finished" {
                    return self.job(id).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{id} never became {state}\n{}", self.log()))
    }

    /// Waits until a job is so and stays so; the job. Looks after each of its events.
    pub async fn changed(&self, id: &str, so: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            let job = self.job(id).await;
            if so(&job) {
                return job;
            }
            let after = job["revision"].as_u64().unwrap();
            let mut events = self.events(&format!("/api/v1/events?job={id}&after={after}")).await;
            loop {
                events.next().await.expect("the stream ended early");
                let job = self.job(id).await;
                if so(&job) {
                    return job;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{id} never became so\n{}", self.log()))
    }

    /// Waits for the first job that is so, of those that there are and those that come. Driven by the event stream.
    pub async fn first_job(&self, so: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            let mut events = self.events("/api/v1/events?after=0").await;
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let event = events.next().await.expect("the stream ended early");
                let id = event["job"].as_str().unwrap().to_owned();
                if !seen.contains(&id) {
                    let job = self.job(&id).await;
                    if so(&job) {
                        return job;
                    }
                    seen.insert(id);
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no job came that is so\n{}", self.log()))
    }

    pub async fn finished(&self, id: &str) -> Value {
        self.until(id, "finished").await
    }

    /// Opens an event stream.
    pub async fn events(&self, path: &str) -> Events {
        let response = self.open(request("GET", path, String::new(), &[])).await.unwrap();
        Events::of(response)
    }

    /// Revisions of all events there are, in the order of the stream.
    pub async fn all_revisions(&self) -> Vec<u64> {
        let (_, info) = self.get("/api/v1/info").await;
        let head = info["revision"].as_u64().unwrap();
        let mut events = self.events("/api/v1/events?after=0").await;
        let mut revisions = Vec::new();
        while revisions.last().is_none_or(|last| *last < head) && head > 0 {
            let next = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
            revisions.push(next.expect("the stream ended early")["revision"].as_u64().unwrap());
        }
        revisions
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        for runner in self.runners() {
            // Its tasks would outlive it. Each leads a session, and so a group, of its own.
            for task in children(runner) {
                let _gone = kill_process_group(task, Signal::KILL);
            }
            let _gone = kill_process(runner, Signal::KILL);
        }
    }
}

/// Processes whose parent this is.
fn children(parent: Pid) -> Vec<Pid> {
    let of = format!("PPid:\t{}", parent.as_raw_nonzero());
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == of)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// The parent of a process, while it lives.
fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A request with a JSON body, where there is one.
pub fn request(method: &str, path: &str, body: String, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "localhost");
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        builder = builder.header("content-type", "application/json");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(Bytes::from(body))).unwrap()
}

/// An open event stream.
pub struct Events {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// Of a response that is one.
    pub fn of(response: Response<hyper::body::Incoming>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event's data; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Value> {
        Some(self.typed().await?.1)
    }

    /// The same with its type, where it has one.
    pub async fn typed(&mut self) -> Option<(Option<String>, Value)> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8(block).unwrap();
                let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
                if data.is_empty() {
                    continue;
                }
                let kind = text.lines().find_map(|line| line.strip_prefix("event:")).map(|kind| kind.trim().to_owned());
                return Some((kind, serde_json::from_str(&data.join("\n")).unwrap()));
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// A shell job of one task.
pub fn shell(script: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", script], "workingDir": "/tmp"})
}
