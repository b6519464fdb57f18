//! Descriptors that pass from one program to the next by their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::FdFlags;

/// Names the inherited descriptors, as a JSON object from names to numbers.
pub(crate) const VARIABLE: &str = "HAWKSBILL_DESCRIPTORS";

/// The name of the channel among them.
pub(crate) const CHANNEL: &str = "@channel";

/// The name of the socket over which a preloader is asked for processes.
pub(crate) const FORKS: &str = "@forks";

/// The names of the streams of a process that is to be forked.
pub(crate) const STDOUT: &str = "@stdout";
pub(crate) const STDERR: &str = "@stderr";

/// The name of what a launcher reads.
pub(crate) const LAUNCH: &str = "@launch";

/// Descriptors by their names.
#[derive(Default)]
pub struct Descriptors(BTreeMap<String, OwnedFd>);

impl Descriptors {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one; a former one of this name is closed.
    pub fn insert(&mut self, name: impl Into<String>, descriptor: impl Into<OwnedFd>) {
        self.0.insert(name.into(), descriptor.into());
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OwnedFd> {
        self.0.get(name)
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.values()
    }

    pub(crate) fn into_all(self) -> Vec<OwnedFd> {
        self.0.into_values().collect()
    }

    pub(crate) fn numbers(&self) -> BTreeMap<String, RawFd> {
        self.0.iter().map(|(name, descriptor)| (name.clone(), descriptor.as_raw_fd())).collect()
    }

    /// Takes over what was inherited under these names and numbers.
    pub(crate) fn adopt(numbers: BTreeMap<String, RawFd>) -> io::Result<Self> {
        numbers
            .into_iter()
            .map(|(name, number)| Ok((name, adopt(number)?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

/// Takes over an inherited descriptor: once in the life of this process, and never one of the first three. It will not
/// be inherited further.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let refused = |why: &str| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the inherited descriptor {number} {why}"))
    };
    if number < 3 {
        return Err(refused("is a standard stream"));
    }
    // SAFETY: borrowed for a system call that fails with EBADF where there is no such descriptor.
    #[allow(unsafe_code)]
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed).map_err(|_| refused("is not open"))?;
    // Whatever this program opens itself is closed on exec: such a number has been reused since and is not inherited.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(refused("was opened by this program"));
    }
    if !ADOPTED.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Err(refused("is taken already"));
    }
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, it came through exec, so nothing in this program owns it, and nobody gets it twice.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_inherited_is_adopted() {
        assert!(adopt(1).is_err());
        assert!(adopt(1_000_000).is_err());
        let own = std::fs::File::open("/dev/null").unwrap();
        assert!(adopt(own.as_raw_fd()).unwrap_err().to_string().contains("opened by this program"));
    }
}
