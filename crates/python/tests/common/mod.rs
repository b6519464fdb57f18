//! Applications written in Python, made turtles.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code outside of test functions"
)]

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hawksbill_core::{Body, Builder, Error, Generation, Turtle, Vitals, body};
use hawksbill_python::{Options, live_app};
use http::{Request, Response};
use pyo3::prelude::*;

/// Longer than anything here takes, shorter than patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running application.
pub(crate) struct App {
    pub(crate) turtle: Turtle,
    generation: Generation,
    module: Py<PyModule>,
}

impl App {
    /// Runs `source` and hosts what it calls `app`.
    pub(crate) async fn start(source: &str) -> Self {
        Self::with(source, Options::default()).await.unwrap()
    }

    pub(crate) async fn with(source: &str, options: Options) -> Result<Self, String> {
        Python::initialize();
        let (module, app) = Python::attach(|py| {
            // Code that is run under the name of a module that exists runs in that module.
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = CString::new(format!("app{}", COUNT.fetch_add(1, Ordering::Relaxed))).unwrap();
            let source = CString::new(source).unwrap();
            let module = PyModule::from_code(py, &source, c"app.py", &name).unwrap();
            let app = module.getattr("app").unwrap().unbind();
            (module.unbind(), app)
        });
        let mut builder = Builder::new("/");
        let turtle = live_app("test", app, options).build(&mut builder).unwrap();
        let mut generation = builder.finish();
        generation.start().await.map_err(|error| error.to_string())?;
        for task in generation.take_tasks() {
            tokio::spawn(task);
        }
        Ok(Self { turtle, generation, module })
    }

    pub(crate) async fn ask(
        &self,
        request: http::request::Builder,
        body: Body,
    ) -> Result<Response<Body>, Error> {
        let request: Request<Body> = request.body(body).unwrap();
        tokio::time::timeout(PATIENCE, self.turtle.ask(request)).await.expect("an answer in time")
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, Bytes) {
        let response = self.ask(Request::get(path), Body::empty()).await.unwrap();
        (response.status().as_u16(), whole(response).await.unwrap())
    }

    /// The value of an expression in the application's module, as text.
    pub(crate) fn eval(&self, expression: &str) -> String {
        Python::attach(|py| {
            let expression = CString::new(expression).unwrap();
            let globals = self.module.bind(py).dict();
            py.eval(&expression, Some(&globals), None).unwrap().str().unwrap().to_string()
        })
    }

    /// Waits until an expression in the application's module is true.
    pub(crate) async fn until(&self, expression: &str) {
        let becomes_true = async {
            while self.eval(&format!("bool({expression})")) != "True" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, becomes_true).await.unwrap_or_else(|_| {
            panic!(
                "never: {expression}; {}",
                self.eval("{k: v for k, v in globals().items() if not k.startswith('__')}")
            )
        });
    }

    /// What the generation says of itself.
    pub(crate) fn vitals(&self) -> &Arc<Vitals> {
        self.generation.vitals()
    }

    /// The object that the module calls `log`.
    pub(crate) fn log(&self) -> Py<PyAny> {
        Python::attach(|py| self.module.bind(py).getattr("log").unwrap().unbind())
    }

    pub(crate) async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.generation.stop()).await.expect("a stop in time");
    }
}

pub(crate) async fn whole(response: Response<Body>) -> Result<Bytes, Error> {
    let collected = body::to_bytes(response.into_body(), usize::MAX);
    tokio::time::timeout(PATIENCE, collected).await.expect("a body in time")
}
