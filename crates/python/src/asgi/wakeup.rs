//! A descriptor that an event loop watches, and that any thread makes readable.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// One descriptor where the system has `eventfd`, else a pipe.
#[derive(Debug)]
pub(super) struct Wakeup {
    read: OwnedFd,
    #[cfg(not(target_os = "linux"))]
    write: OwnedFd,
}

impl Wakeup {
    #[cfg(target_os = "linux")]
    pub(super) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self { read: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe()?;
        for end in [&read, &write] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self { read, write })
    }

    /// The descriptor to watch for reading.
    pub(super) fn descriptor(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    /// Makes the descriptor readable. A full one is readable already.
    pub(super) fn wake(&self) {
        #[cfg(target_os = "linux")]
        let write = self.read.as_fd();
        #[cfg(not(target_os = "linux"))]
        let write = self.write.as_fd();
        let _ = rustix::io::write(write, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub(super) fn clear(&self) {
        let mut buffer = [0; 64];
        while rustix::io::read(self.read.as_fd(), &mut buffer).is_ok_and(|count| count == buffer.len()) {}
    }
}
