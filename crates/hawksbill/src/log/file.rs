//! A file that the log is appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often to look whether it was moved away.
const LOOK: Duration = Duration::from_secs(1);

/// A file by its name: where it is moved away, as by logrotate, a new one is created.
#[derive(Debug)]
pub(super) struct Named {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Named {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = open(&path).map_err(|error| {
            format!("cannot write the log file {}: {error}; name another one with error_log", path.display())
        })?;
        Ok(Self { path, file, looked: Instant::now() })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if !self.is_there() {
                self.file = open(&self.path)?;
            }
        }
        self.file.write_all(line)
    }

    fn is_there(&self) -> bool {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(place).ok();
        named.is_some() && named == self.file.metadata().map(place).ok()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        let mut named = Named::open(&path).unwrap();
        named.write(b"one\n").unwrap();
        fs::rename(&path, dir.path().join("error.log.1")).unwrap();
        named.looked -= LOOK;
        named.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(dir.path().join("error.log.1")).unwrap(), "one\n");
    }

    #[test]
    fn one_that_cannot_be_written_is_named() {
        let error = Named::open(Path::new("/no/such/error.log")).unwrap_err();
        assert!(error.contains("/no/such/error.log") && error.contains("error_log"), "{error}");
    }
}
