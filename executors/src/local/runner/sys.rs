//! The few system calls that have no safe wrapper: waiting without reaping, waking who waits, signals, the groups of a user.
//!
//! Every function here is safe to call; what it must uphold is said at its `unsafe` block. Making processes is in
//! [`launch`](super::launch).
#![expect(unsafe_code, reason = "waitid with WNOWAIT and __WNOTHREAD, sigaction and the user database have no safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::table::{Exit, Pid};

/// Most bytes that an entry of the user database may have.
const MAX_PASSWD_BYTES: usize = 1 << 20;
/// Most groups of a user.
const MAX_GROUPS: i32 = 65_536;
/// What a thread is called by: a signal that nobody sends by accident, and that is ignored where it has no handler.
const WAKE: libc::c_int = libc::SIGURG;

fn wait(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> io::Result<Option<(Pid, Exit)>> {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is writable and large enough; all-zero is a valid `siginfo_t`, so it is initialised whatever happens.
        let (code, info) = unsafe { (libc::waitid(kind, id, info.as_mut_ptr(), flags), info.assume_init()) };
        if code != 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: waitid fills these members, or leaves the zeroes when there was nothing to tell.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        let exit = if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
        return Ok(Some((pid, exit)));
    }
}

/// Waits until a child of the calling thread has ended, and leaves it to be reaped. `ECHILD` where there is no child.
pub(super) fn wait_for_own_child() -> io::Result<Option<Pid>> {
    Ok(wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT | libc::__WNOTHREAD)?.map(|(pid, _)| pid))
}

/// As [`wait_for_own_child`], for children of all threads.
pub(super) fn wait_for_any_child() -> io::Result<Option<Pid>> {
    Ok(wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT)?.map(|(pid, _)| pid))
}

/// As [`wait_for_own_child`], for this child of whatever thread, or until this thread is called by [`wake`]: false in that case.
pub(super) fn wait_for_child_or_wake(pid: Pid) -> bool {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable and large enough; it is not read.
    unsafe { libc::waitid(libc::P_PID, pid.cast_unsigned(), info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) == 0 }
}

/// A thread of this process that can be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Thread(libc::pid_t);

impl Thread {
    /// The calling one, which from now on has signals blocked ([`block_signals`]).
    pub(super) fn this() -> Self {
        block_signals();
        Self(rustix::thread::gettid().as_raw_nonzero().get())
    }
}

/// Ends the wait of a thread, if it waits already: whoever wants it to be ended calls again until it is.
pub(super) fn wake(thread: Thread) {
    // SAFETY: it touches no memory; the signal's handler does nothing, and where it is not there yet the signal is ignored.
    unsafe {
        libc::syscall(libc::SYS_tgkill, rustix::process::getpid().as_raw_nonzero().get(), thread.0, WAKE);
    }
}

/// Blocks all signals in the calling thread but the one of [`wake`], and SIGCHLD: where nobody has it blocked, the kernel drops it at once
/// instead of waking the main thread to ignore it.
pub(super) fn block_signals() {
    // SAFETY: a set is made before it is used; changing this thread's mask touches no memory.
    unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigdelset(all.as_mut_ptr(), WAKE);
        libc::sigdelset(all.as_mut_ptr(), libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut());
    }
}

/// Waits until a child has ended, and reaps it.
pub(super) fn reap_when_ended(pid: Pid) -> io::Result<Option<Exit>> {
    Ok(wait(libc::P_PID, pid.cast_unsigned(), libc::WEXITED)?.map(|(_, exit)| exit))
}

/// Takes the exit of an ended child. `None` if it has not ended; an error if it is no child, or was reaped before.
pub(super) fn reap(pid: Pid) -> io::Result<Option<Exit>> {
    Ok(wait(libc::P_PID, pid.cast_unsigned(), libc::WEXITED | libc::WNOHANG)?.map(|(_, exit)| exit))
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Gives every signal its default again (a daemon that was started with `nohup` passes on that it ignores some), then has SIGPIPE
/// ignored, and SIGHUP and the call of a thread handled by nothing. A handler, unlike "ignored", is not inherited by what is executed.
pub(super) fn reset_signals() {
    for signal in 1..=31 {
        set_disposition(signal, libc::SIG_DFL);
    }
    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
    let handler: extern "C" fn(libc::c_int) = nothing;
    set_disposition(libc::SIGHUP, handler as libc::sighandler_t);
    set_handler(WAKE, handler as libc::sighandler_t, 0);
    // SAFETY: an empty set is made before it is used; changing this thread's mask touches no memory.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Sets what a signal does. Refusals (SIGKILL, SIGSTOP) are of no interest. Async-signal-safe.
pub(super) fn set_disposition(signal: libc::c_int, action: libc::sighandler_t) {
    set_handler(signal, action, libc::SA_RESTART);
}

fn set_handler(signal: libc::c_int, action: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY: all-zero is a valid `sigaction`; the handlers that are passed here do nothing, so they may run anywhere.
    unsafe {
        let mut new = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        new.sa_sigaction = action;
        new.sa_flags = flags;
        libc::sigaction(signal, &raw const new, ptr::null_mut());
    }
}

/// Closes every descriptor but the standard three: what a daemon was started with by somebody careless, and would otherwise be held
/// open, and passed on to every task, for as long as the runner lives. Only for a process that has opened nothing itself yet.
pub(super) fn close_inherited() {
    // SAFETY: the caller says that no descriptor above 2 has an owner in this process. Old kernels refuse; then they stay open.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
    }
}

/// Primary group and all groups of a user. A uid that nobody has in the user database gets the group of the same number, alone.
pub(super) fn groups_of(uid: u32) -> io::Result<(u32, Vec<u32>)> {
    let mut text = vec![0_u8; 4_096];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::zeroed();
        let mut found: *mut libc::passwd = ptr::null_mut();
        // SAFETY: the pointers are valid for the lengths given; `found` is null or points to `entry`.
        let code = unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), text.as_mut_ptr().cast(), text.len(), &raw mut found) };
        match code {
            0 if found.is_null() => return Ok((uid, vec![uid])),
            0 => {
                // SAFETY: the call succeeded, so `entry` is filled and its name is a C string inside `text`, which still lives.
                let (name, gid) = unsafe {
                    let entry = entry.assume_init_ref();
                    (CStr::from_ptr(entry.pw_name), entry.pw_gid)
                };
                return Ok((gid, group_list(name, gid)));
            }
            libc::ERANGE if text.len() < MAX_PASSWD_BYTES => text.resize(text.len() * 4, 0),
            // What the C library says where nobody has this uid.
            libc::ENOENT | libc::ESRCH => return Ok((uid, vec![uid])),
            other => return Err(io::Error::from_raw_os_error(other)),
        }
    }
}

fn group_list(name: &CStr, gid: u32) -> Vec<u32> {
    let mut room = 64;
    loop {
        let mut groups = vec![0_u32; room as usize];
        let mut count = room;
        // SAFETY: `groups` has room for `count` entries, `name` is a C string.
        let code = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if code >= 0 {
            groups.truncate(count.max(0) as usize);
            return groups;
        }
        if room >= MAX_GROUPS {
            return groups;
        }
        room = count.max(room * 2).min(MAX_GROUPS);
    }
}

/// The signal of a number, if a process can be sent it. 32 and 33 belong to the C library.
pub(super) fn signal(number: i32) -> Option<rustix::process::Signal> {
    if !(1..=64).contains(&number) || number == 32 || number == 33 {
        return None;
    }
    // SAFETY: it is a signal that exists and is not the C library's own; it is only sent, never handled.
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
