//! Users of the machine: what the system's user database says of a uid.
//!
//! Invariants: lookups may go over the network (NSS), so async code calls [`Users::get`], which looks up on a blocking thread and
//! keeps the answer for a minute; the cache is bounded.

#![expect(unsafe_code, reason = "the C library's user database has no safe interface in the standard library")]

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use scheduler_core::ids::Name;

/// How long an answer is kept.
const FRESH: Duration = Duration::from_mins(1);
/// Answers that are kept at most.
const CACHED: usize = 1_024;
/// Largest record that is read.
const RECORD_BYTES: usize = 1 << 20;
/// Groups of a user that are looked at.
const GROUPS: usize = 1_024;

/// A user of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its name; the uid in digits where the system has none.
    pub name: Name,
    /// Its number.
    pub uid: u32,
    /// Its first group; the uid where the system does not know the user.
    pub gid: u32,
    /// Its home folder, where the system knows one.
    pub home: Option<Name>,
    /// All its groups, the first one included.
    pub groups: Vec<u32>,
}

/// Answers of the system's user database.
#[derive(Default, Debug)]
pub struct Users {
    cache: Mutex<HashMap<u32, (Instant, Arc<User>)>>,
}

impl Users {
    /// What the system knows of a uid.
    pub async fn get(self: &Arc<Self>, uid: u32) -> io::Result<Arc<User>> {
        if let Some(user) = self.cached(uid) {
            return Ok(user);
        }
        let users = Arc::clone(self);
        tokio::task::spawn_blocking(move || users.get_blocking(uid)).await.map_err(io::Error::other)?
    }

    /// The same, from a thread that may block.
    pub fn get_blocking(&self, uid: u32) -> io::Result<Arc<User>> {
        if let Some(user) = self.cached(uid) {
            return Ok(user);
        }
        let user = Arc::new(look_up(uid)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(uid, (Instant::now(), Arc::clone(&user)));
        Ok(user)
    }

    fn cached(&self, uid: u32) -> Option<Arc<User>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(&uid).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, user)| Arc::clone(user))
    }
}

/// A copy of a C string that the C library returned; `None` for a null pointer or bytes that are not UTF-8.
///
/// # Safety
/// `text` is null or points to a C string that lives as long as this call.
unsafe fn text(text: *const libc::c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and a C string by the contract of this function.
    unsafe { CStr::from_ptr(text) }.to_str().ok().map(str::to_owned)
}

fn look_up(uid: u32) -> io::Result<User> {
    let mut buffer: Vec<libc::c_char> = vec![0; 4_096];
    loop {
        let mut record = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are to live memory of the lengths given; `found` is null or `record` afterwards.
        let rc = unsafe { libc::getpwuid_r(uid, record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
        match rc {
            libc::ERANGE if buffer.len() < RECORD_BYTES => buffer.resize(buffer.len() * 4, 0),
            0 if found.is_null() => return Ok(nameless(uid)),
            0 => {
                // SAFETY: `found` is not null, so the record is filled; its strings lie in `buffer`, which outlives this block.
                let (name, home, gid, groups) = unsafe {
                    let record = record.assume_init();
                    (text(record.pw_name), text(record.pw_dir), record.pw_gid, groups(record.pw_name, record.pw_gid))
                };
                let name = name.map_or_else(|| Name::from(uid.to_string()), Name::from);
                let home = home.filter(|home| home.starts_with('/')).map(Name::from);
                return Ok(User { name, uid, gid, home, groups });
            }
            // "Not found" in several spellings, as the manual says.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(nameless(uid)),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn nameless(uid: u32) -> User {
    User { name: Name::from(uid.to_string()), uid, gid: uid, home: None, groups: vec![uid] }
}

/// All groups of a user; only the first one if the system cannot tell.
///
/// # Safety
/// `name` points to a C string that lives as long as this call.
unsafe fn groups(name: *const libc::c_char, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; GROUPS];
    let mut count = GROUPS as libc::c_int;
    // SAFETY: `name` by the contract of this function; `groups` has room for `count` entries.
    let rc = unsafe { libc::getgrouplist(name, gid, groups.as_mut_ptr(), &raw mut count) };
    if rc < 0 {
        return vec![gid];
    }
    groups.truncate(usize::try_from(count).unwrap_or(0));
    groups
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_of_that_number_is_not() {
        let users = Users::default();
        let root = users.get_blocking(0).unwrap();
        assert_eq!((root.name.as_str(), root.uid, root.gid), ("root", 0, 0));
        assert!(root.groups.contains(&0));
        let nobody = users.get_blocking(3_999_999_999).unwrap();
        assert_eq!((nobody.name.as_str(), &nobody.home), ("3999999999", &None));
    }
}
