//! Reading and writing one connection from two tasks.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::encode::SharedMessage;
use crate::error::Error;
use crate::message::Message;
use crate::stream::WebSocket;

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Two halves for two tasks. Pongs and the answer to a close, queued by the receiving half, are written by whichever
    /// half is polled.
    ///
    /// ```
    /// use hawksbill_websocket::{Config, Message, Role, WebSocket};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), hawksbill_websocket::Error> {
    /// let (near, far) = tokio::io::duplex(64);
    /// let (mut receiver, mut sender) = WebSocket::new(near, Role::Server, &Config::default()).split();
    /// let mut client = WebSocket::new(far, Role::Client, &Config::default());
    ///
    /// let reading = tokio::spawn(async move { receiver.recv().await });
    /// let (sent, greeting) = tokio::join!(sender.send(Message::text("hello")), client.recv());
    /// sent?;
    /// assert_eq!(greeting?, Message::text("hello"));
    /// client.send(Message::text("hello yourself")).await?;
    /// assert_eq!(reading.await.unwrap()?, Message::text("hello yourself"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (Receiver<S>, Sender<S>) {
        let wakers = Arc::new(Wakers::default());
        let shared = Arc::new(Mutex::new(self));
        let receiver = Receiver {
            shared: Arc::clone(&shared),
            wakers: Arc::clone(&wakers),
            both: Waker::from(wakers.clone()),
        };
        let sender = Sender { shared, both: Waker::from(wakers.clone()), wakers };
        (receiver, sender)
    }
}

/// The tasks of both halves. The stream knows one task for writing, and either half may be the one that writes, so it
/// is given this, which wakes both.
#[derive(Default)]
struct Wakers {
    receiver: Mutex<Option<Waker>>,
    sender: Mutex<Option<Waker>>,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        wake(&self.receiver);
        wake(&self.sender);
    }
}

fn wake(slot: &Mutex<Option<Waker>>) {
    let waker = lock(slot).take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A panic elsewhere leaves nothing half-done that these locks protect.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The half that receives; see [`WebSocket::split`].
pub struct Receiver<S> {
    shared: Arc<Mutex<WebSocket<S>>>,
    wakers: Arc<Wakers>,
    both: Waker,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// As [`WebSocket::recv`].
    ///
    /// # Errors
    /// As [`WebSocket::recv`].
    pub async fn recv(&mut self) -> Result<Message, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`WebSocket::poll_recv`].
    ///
    /// # Errors
    /// As [`WebSocket::recv`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        *lock(&self.wakers.receiver) = Some(cx.waker().clone());
        let polled = lock(&self.shared).poll_recv_with(cx, &mut Context::from_waker(&self.both));
        if !matches!(polled, Poll::Pending | Poll::Ready(Ok(Message::Text(_) | Message::Binary(_)))) {
            // A sender that waits for room learns that the connection is over.
            wake(&self.wakers.sender);
        }
        polled
    }
}

/// The half that sends; see [`WebSocket::split`].
pub struct Sender<S> {
    shared: Arc<Mutex<WebSocket<S>>>,
    wakers: Arc<Wakers>,
    both: Waker,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// As [`WebSocket::send`].
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// As [`WebSocket::feed`].
    ///
    /// # Errors
    /// As [`WebSocket::feed`].
    pub async fn feed(&mut self, message: Message) -> Result<(), Error> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)
    }

    /// As [`WebSocket::flush`].
    ///
    /// # Errors
    /// As [`WebSocket::flush`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// As [`WebSocket::poll_ready`].
    ///
    /// # Errors
    /// As [`WebSocket::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        *lock(&self.wakers.sender) = Some(cx.waker().clone());
        lock(&self.shared).poll_ready(&mut Context::from_waker(&self.both))
    }

    /// As [`WebSocket::start_send`].
    ///
    /// # Errors
    /// As [`WebSocket::start_send`].
    pub fn start_send(&mut self, message: Message) -> Result<(), Error> {
        lock(&self.shared).start_send(message)
    }

    /// As [`WebSocket::start_send_shared`].
    ///
    /// # Errors
    /// As [`WebSocket::start_send_shared`].
    pub fn start_send_shared(&mut self, message: &SharedMessage) -> Result<(), Error> {
        lock(&self.shared).start_send_shared(message)
    }

    /// As [`WebSocket::poll_flush`].
    ///
    /// # Errors
    /// As [`WebSocket::poll_flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        *lock(&self.wakers.sender) = Some(cx.waker().clone());
        lock(&self.shared).poll_flush(&mut Context::from_waker(&self.both))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::config::{Config, Role};

    /// Both halves of both ends send as fast as they can through a narrow pipe, pings in between.
    #[tokio::test]
    async fn halves_never_forget_to_wake_each_other() {
        const COUNT: usize = 2000;
        let config = Config { write_buffer: 256, ..Config::default() };
        let (near, far) = tokio::io::duplex(100);
        let mut tasks = Vec::new();
        for (io, role) in [(near, Role::Server), (far, Role::Client)] {
            let (mut receiver, mut sender) = WebSocket::new(io, role, &config).split();
            tasks.push(tokio::spawn(async move {
                for i in 0..COUNT {
                    if i % 7 == 0 {
                        sender.send(Message::Ping(vec![1; i % 100].into())).await.unwrap();
                    }
                    sender.send(Message::binary(vec![0; i % 300])).await.unwrap();
                }
                COUNT
            }));
            tasks.push(tokio::spawn(async move {
                let mut count = 0;
                while count < COUNT {
                    if let Message::Binary(data) = receiver.recv().await.unwrap() {
                        assert_eq!(data.len(), count % 300);
                        count += 1;
                    }
                }
                count
            }));
        }
        for task in tasks {
            assert_eq!(timeout(Duration::from_secs(20), task).await.unwrap().unwrap(), COUNT);
        }
    }

    #[tokio::test]
    async fn a_sender_that_waits_learns_of_the_close() {
        let config = Config { write_buffer: 64, ..Config::default() };
        let (near, far) = tokio::io::duplex(64);
        let (mut receiver, mut sender) = WebSocket::new(near, Role::Server, &config).split();
        let sending = tokio::spawn(async move {
            loop {
                if let Err(error) = sender.send(Message::binary(vec![0; 100])).await {
                    return error;
                }
            }
        });
        tokio::task::yield_now().await;
        let mut client = WebSocket::new(far, Role::Client, &config);
        client.start_send(Message::close(1000, "")).unwrap();
        assert!(std::future::poll_fn(|cx| client.poll_flush(cx)).await.is_ok());
        let last = timeout(Duration::from_secs(5), receiver.recv()).await.unwrap();
        assert_eq!(last.unwrap(), Message::close(1000, ""));
        drop(client);
        let error = timeout(Duration::from_secs(5), async {
            let _ = receiver.recv().await;
            sending.await.unwrap()
        });
        assert!(matches!(error.await.unwrap(), Error::Closed | Error::Io(_)));
    }
}
