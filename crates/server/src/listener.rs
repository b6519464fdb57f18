//! Sockets that listen: bound here or inherited.

mod bind;
mod error;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hawksbill_core::Address;
use hawksbill_core::config::Listen;

pub use self::error::ListenError;

/// A place where connections are accepted: one socket, or two for `localhost` (IPv4 and IPv6).
///
/// ```
/// use hawksbill_server::Listener;
///
/// let listener = Listener::bind(&"127.0.0.1:0".parse()?)?;
/// let port = listener.addresses()[0].socket_addr().unwrap().port();
/// assert_eq!(listener.addresses()[0].to_string(), format!("http://127.0.0.1:{port}"));
///
/// let error = Listener::bind(&format!("127.0.0.1:{port}").parse()?).unwrap_err();
/// assert!(error.to_string().contains("in use by another program"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    pub(crate) sockets: Vec<Socket>,
}

/// How sockets are bound.
#[derive(Clone, Debug)]
pub struct BindOptions {
    /// Connections that may wait to be accepted; the system may allow fewer. 4096.
    pub backlog: i32,
    /// Permission bits of a Unix socket's file, such as `0o660`. `None`: as the umask says.
    pub unix_mode: Option<u32>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { backlog: 4096, unix_mode: None }
    }
}

/// One listening socket, nonblocking and close-on-exec.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) inner: Inner,
    pub(crate) bound: Bound,
    /// Whether another process may have it too: then closing it loses nobody who waits in its queue.
    pub(crate) inherited: bool,
    /// The file to remove at the end. Dropped after the socket is closed.
    pub(crate) file: Option<SocketFile>,
}

#[derive(Debug)]
pub(crate) enum Inner {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Where a listener really is. Displays as a URL, or `unix:` and the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound(Address);

impl Bound {
    /// The address, with the port that the system chose for port 0.
    pub fn address(&self) -> &Address {
        &self.0
    }

    /// The TCP address; `None` for a Unix socket.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.0 {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
        }
    }

    /// The path of a Unix socket; `None` for TCP and for a socket without a name.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Address::Tcp(_) => None,
            Address::Unix(path) => path.as_deref(),
        }
    }

    /// A URL that a browser on this machine can open; `None` for a Unix socket.
    pub fn url(&self) -> Option<String> {
        let address = self.socket_addr()?;
        let host = match address.ip() {
            ip if ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Some(if address.port() == 80 {
            format!("http://{host}")
        } else {
            format!("http://{host}:{}", address.port())
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Tcp(address) => write!(f, "http://{address}"),
            unix @ Address::Unix(_) => unix.fmt(f),
        }
    }
}

impl Listener {
    /// Listens where a configuration says: on a duplicate of an inherited descriptor, which stays its owner's.
    ///
    /// # Errors
    /// A message that says what is in the way and what to do.
    pub fn bind(listen: &Listen) -> Result<Self, ListenError> {
        Self::bind_with(listen, &BindOptions::default())
    }

    /// Like [`Listener::bind`], with options.
    ///
    /// # Errors
    /// A message that says what is in the way and what to do.
    pub fn bind_with(listen: &Listen, options: &BindOptions) -> Result<Self, ListenError> {
        bind::bind(listen, options).map(|sockets| Self { sockets })
    }

    /// Serves on a listening TCP socket that the caller has bound.
    ///
    /// # Errors
    /// When it is not a socket that can be used.
    pub fn from_tcp(listener: std::net::TcpListener) -> Result<Self, ListenError> {
        Ok(Self { sockets: vec![Socket::new(Inner::Tcp(listener), true, None)?] })
    }

    /// Serves on a listening Unix socket that the caller has bound. Its file is the caller's to remove.
    ///
    /// # Errors
    /// When it is not a socket that can be used.
    pub fn from_unix(listener: std::os::unix::net::UnixListener) -> Result<Self, ListenError> {
        Ok(Self { sockets: vec![Socket::new(Inner::Unix(listener), true, None)?] })
    }

    /// Duplicates of its descriptors, for another process that is to accept from the same sockets.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn descriptors(&self) -> std::io::Result<Vec<OwnedFd>> {
        let duplicate = |socket: &Socket| match &socket.inner {
            Inner::Tcp(listener) => listener.try_clone().map(OwnedFd::from),
            Inner::Unix(listener) => listener.try_clone().map(OwnedFd::from),
        };
        self.sockets.iter().map(duplicate).collect()
    }

    /// A second listener of the same sockets.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn duplicate(&self) -> Result<Self, ListenError> {
        let descriptors = self.descriptors();
        let descriptors =
            descriptors.map_err(|error| ListenError::because("a socket cannot be duplicated", error))?;
        Self::from_descriptors(descriptors)
    }

    /// Accepts from sockets that another process has too, by their descriptors.
    ///
    /// # Errors
    /// When one is not a listening TCP or Unix socket.
    pub fn from_descriptors(descriptors: impl IntoIterator<Item = OwnedFd>) -> Result<Self, ListenError> {
        let sockets = descriptors.into_iter().map(bind::adopt).collect::<Result<_, _>>()?;
        Ok(Self { sockets })
    }

    /// Has the files of its Unix sockets removed at its end, as if it had made them: for a program that goes on where the
    /// one that made them was.
    pub fn own_files(&mut self) {
        for socket in &mut self.sockets {
            socket.file = socket.bound.path().and_then(SocketFile::of);
        }
    }

    /// Where it is, one entry for each socket. Never empty.
    pub fn addresses(&self) -> Vec<Bound> {
        self.sockets.iter().map(|socket| socket.bound.clone()).collect()
    }
}

impl TryFrom<std::net::TcpListener> for Listener {
    type Error = ListenError;

    fn try_from(listener: std::net::TcpListener) -> Result<Self, ListenError> {
        Self::from_tcp(listener)
    }
}

impl TryFrom<std::os::unix::net::UnixListener> for Listener {
    type Error = ListenError;

    fn try_from(listener: std::os::unix::net::UnixListener) -> Result<Self, ListenError> {
        Self::from_unix(listener)
    }
}

impl Socket {
    fn new(inner: Inner, inherited: bool, file: Option<SocketFile>) -> Result<Self, ListenError> {
        let prepared = match &inner {
            Inner::Tcp(listener) => {
                listener.set_nonblocking(true).and_then(|()| listener.local_addr()).map(Address::Tcp)
            }
            Inner::Unix(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| listener.local_addr())
                .map(|address| Address::Unix(address.as_pathname().map(Path::to_path_buf))),
        };
        let address = prepared.map_err(|error| ListenError::because("the socket cannot be used", error))?;
        Ok(Self { inner, bound: Bound(address), inherited, file })
    }
}

/// A Unix socket's file, removed when dropped if it is still the one that was made here.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// `None` when the file is already gone.
    fn of(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_path_buf(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(target: "hawksbill::server", "{} could not be removed: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
