//! Processes that die with the one that started them.
//!
//! The kernel sends the signal when the *thread* that made the process ends. Test harnesses end a thread after each test, so processes
//! are made by one thread that lives as long as their cluster.
#![expect(unsafe_code, reason = "the death signal has to be asked for between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// A thread that makes processes. They are killed when it is dropped, and when this process ends in any way.
#[derive(Debug)]
pub(crate) struct Maker {
    orders: mpsc::Sender<Order>,
}

impl Maker {
    /// Starts the thread.
    pub(crate) fn new() -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::Builder::new().name("control-plane".to_owned()).spawn(move || {
            for (command, answer) in queue {
                // Nobody waits for it any more: the child is dropped, and killed with this thread.
                let _ = answer.send(make(command));
            }
        })?;
        Ok(Self { orders })
    }

    /// Makes a process.
    pub(crate) fn spawn(&self, command: Command) -> std::io::Result<Child> {
        let (answer, made) = mpsc::channel();
        let gone = || std::io::Error::other("the thread that makes processes has ended");
        self.orders.send((command, answer)).map_err(|_| gone())?;
        made.recv().map_err(|_| gone())?
    }
}

fn make(mut command: Command) -> std::io::Result<Child> {
    let parent = rustix::process::getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Who died before the request was made sends no signal any more.
        if getppid() == Some(parent) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only prctl and getppid are called, which are safe to call there; nothing is allocated: an error of a
    // kind alone is none, and neither is one made from an errno.
    unsafe { command.pre_exec(ask) };
    command.spawn()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_process_dies_with_its_maker_and_not_with_the_thread_that_asked() {
        let maker = Maker::new().unwrap();
        let ask = |maker: Maker| {
            let mut command = Command::new("sleep");
            command.arg("600");
            let child = maker.spawn(command).unwrap();
            (maker, child)
        };
        let (maker, mut child) = std::thread::spawn(move || ask(maker)).join().unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "the thread that asked has ended");
        drop(maker);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
