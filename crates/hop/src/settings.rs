//! How an end behaves, and how two ends come together.

use std::any::Any;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::Fault;
use crate::driver::Source;
use crate::link::Sink;
use crate::wire::{Hello, Limits, PREFIX};

/// What a connection can be made of: a Unix stream, or anything else that is read and written.
pub trait Transport: AsyncRead + AsyncWrite + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + 'static> Transport for T {}

/// The two directions by themselves. Those of a Unix stream need no lock between them.
pub(crate) fn halves(io: impl Transport) -> (Source, Sink) {
    let mut io = Some(io);
    let any: &mut dyn Any = &mut io;
    if let Some(stream) = any.downcast_mut::<Option<UnixStream>>().and_then(Option::take) {
        let (source, sink) = stream.into_split();
        return (Box::pin(source), Box::pin(sink));
    }
    match io {
        Some(io) => {
            let (source, sink) = tokio::io::split(io);
            (Box::pin(source), Box::pin(sink))
        }
        None => (Box::pin(tokio::io::empty()), Box::pin(tokio::io::sink())),
    }
}

/// How one end of a connection behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it takes from the other end.
    pub limits: Limits,
    /// How long the other end may take to say hello.
    pub hello_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), hello_timeout: Duration::from_secs(5) }
    }
}

impl Settings {
    /// Says hello and hears it.
    pub(crate) async fn greet(
        &self,
        source: &mut Source,
        sink: &mut Sink,
        capacity: u32,
    ) -> Result<Hello, Fault> {
        let ours = Hello::ours(self.limits, capacity).encode();
        let greeting = async {
            sink.write_all(&ours).await?;
            sink.flush().await?;
            let mut prefix = [0; PREFIX];
            source.read_exact(&mut prefix).await.map_err(ended)?;
            let mut rest = vec![0; Hello::decode_prefix(prefix)?];
            source.read_exact(&mut rest).await.map_err(ended)?;
            Hello::decode(&rest)
        };
        timeout(self.hello_timeout, greeting).await.map_err(|_| Fault::Silent)?
    }
}

fn ended(error: std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::Ended,
        _ => Fault::Io(error),
    }
}
