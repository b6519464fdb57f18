//! The kernel tells when something happens in a directory (`inotify(7)`).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::net::unix::pipe;

use super::sources::is_edited;

/// Directories whose events are told. They are a reason to look and nothing more: network file systems tell nothing of
/// what others do.
pub(super) struct Notices {
    /// Not a pipe, but read as one.
    queue: Option<pipe::Receiver>,
    watched: BTreeSet<PathBuf>,
    /// What counts besides that which people edit.
    names: BTreeSet<OsString>,
}

impl Notices {
    /// Watches nothing yet. Needs a tokio runtime.
    pub(super) fn new() -> Self {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Self {
            queue: queue.and_then(|queue| pipe::Receiver::from_owned_fd_unchecked(queue).ok()),
            watched: BTreeSet::new(),
            names: BTreeSet::new(),
        }
    }

    /// Watches these directories. False: not all of them, for there is a bound (`fs.inotify.max_user_watches`).
    pub(super) fn watch(&mut self, dirs: BTreeSet<PathBuf>, names: BTreeSet<OsString>) -> bool {
        self.names = names;
        let Some(queue) = &self.queue else { return false };
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let is_new = |dir: &&PathBuf| !self.watched.contains(*dir);
        let refused = dirs
            .iter()
            .filter(is_new)
            .filter(|dir| inotify::add_watch(queue, dir.as_path(), what).is_err())
            .count();
        self.watched = dirs;
        refused == 0
    }

    /// Waits until something has happened that may be a change.
    pub(super) async fn any(&self) {
        let Some(queue) = &self.queue else { return std::future::pending().await };
        loop {
            if queue.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut room = [MaybeUninit::uninit(); 4096];
            let mut events = Reader::new(queue, &mut room);
            let mut counts = false;
            while let Ok(event) = events.next() {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                let lost = ReadFlags::QUEUE_OVERFLOW | ReadFlags::ISDIR;
                counts |= event.events().intersects(lost)
                    || name.is_some_and(|name| is_edited(name) || self.names.contains(name));
            }
            // Found empty, it is waited for anew. What came just now may be a change.
            counts |= queue.try_read(&mut [0; 4096]).is_ok();
            if counts {
                return;
            }
        }
    }
}
