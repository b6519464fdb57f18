//! Opens files beneath a directory, whatever symbolic links somebody put there.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which symbolic links are followed beneath a served directory.
///
/// The directory itself may be reached through any link (`static -> releases/5`): it was configured. Whether a link stays
/// inside is for the kernel to say (`openat2(2)`, Linux 5.6); where that is missing, a link counts as leading out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// Links that stay inside, and such links out of the directory as the directory's owner or root made. So `manage.py
    /// collectstatic --link` works, while a link that another user plants reaches nothing.
    #[default]
    Owner,
    /// Only links that stay inside, written as relative paths. For directories into which an application unpacks what
    /// others upload.
    Inside,
    /// Every link, as nginx does by default.
    Follow,
}

/// A directory from which files are opened.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    symlinks: Symlinks,
}

/// `O_NONBLOCK` so that a FIFO or a device cannot hold us; on what is served, regular files, it changes nothing.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory on the way need not be readable, only searchable.
#[cfg(target_os = "linux")]
const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const PASS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// A directory that exists and may be searched.
    ///
    /// # Errors
    /// Why it cannot be served from.
    pub(super) fn new(path: PathBuf, symlinks: Symlinks) -> io::Result<Self> {
        // Only a directory that may be searched has a `.` that can be looked up.
        openat(CWD, path.join("."), PASS, Mode::empty())?;
        Ok(Self { path, symlinks })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what stands at `relative` (ordinary names joined by slashes, or `.`). The directory is looked up anew each
    /// time, so that one which a deployment replaced is seen.
    ///
    /// # Errors
    /// As open(2). A link that is not followed gives `ELOOP`.
    pub(super) fn open(&self, relative: &OsStr) -> io::Result<(File, Metadata)> {
        let root = openat(CWD, &self.path, PASS, Mode::empty())?;
        let file = File::from(match self.symlinks {
            Symlinks::Follow => openat(root, relative, READ, Mode::empty())?,
            Symlinks::Owner | Symlinks::Inside => self.open_beneath(root, relative)?,
        });
        let metadata = file.metadata()?;
        Ok((file, metadata))
    }

    #[cfg(target_os = "linux")]
    fn open_beneath(&self, root: OwnedFd, relative: &OsStr) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};

        let beneath = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
        match openat2(&root, relative, READ, Mode::empty(), beneath) {
            // A link leads out; or a directory was renamed meanwhile; or there is no openat2(2): an old kernel, or a
            // sandbox that does not know it.
            Err(Errno::XDEV | Errno::AGAIN | Errno::NOSYS | Errno::PERM) => self.walk(root, relative),
            other => other,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_beneath(&self, root: OwnedFd, relative: &OsStr) -> Result<OwnedFd, Errno> {
        self.walk(root, relative)
    }

    /// Opens one name after the other, following only links of owners that are trusted.
    fn walk(&self, root: OwnedFd, relative: &OsStr) -> Result<OwnedFd, Errno> {
        let owner = rustix::fs::fstat(&root)?.st_uid;
        let mut names = relative.as_bytes().split(|byte| *byte == b'/').peekable();
        let mut reached = root;
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() { PASS } else { READ };
            reached = match openat(&reached, name, flags.union(OFlags::NOFOLLOW), Mode::empty()) {
                // Linux names a link ELOOP, or ENOTDIR where a directory is wanted; FreeBSD says EMLINK.
                Err(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) if self.symlinks == Symlinks::Owner => {
                    let target = trusted_target(&reached, name, owner)?;
                    openat(&reached, target, flags, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(reached)
    }
}

/// Where a link points to, if root or `owner` made it.
fn trusted_target(dir: impl AsFd, name: &[u8], owner: u32) -> Result<std::ffi::CString, Errno> {
    let look = || statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    let before = look()?;
    if !FileType::from_raw_mode(before.st_mode).is_symlink() {
        return Err(Errno::NOTDIR);
    }
    if before.st_uid != 0 && before.st_uid != owner {
        return Err(Errno::LOOP);
    }
    let target = readlinkat(dir.as_fd(), name, Vec::new())?;
    // Had it been replaced in between, the text could be another user's.
    let identity = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_ctime, stat.st_ctime_nsec);
    if identity(&before) != identity(&look()?) {
        return Err(Errno::LOOP);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

    /// `outside/secret`, and `root/` with links into it and out of it.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::create_dir_all(path.join("outside/deep")).unwrap();
        std::fs::write(path.join("outside/secret"), "secret").unwrap();
        std::fs::write(path.join("outside/deep/x"), "deep").unwrap();
        std::fs::create_dir_all(path.join("root/dir")).unwrap();
        std::fs::write(path.join("root/dir/x"), "x").unwrap();
        symlink("dir/x", path.join("root/inside")).unwrap();
        symlink("../outside/secret", path.join("root/relative")).unwrap();
        symlink(path.join("outside/secret"), path.join("root/absolute")).unwrap();
        symlink(path.join("outside/deep"), path.join("root/deep")).unwrap();
        symlink("loop", path.join("root/loop")).unwrap();
        symlink("/proc/self/root", path.join("root/proc")).unwrap();
        dir
    }

    fn root(dir: &tempfile::TempDir, symlinks: Symlinks) -> Root {
        Root::new(dir.path().join("root"), symlinks).unwrap()
    }

    fn read(root: &Root, path: &str) -> Option<String> {
        let mut text = String::new();
        root.open(OsStr::new(path)).ok()?.0.read_to_string(&mut text).ok()?;
        Some(text)
    }

    #[test]
    fn inside_lets_no_link_out() {
        let dir = tree();
        let root = root(&dir, Symlinks::Inside);
        assert_eq!(read(&root, "dir/x").as_deref(), Some("x"));
        assert_eq!(read(&root, "inside").as_deref(), Some("x"));
        for path in ["relative", "absolute", "deep/x", "loop", "proc/etc/passwd"] {
            assert_eq!(read(&root, path), None, "{path}");
        }
    }

    #[test]
    fn owner_follows_links_of_the_one_who_made_the_directory() {
        let dir = tree();
        let root = root(&dir, Symlinks::Owner);
        for (path, text) in
            [("inside", "x"), ("relative", "secret"), ("absolute", "secret"), ("deep/x", "deep")]
        {
            assert_eq!(read(&root, path).as_deref(), Some(text), "{path}");
        }
        assert_eq!(read(&root, "loop"), None);
        assert_eq!(read(&root, "deep/missing"), None);
    }

    #[test]
    fn owner_refuses_links_of_somebody_else() {
        let dir = tree();
        let root = root(&dir, Symlinks::Owner);
        // Only root can give a link to another user; elsewhere there is nothing to see.
        for link in ["inside", "relative", "absolute", "deep"] {
            if lchown(dir.path().join("root").join(link), Some(12345), None).is_err() {
                return;
            }
        }
        assert_eq!(read(&root, "inside").as_deref(), Some("x"));
        for path in ["relative", "absolute", "deep/x"] {
            assert_eq!(read(&root, path), None, "{path}");
        }
        chown(dir.path().join("root"), Some(12345), None).unwrap();
        assert_eq!(read(&root, "absolute").as_deref(), Some("secret"));
    }

    #[test]
    fn the_walk_agrees_with_the_kernel() {
        let dir = tree();
        let root = root(&dir, Symlinks::Owner);
        let walk = |path: &str| {
            let top = openat(CWD, root.path(), PASS, Mode::empty()).unwrap();
            root.walk(top, OsStr::new(path)).map(|_| ()).ok()
        };
        for path in ["dir/x", "inside", "relative", "deep/x", "loop", "none", "dir/x/y", ".", "dir"] {
            assert_eq!(walk(path), root.open(OsStr::new(path)).ok().map(|_| ()), "{path}");
        }
    }

    #[test]
    fn follow_follows() {
        let dir = tree();
        assert_eq!(read(&root(&dir, Symlinks::Follow), "deep/x").as_deref(), Some("deep"));
    }

    #[test]
    fn a_fifo_does_not_block() {
        let dir = tree();
        let path = dir.path().join("root/fifo");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (_, metadata) = root(&dir, Symlinks::Owner).open(OsStr::new("fifo")).unwrap();
        assert!(!metadata.is_file());
    }

    #[test]
    fn a_directory_that_was_replaced_is_seen() {
        let dir = tree();
        let root = root(&dir, Symlinks::Owner);
        std::fs::rename(dir.path().join("root"), dir.path().join("old")).unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("root/x"), "new").unwrap();
        assert_eq!(read(&root, "x").as_deref(), Some("new"));
    }
}
