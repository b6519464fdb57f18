//! From a configured place to listening sockets.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use hawksbill_core::config::{Listen, ListenHost};
use socket2::{Domain, SockAddr, Type};

use super::{BindOptions, Inner, ListenError, Socket, SocketFile};

/// How often port 0 on `localhost` is tried: a port that is free for IPv4 may be taken for IPv6.
const ATTEMPTS: usize = 16;

pub(super) fn bind(listen: &Listen, options: &BindOptions) -> Result<Vec<Socket>, ListenError> {
    match listen {
        Listen::Tcp { host, port } => tcp(*host, *port, options)
            .map_err(|error| ListenError::tcp(listen, *port, error))?
            .into_iter()
            .map(|socket| Socket::new(Inner::Tcp(socket.into()), false, None))
            .collect(),
        Listen::Unix(path) => Ok(vec![unix(path, options)?]),
        Listen::Fd(number) => Ok(vec![inherited(*number)?]),
    }
}

fn tcp(host: ListenHost, port: u16, options: &BindOptions) -> io::Result<Vec<socket2::Socket>> {
    match host {
        ListenHost::Address(address) => Ok(vec![tcp_socket(SocketAddr::new(address, port), true, options)?]),
        ListenHost::All => {
            let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            tcp_socket(all, false, options).map(|socket| vec![socket]).or_else(|error| {
                if !lacks_ipv6(&error) {
                    return Err(error);
                }
                Ok(vec![tcp_socket(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), true, options)?])
            })
        }
        ListenHost::Localhost => localhost(port, options),
    }
}

/// Both loopback addresses, on the same port.
fn localhost(port: u16, options: &BindOptions) -> io::Result<Vec<socket2::Socket>> {
    let mut attempts = if port == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let four = tcp_socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), true, options)?;
        let port = four.local_addr()?.as_socket().map_or(port, |address| address.port());
        match tcp_socket(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port), true, options) {
            Ok(six) => return Ok(vec![four, six]),
            Err(error) if lacks_ipv6(&error) => return Ok(vec![four]),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || attempts == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(unsupported)
}

fn tcp_socket(address: SocketAddr, v6_only: bool, options: &BindOptions) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip().is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    // Lets a restarted server have its port while old connections are in TIME_WAIT; never two servers at once.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(options.backlog)?;
    Ok(socket)
}

fn unix(path: &Path, options: &BindOptions) -> Result<Socket, ListenError> {
    let shown = path.display();
    let failed =
        |error: io::Error| ListenError::because(format_args!("cannot listen at unix:{shown}"), error);
    let address = SockAddr::unix(path).map_err(|error| {
        ListenError::because(format_args!("unix:{shown} cannot name a socket (over 107 bytes?)"), error)
    })?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address).map_err(failed)?;
        }
        bound => bound.map_err(failed)?,
    }
    let file = SocketFile::of(path);
    if let Some(mode) = options.unix_mode {
        // Before anybody can connect.
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    socket.listen(options.backlog).map_err(failed)?;
    Socket::new(Inner::Unix(socket.into()), false, file)
}

/// Removes a socket's file on which nobody listens.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), ListenError> {
    let shown = path.display();
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        let message = format!(
            "unix:{shown} exists and is not a socket; remove it or choose another path with --listen"
        );
        return Err(ListenError::new(message));
    }
    let probe =
        socket2::Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| socket.connect(address));
    match probe {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| {
                ListenError::because(format_args!("the stale socket {shown} cannot be removed"), error)
            })
        }
        _ => Err(ListenError::new(format!(
            "unix:{shown} is in use by another program; stop it or choose another path with --listen"
        ))),
    }
}

/// Listens on a duplicate of an inherited descriptor. The descriptor itself stays with whoever opened it, and so may be
/// given again; it is only kept from programs that are started later.
fn inherited(number: RawFd) -> Result<Socket, ListenError> {
    let refused = |what: &str| {
        Err(ListenError::new(format!(
            "fd:{number} {what}; pass the number of an inherited listening stream socket"
        )))
    };
    if number <= 2 {
        return refused("is a standard stream");
    }
    if !Path::new(&format!("/dev/fd/{number}")).exists() {
        return refused("is not open");
    }
    #[allow(unsafe_code, reason = "the descriptor is open, and whoever names it keeps it open meanwhile")]
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let unusable = |error: io::Error| ListenError::because(format_args!("fd:{number} cannot be used"), error);
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)
        .map_err(|error| unusable(error.into()))?;
    let owned = descriptor.try_clone_to_owned().map_err(unusable)?;
    adopt(owned).or_else(|error| refused(&error.to_string()))
}

/// A listening socket that another process may have too.
pub(super) fn adopt(descriptor: OwnedFd) -> Result<Socket, ListenError> {
    let socket = socket2::Socket::from(descriptor);
    let family = socket.local_addr().map(|address| address.domain());
    let listens = matches!(socket.r#type(), Ok(Type::STREAM)) && socket.is_listener().unwrap_or(false);
    match (family, listens) {
        (Ok(Domain::IPV4 | Domain::IPV6), true) => Socket::new(Inner::Tcp(socket.into()), true, None),
        (Ok(Domain::UNIX), true) => Socket::new(Inner::Unix(socket.into()), true, None),
        (Err(_), _) => Err(ListenError::new("is not a socket")),
        (Ok(_), _) => Err(ListenError::new("does not listen")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::AsRawFd;

    use super::super::Listener;
    use super::*;

    fn error(listen: &str) -> String {
        Listener::bind(&listen.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn all_addresses_are_one_socket() {
        let listener = Listener::bind(&":0".parse().unwrap()).unwrap();
        let port = listener.addresses()[0].socket_addr().unwrap().port();
        assert_eq!(listener.addresses().len(), 1);
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(listener.addresses()[0].url().unwrap().starts_with("http://localhost:"));
    }

    #[test]
    fn localhost_is_one_port_on_both_families() {
        let listener = Listener::bind(&"localhost:0".parse().unwrap()).unwrap();
        let ports: BTreeSet<_> = listener
            .addresses()
            .iter()
            .filter_map(super::super::Bound::socket_addr)
            .map(|at| at.port())
            .collect();
        assert_eq!(ports.len(), 1);
    }

    #[test]
    fn an_address_that_is_not_ours() {
        assert!(
            error("203.0.113.1:8000").contains("no interface of this machine"),
            "{}",
            error("203.0.113.1:8000")
        );
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listen = Listen::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let options = BindOptions { unix_mode: Some(0o600), ..BindOptions::default() };
        let listener = Listener::bind_with(&listen, &options).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&listen).unwrap_err().to_string().contains("in use by another program"));
        drop(listener);
        assert!(!path.exists());

        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&listen).unwrap_err().to_string().contains("is not a socket"));
        assert!(path.exists());
    }

    #[test]
    fn a_file_of_somebody_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&Listen::Unix(path.clone())).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn descriptors() {
        assert!(error("fd:0").contains("standard stream"));
        assert!(error("fd:9999").contains("is not open"));
        let file = tempfile::tempfile().unwrap();
        assert!(error(&format!("fd:{}", file.as_raw_fd())).contains("is not a socket"));
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(error(&format!("fd:{}", datagram.as_raw_fd())).contains("does not listen"));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        // The descriptor stays with its owner, so it can be given again, and another may come to have its number.
        for _ in 0..2 {
            let listener = Listener::bind(&Listen::Fd(socket.as_raw_fd())).unwrap();
            assert_eq!(listener.addresses()[0].socket_addr(), Some(address));
        }
        assert_eq!(socket.local_addr().unwrap(), address);
    }
}
