//! The runner's side of the socket.
//!
//! One daemon at a time: a new connection ends the old one, and its orders are read only after the last order of the old one was
//! carried out; the old one is told that it was replaced. So what an earlier daemon still had to say is known to the next one when it observes.

use std::io::{self, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use scheduler_core::ids::RunId;

use super::clock;
use super::held::task_names;
use super::journal::Record;
use super::note;
use super::output::Output;
use super::shared::{Shared, wait, wait_for};
use super::table::{Connection, End, Live, MAX_QUEUE, MAX_RUNS, Outgoing, Run, SpawnJob, lost};
use crate::contract::{Line, StartOrder};
use crate::local::protocol::{Hello, MAX_FRAME, MAX_HELLO, Order, PROTOCOL, Told, decode, encode, read_frame};

/// Most connections that have not said hello yet.
const MAX_STRANGERS: usize = 8;
/// How long a connection may take to say hello, and at most for any write.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a daemon that is replaced may take to be told so, in microseconds.
const GOODBYE_US: u64 = 1_000_000;
/// Most reports in one frame.
const MAX_REPORTS: usize = 512;

/// The thread that takes connections. It ends with the process.
pub(super) fn listen(shared: &Arc<Shared>, listener: &UnixListener) {
    let strangers = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                note(&format!("taking a connection: {error}"));
                // Out of descriptors, most likely: not to spin until somebody closes one.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if strangers.fetch_add(1, Ordering::AcqRel) >= MAX_STRANGERS {
            strangers.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (shared, strangers) = (Arc::clone(shared), Arc::clone(&strangers));
        let spawned = std::thread::Builder::new().name("daemon".to_owned()).spawn(move || {
            let greeted = greet(&shared, &stream);
            strangers.fetch_sub(1, Ordering::AcqRel);
            match greeted {
                Ok(theirs) => converse(&shared, stream, theirs.lines),
                Err(error) => note(&format!("a connection was refused: {error}")),
            }
        });
        if let Err(error) = spawned {
            note(&format!("a thread for a connection: {error}"));
        }
    }
}

/// Lets in who may give orders, and speaks our protocol.
fn greet(shared: &Shared, mut stream: &UnixStream) -> io::Result<Hello> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    if peer != rustix::process::geteuid() && !peer.is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {} may not give orders", peer.as_raw())));
    }
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    stream.set_write_timeout(Some(HELLO_TIMEOUT))?;
    let mut frame = Vec::new();
    if !read_frame(&mut stream, &mut frame, MAX_HELLO)? {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it said nothing"));
    }
    let theirs: Hello = decode(&frame)?;
    let ours = Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        boot_id: shared.boot_id.clone(),
        lines: true,
        devices: Some(shared.gate.access()),
    };
    frame.clear();
    encode(&ours, &mut frame)?;
    stream.write_all(&frame)?;
    if theirs.protocol != PROTOCOL {
        let detail = format!("it speaks protocol {}, this runner {PROTOCOL}", theirs.protocol);
        return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
    }
    stream.set_read_timeout(None)?;
    // A daemon that does not read for long is not cut off: it gets what it missed when it reads again.
    stream.set_write_timeout(None)?;
    Ok(theirs)
}

/// Takes a daemon's orders until it leaves or another comes. `lines`: it knows of them.
fn converse(shared: &Arc<Shared>, stream: UnixStream, lines: bool) {
    let stream = Arc::new(stream);
    let mut table = shared.lock();
    table.generation += 1;
    let generation = table.generation;
    let old = table.connection.replace(Connection { generation, stream: Arc::clone(&stream), subscribed: false, lines });
    table.outbox.clear();
    shared.out.notify_all();
    shared.room.notify_all();
    // The old connection's writer says good-bye and closes it. If nobody reads that, it is closed all the same.
    let until = clock::boot_us() + GOODBYE_US;
    while table.reading && table.generation == generation {
        table = match until.saturating_sub(clock::boot_us()) {
            0 => {
                let _ = old.as_ref().map(|old| old.stream.shutdown(std::net::Shutdown::Both));
                wait(&shared.room, table)
            }
            left => wait_for(&shared.room, table, left),
        };
    }
    if table.generation != generation || table.closing {
        return;
    }
    table.reading = true;
    drop(table);

    let writer = {
        let (shared, stream) = (Arc::clone(shared), Arc::clone(&stream));
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || write_all(&shared, &stream, generation))
    };
    let ended = writer.and_then(|_| read_all(shared, &stream, generation));

    let _ = stream.shutdown(std::net::Shutdown::Both);
    let mut table = shared.lock();
    table.reading = false;
    if table.generation == generation {
        table.connection = None;
        table.outbox.clear();
        if let Err(error) = ended {
            note(&format!("the connection broke: {error}"));
        }
    }
    shared.room.notify_all();
    shared.out.notify_all();
    shared.timer.notify_one();
}

fn write_all(shared: &Shared, mut stream: &UnixStream, generation: u64) {
    let mut bytes = Vec::new();
    loop {
        let mut table = shared.lock();
        while table.outbox.is_empty() && table.connection.as_ref().is_some_and(|c| c.generation == generation) {
            table = wait(&shared.out, table);
        }
        match &table.connection {
            Some(connection) if connection.generation == generation => {}
            Some(_) => {
                drop(table);
                let _ = encode(&Told::Replaced {}, &mut bytes).and_then(|()| stream.write_all(&bytes));
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            None => return,
        }
        let told = next_frame(&mut table.outbox);
        drop(table);
        if let Err(error) = encode(&told, &mut bytes).and_then(|()| stream.write_all(&bytes)) {
            note(&format!("telling the daemon: {error}"));
            // The reader then ends the connection; what was not told is told to whoever connects next.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
        bytes.clear();
    }
}

/// Takes what fits into one frame: a part of an answer, or the reports before the next.
fn next_frame(outbox: &mut std::collections::VecDeque<Outgoing>) -> Told {
    let mut reports = Vec::new();
    while reports.len() < MAX_REPORTS {
        match outbox.pop_front() {
            Some(Outgoing::Report(report)) => reports.push(report),
            Some(Outgoing::Told(told)) if reports.is_empty() => return told,
            Some(told) => {
                outbox.push_front(told);
                break;
            }
            None => break,
        }
    }
    Told::Reports { reports }
}

fn read_all(shared: &Shared, stream: &UnixStream, generation: u64) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut frame = Vec::new();
    while read_frame(&mut reader, &mut frame, MAX_FRAME)? {
        match decode(&frame) {
            Ok(Order::Start { log_dir, orders }) => start(shared, &log_dir, orders, generation),
            Ok(Order::Stop { run, policy }) => shared.lock().stop(shared, run, policy),
            Ok(Order::Withdraw { runs }) => withdraw(shared, &runs),
            Ok(Order::Forget { runs }) => forget(shared, runs),
            Ok(Order::Observe { id }) => {
                shared.lock().answer(id);
                shared.out.notify_one();
            }
            // A newer daemon may say what this runner does not know.
            Err(error) => note(&format!("an order was not understood and is skipped: {error}")),
        }
    }
    Ok(())
}

fn start(shared: &Shared, log_dir: &str, orders: Vec<StartOrder>, generation: u64) {
    let log_dir: Arc<str> = log_dir.into();
    let mut intents = Vec::with_capacity(orders.len());
    let mut jobs = Vec::with_capacity(orders.len());
    let mut held = Vec::new();
    let mut table = shared.lock();
    for order in orders {
        let run = order.run;
        if table.runs.contains_key(&run) {
            continue;
        }
        if table.runs.len() >= MAX_RUNS {
            let (message, at) =
                (format!("the runner knows {MAX_RUNS} runs, and takes no more until some are forgotten"), clock::now());
            let end = match order.line {
                Some(_) => End::NotBegun { message, at },
                None => End::Over { result: lost(&message), started_at: None, at },
            };
            table.report(end.report(run));
            continue;
        }
        if let Some(line) = order.line {
            held.push((line, order));
            continue;
        }
        let tasks = task_names(&order);
        intents.push(Record::Intent { run, uid: order.uid, tasks: tasks.clone(), share: None, unnamed: None });
        table.runs.insert(run, Run::Live(Box::new(Live::new(tasks, order.uid))));
        jobs.push(SpawnJob { order, log_dir: Arc::clone(&log_dir), share: None, output: Output::Named });
    }
    drop(table);
    hold(shared, held, &log_dir);
    if intents.is_empty() {
        return;
    }
    // Before a process is made there must be a record that one may have been.
    if let Err(error) = shared.journal.append(&intents) {
        note(&format!("journal: {error}"));
        let mut table = shared.lock();
        for job in jobs {
            let problem = lost(&format!("the runner's journal cannot be written: {error}"));
            table.spawning_done(shared, job.order.run, Some(problem), None);
        }
        return;
    }
    for job in jobs {
        let mut table = shared.lock();
        // Also when another daemon has come: what was accepted is started.
        while table.queue.len() >= MAX_QUEUE && table.generation == generation {
            table = wait(&shared.room, table);
        }
        table.queue.push_back(job);
        shared.work.notify_one();
    }
}

/// Puts orders into their lines.
fn hold(shared: &Shared, orders: Vec<(Line, StartOrder)>, log_dir: &Arc<str>) {
    if orders.is_empty() {
        return;
    }
    // First, so that a next runner can say of whoever is known here that it has not begun.
    let runs = orders.iter().map(|(_, order)| order.run).collect();
    if let Err(error) = shared.journal.append([&Record::Held { runs }]) {
        // What had not begun is then not known to the next runner, and can be ordered anew.
        note(&format!("journal: {error}"));
    }
    let mut table = shared.lock();
    for (line, order) in orders {
        table.hold(shared, line, order, log_dir);
    }
    table.wake_spawner(shared);
}

fn withdraw(shared: &Shared, runs: &[RunId]) {
    let mut table = shared.lock();
    for run in runs {
        table.drop_held(shared, *run, "it was withdrawn before its turn came");
    }
}

fn forget(shared: &Shared, runs: Vec<RunId>) {
    let mut table = shared.lock();
    let ended = |run: &RunId| matches!(table.runs.get(run), Some(Run::Ended(_)));
    let runs: Vec<RunId> = runs.into_iter().filter(ended).collect();
    for run in &runs {
        table.runs.remove(run);
    }
    let empty = table.runs.is_empty();
    drop(table);
    if empty {
        shared.timer.notify_one();
    }
    if runs.is_empty() {
        return;
    }
    if let Err(error) = shared.journal.append([&Record::Forgotten { runs }]) {
        // The next runner tells their ends once more.
        note(&format!("journal: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::contract::Report;

    #[test]
    fn an_answer_keeps_its_place_among_reports() {
        let report = || Outgoing::Report(Report::Disturbed { message: String::new() });
        let answer = Told::Runs { id: 1, runs: Vec::new(), last: true };
        let mut outbox = VecDeque::from([report(), report(), Outgoing::Told(answer.clone()), report()]);
        let sizes: Vec<Option<usize>> = std::iter::from_fn(|| {
            (!outbox.is_empty()).then(|| match next_frame(&mut outbox) {
                Told::Reports { reports } => Some(reports.len()),
                Told::Runs { .. } | Told::Replaced {} => None,
            })
        })
        .collect();
        assert_eq!(sizes, [Some(2), None, Some(1)]);
    }
}
