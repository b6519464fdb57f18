//! Work that needs the interpreter once, on a thread that nobody else waits for.

use pyo3::prelude::*;
use tokio::sync::oneshot;

/// Does `work` attached, on a new thread; `None` where the interpreter is gone or there is no thread to be had.
pub(crate) async fn attached<T, F>(name: &str, work: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce(Python<'_>) -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        if let Some(value) = Python::try_attach(work) {
            let _ = sender.send(value);
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let thread = spawned.ok()?;
    let value = receiver.await.ok();
    // It has nothing left to do but to return.
    let _ = thread.join();
    value
}

/// Lets Python objects go where that is allowed: attached.
pub(crate) async fn release<T: Send + 'static>(objects: Option<T>) {
    if objects.is_some() {
        attached("release", move |_| drop(objects)).await;
    }
}
