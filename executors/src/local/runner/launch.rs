//! Makes one process, by `clone(CLONE_VM | CLONE_VFORK)`: what `posix_spawn` does, for every task alike.
//!
//! Why not the standard library's `Command`: it falls back to `fork` as soon as a uid, a limit or a cgroup is asked for, which here is
//! every job of a daemon that runs as root; it does not tell a working folder that is missing from a program that is; and it panics
//! when another thread reaps the child of a start that failed, as a subreaper has to.
//!
//! Invariants of the child's side ([`child`]), which runs in this process's memory while the calling thread stands still:
//! - it calls only async-signal-safe functions, allocates nothing, takes no lock, cannot panic, and ends in `execve` or `_exit`;
//! - credentials change by raw system calls: the C library's wrappers would change them for all threads of the runner;
//! - signals are blocked in it until it executes, as they are in the threads that call this ([`sys::block_signals`]); of the
//!   two that are not, one has a handler that does nothing.
#![expect(unsafe_code, reason = "there is no safe way to make a process by vfork")]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::sys::{self, set_disposition};
use super::table::Pid;
use super::texts::Texts;

/// Bytes of stack for the child's side.
const STACK_BYTES: usize = 64 << 10;
/// What a task may not take from files it makes.
const TASK_UMASK: libc::mode_t = 0o022;

/// As whom a task runs.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// What to make.
pub(super) struct Launch<'a> {
    /// Paths to try in order, as for a name that is looked up in `PATH`.
    pub programs: &'a Texts,
    /// Program name and arguments.
    pub args: &'a Texts,
    /// `NAME=value`.
    pub env: &'a Texts,
    /// Where it starts.
    pub working_dir: &'a CStr,
    /// Standard input, output and error; none of them may be 0, 1 or 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// As whom, if not as the runner.
    pub credentials: Option<&'a Credentials>,
    /// Absolute niceness, if it differs from the runner's.
    pub nice: Option<i32>,
    /// `setrlimit` numbers with soft and hard values.
    pub rlimits: &'a [(libc::__rlimit_resource_t, libc::rlimit)],
    /// `cgroup.procs` of the group to join for its limits, open for writing.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The same for that which keeps it from devices, and whether it has to be joined.
    pub device_group: Option<(BorrowedFd<'a>, bool)>,
    /// Whether a descriptor of the process is wanted: whoever waits for it at once needs none.
    pub descriptor: bool,
}

/// What the child was doing when it could not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(super) enum Step {
    /// Making the process.
    Clone = 1,
    /// A session of its own.
    Session,
    /// A resource limit.
    Limit,
    /// Niceness.
    Nice,
    /// Joining its cgroup.
    Cgroup,
    /// Standard input, output, error.
    Stdio,
    /// Groups and user.
    Credentials,
    /// Entering the working folder.
    WorkingDir,
    /// Executing the program.
    Execute,
}

/// Why there is no process.
#[derive(Debug)]
pub(super) struct LaunchError {
    /// What failed.
    pub step: Step,
    /// What the system said.
    pub error: io::Error,
}

/// A process that was made.
#[derive(Debug)]
pub(super) struct Launched {
    /// Its id.
    pub pid: Pid,
    /// Microseconds of the boot clock, taken by the process itself right after it came to be: an upper bound of its start time.
    pub born_us: u64,
    /// A descriptor of it, if it was wanted; none from kernels before Linux 5.2, and where no more are to be had.
    pub descriptor: Option<OwnedFd>,
}

/// The stack of a spawn thread's children, one at a time.
pub(super) struct Stack(Box<[MaybeUninit<u128>]>);

impl Stack {
    /// A stack. Pages that are never touched cost nothing.
    pub(super) fn new() -> Self {
        Self(Box::new_uninit_slice(STACK_BYTES / size_of::<u128>()))
    }
}

/// What both sides see. The child writes, the parent reads after the child is gone from this memory.
struct Shared<'a> {
    launch: &'a Launch<'a>,
    programs: *const *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    step: Step,
    errno: i32,
    born: libc::timespec,
}

/// Makes a process: in a session, and so a process group, of its own, with default signals, the program executed. For threads whose
/// signals are blocked.
pub(super) fn launch(launch: &Launch<'_>, stack: &mut Stack) -> Result<Launched, LaunchError> {
    let (programs, argv, envp) = (launch.programs.pointers(), launch.args.pointers(), launch.env.pointers());
    let mut shared = Shared {
        launch,
        programs: programs.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        step: Step::Clone,
        errno: 0,
        born: libc::timespec { tv_sec: 0, tv_nsec: 0 },
    };
    let shared = &raw mut shared;
    // SAFETY: the child gets a stack of its own that nothing else uses (`stack` is borrowed mutably) and `shared`, which outlives it
    // in this memory: CLONE_VFORK holds this thread until the child has executed or ended. `child` upholds what the module says.
    // `shared` is read only through its pointer, after that.
    // `descriptor` is written by the kernel before clone returns, to a descriptor that is nobody's yet.
    unsafe {
        let top = stack.0.as_mut_ptr_range().end;
        let mut descriptor: libc::c_int = -1;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let wanted = if launch.descriptor { libc::CLONE_PIDFD } else { 0 };
        let mut pid = libc::clone(child, top.cast(), flags | wanted, shared.cast(), &raw mut descriptor);
        let mut cloned = io::Error::last_os_error();
        if pid < 0 && matches!(cloned.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            pid = libc::clone(child, top.cast(), flags, shared.cast());
            cloned = io::Error::last_os_error();
        }
        let descriptor = (pid > 0 && descriptor >= 0).then(|| OwnedFd::from_raw_fd(descriptor));
        if pid < 0 {
            return Err(LaunchError { step: Step::Clone, error: cloned });
        }
        let (step, errno, born) =
            (ptr::read_volatile(&raw const (*shared).step), ptr::read_volatile(&raw const (*shared).errno), (*shared).born);
        if errno != 0 {
            // It ends at once. Nobody else waits for it: its number is its own until then.
            let _ = sys::reap_when_ended(pid);
            return Err(LaunchError { step, error: io::Error::from_raw_os_error(errno) });
        }
        let born_us = born.tv_sec.cast_unsigned() * 1_000_000 + born.tv_nsec.cast_unsigned() / 1_000;
        Ok(Launched { pid, born_us, descriptor })
    }
}

/// The child's side. See the module's invariants.
extern "C" fn child(shared: *mut libc::c_void) -> libc::c_int {
    let shared = shared.cast::<Shared<'_>>();
    // SAFETY: `shared` is the parent's, who stands still; everything it points to lives in the parent's frame.
    unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut (*shared).born);
        if prepare(shared) {
            execute(shared);
        }
        libc::_exit(127)
    }
}

/// Notes a failure; true if there is none.
///
/// # Safety
/// `shared` is valid; errno is that of the call whose result is `code`.
unsafe fn done(shared: *mut Shared<'_>, step: Step, code: libc::c_long) -> bool {
    if code >= 0 {
        return true;
    }
    // SAFETY: as promised by the caller.
    unsafe {
        ptr::write_volatile(&raw mut (*shared).step, step);
        ptr::write_volatile(&raw mut (*shared).errno, *libc::__errno_location());
    }
    false
}

/// Everything before the program.
///
/// # Safety
/// Called in the child, with a valid `shared`.
unsafe fn prepare(shared: *mut Shared<'_>) -> bool {
    // SAFETY: only async-signal-safe calls; pointers and lengths come from slices that live in the parent.
    unsafe {
        let launch = (*shared).launch;
        if !done(shared, Step::Session, libc::setsid().into()) {
            return false;
        }
        set_disposition(libc::SIGPIPE, libc::SIG_DFL);
        set_disposition(libc::SIGHUP, libc::SIG_DFL);
        libc::umask(TASK_UMASK);
        for (resource, limit) in launch.rlimits {
            if !done(shared, Step::Limit, libc::setrlimit(*resource, limit).into()) {
                return false;
            }
        }
        if let Some(nice) = launch.nice
            && !done(shared, Step::Nice, libc::setpriority(libc::PRIO_PROCESS, 0, nice).into())
        {
            return false;
        }
        if let Some(cgroup) = launch.cgroup
            && !done(shared, Step::Cgroup, libc::write(cgroup.as_raw_fd(), c"0\n".as_ptr().cast(), 2) as libc::c_long)
        {
            return false;
        }
        if let Some((group, required)) = launch.device_group {
            let joined = libc::write(group.as_raw_fd(), c"0\n".as_ptr().cast(), 2) as libc::c_long;
            if required && !done(shared, Step::Cgroup, joined) {
                return false;
            }
        }
        let [stdin, stdout, stderr] = launch.stdio;
        for (from, to) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
            if !done(shared, Step::Stdio, libc::dup2(from.as_raw_fd(), to).into()) {
                return false;
            }
        }
        if let Some(who) = launch.credentials {
            let ok = done(shared, Step::Credentials, libc::syscall(libc::SYS_setgroups, who.groups.len(), who.groups.as_ptr()))
                && done(shared, Step::Credentials, libc::syscall(libc::SYS_setresgid, who.gid, who.gid, who.gid))
                && done(shared, Step::Credentials, libc::syscall(libc::SYS_setresuid, who.uid, who.uid, who.uid));
            if !ok {
                return false;
            }
        }
        done(shared, Step::WorkingDir, libc::chdir(launch.working_dir.as_ptr()).into())
    }
}

/// Executes the first of the programs that can be, like a shell: a later one is tried where one is absent or not permitted.
///
/// # Safety
/// Called in the child, with a valid `shared`. Returns only if nothing could be executed, with the reason noted.
unsafe fn execute(shared: *mut Shared<'_>) {
    // SAFETY: the lists end with a null pointer; the mask is made before it is used.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        let mut program = (*shared).programs;
        let mut denied = false;
        while !(*program).is_null() {
            libc::execve(*program, (*shared).argv, (*shared).envp);
            match *libc::__errno_location() {
                libc::EACCES => denied = true,
                libc::ENOENT | libc::ENOTDIR => {}
                _ => break,
            }
            program = program.add(1);
        }
        if denied && matches!(*libc::__errno_location(), libc::ENOENT | libc::ENOTDIR) {
            *libc::__errno_location() = libc::EACCES;
        }
        done(shared, Step::Execute, -1);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::os::fd::AsFd;

    use super::super::sys::reap;
    use super::super::table::Exit;
    use super::*;

    fn try_launch(programs: &[&str], working_dir: &str) -> Result<Launched, LaunchError> {
        sys::block_signals();
        let texts = |list: &[&str]| {
            let mut texts = Texts::default();
            assert!(list.iter().all(|text| texts.add(&[text])));
            texts
        };
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
        let working_dir = std::ffi::CString::new(working_dir).unwrap();
        let programs = texts(programs);
        let args = texts(&["sh", "-c", "exit 7"]);
        let env = texts(&["A=b"]);
        let what = Launch {
            programs: &programs,
            args: &args,
            env: &env,
            working_dir: &working_dir,
            stdio,
            credentials: None,
            nice: Some(3),
            rlimits: &[],
            cgroup: None,
            device_group: None,
            descriptor: true,
        };
        launch(&what, &mut Stack::new())
    }

    #[test]
    fn a_process_is_made_from_the_first_program_that_is_there() {
        let launched = try_launch(&["/nowhere/sh", "/bin/sh"], "/").unwrap();
        assert!(launched.born_us > 0);
        let exit = loop {
            if let Some(exit) = reap(launched.pid).unwrap() {
                break exit;
            }
            std::thread::yield_now();
        };
        assert_eq!(exit, Exit::Code(7));
    }

    #[test]
    fn what_failed_is_told_apart() {
        for (programs, dir, step, errno) in [
            (&["/bin/sh"][..], "/nowhere", Step::WorkingDir, libc::ENOENT),
            (&["/nowhere/sh"][..], "/", Step::Execute, libc::ENOENT),
            (&["/etc/passwd", "/nowhere/sh"][..], "/", Step::Execute, libc::EACCES),
        ] {
            let error = try_launch(programs, dir).unwrap_err();
            assert_eq!((error.step, error.error.raw_os_error()), (step, Some(errno)));
        }
    }
}
