//! What Python imports: the functions and classes of the extension module `hawksbill._core`.
//!
//! The public Python API is written in Python over these few; `_core.pyi` states their types.

use std::ffi::OsString;
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use hawksbill::cli::Program;
use hawksbill::config::AppNode;
use hawksbill::core::config::{Data, Origin, Table, Value};
use hawksbill::{BuildError, Config, Registry};
use indexmap::IndexMap;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use crate::allocator::Allocator;
pub use crate::asgi::ClientDisconnected;
use crate::logging;
use crate::output;
use crate::preload;

/// The version of the package.
pub const VERSION: &str = hawksbill::VERSION;

pyo3::create_exception!(
    hawksbill,
    ConfigError,
    PyValueError,
    "The configuration is wrong; the message says where and how."
);
pyo3::create_exception!(
    hawksbill,
    StartError,
    PyRuntimeError,
    "A socket cannot be opened or an application does not start."
);

/// All kinds: the standard ones and Python's.
fn registry() -> PyResult<Registry> {
    let registry = hawksbill::standard_registry().and_then(crate::register);
    registry.map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// Runs the command line and gives its exit code. `command` is what starts a process of its own, before its arguments.
#[pyfunction]
pub fn main(py: Python<'_>, args: Vec<OsString>, command: Vec<String>) -> PyResult<u8> {
    if args.get(1).is_some_and(|word| word == "_worker") {
        output::capture(py)?;
    }
    let registry = registry()?;
    let program = Program { command, give_back: Allocator::give_back, preloading: Some(preload::PRELOADING) };
    Ok(py.detach(|| hawksbill::cli::main(args, program, &registry)))
}

/// The id of the request that is under way here, by its header `X-Request-ID`.
#[pyfunction]
pub fn request_id(py: Python<'_>) -> Option<String> {
    crate::request_id::current(py)
}

/// The tree of turtles that a configuration makes, as text.
#[pyfunction]
pub fn tree(config: &Bound<'_, PyDict>, live: &Bound<'_, PyDict>, dir: &str) -> PyResult<String> {
    let config = read(config, live, dir)?;
    Ok(config.to_string())
}

/// Starts a gateway and returns when it serves.
#[pyfunction]
pub fn start(
    py: Python<'_>,
    config: &Bound<'_, PyDict>,
    live: &Bound<'_, PyDict>,
    dir: &str,
) -> PyResult<Running> {
    let mut config = read(config, live, dir)?;
    config.listen_somewhere("127.0.0.1:8000").map_err(|error| ConfigError::new_err(error.to_string()))?;
    if config.settings.error_log.is_some() {
        return Err(ConfigError::new_err(
            "Gateway(error_log=...): within a program the gateway logs by Python's logging; \
             give the logger 'hawksbill' a handler instead",
        ));
    }
    logging::begin(py, config.settings.log_level)?;
    let failed = |error: BuildError| StartError::new_err(error.to_string());
    py.detach(|| {
        let gateway = hawksbill::Gateway::new(config).map_err(failed)?;
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("hawksbill".into())
            .spawn(move || serve(gateway, &ready))
            .map_err(|error| StartError::new_err(format!("cannot start a thread: {error}")))?;
        let ended = |_| StartError::new_err("the gateway ended while it started; the reason is in the log");
        let (addresses, shutdown) = is_ready.recv().map_err(ended)?.map_err(failed)?;
        Ok(Running { addresses, shutdown, thread: Mutex::new(Some(thread)) })
    })
}

type Ready = Result<(Vec<String>, hawksbill::Shutdown), BuildError>;

/// Serves until it is told to stop. `ready` is told when it begins to serve, or why it does not.
fn serve(gateway: hawksbill::Gateway, ready: &mpsc::Sender<Ready>) {
    let tell = |what| drop(ready.send(what));
    let loading = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let loaded = match loading {
        Ok(runtime) => runtime.block_on(gateway.load()),
        Err(error) => Err(BuildError::new("cannot start the runtime").caused_by(error)),
    };
    let gateway = match loaded {
        Ok(gateway) => gateway,
        Err(error) => return tell(Err(error)),
    };
    let started = ready.clone();
    let hosted = gateway.host(async move |gateway| match gateway.start().await {
        Ok(running) => {
            let addresses = running.addresses().iter().map(ToString::to_string).collect();
            let _ = started.send(Ok((addresses, running.shutdown())));
            running.wait().await;
        }
        Err(error) => drop(started.send(Err(error))),
    });
    if let Err(error) = hosted {
        tracing::error!(target: "hawksbill::server", "{error}");
        tell(Err(error));
    }
}

/// A gateway that serves on threads of its own.
#[pyclass(frozen)]
pub struct Running {
    addresses: Vec<String>,
    shutdown: hawksbill::Shutdown,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Running {
    /// The addresses really bound.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Asks the gateway to stop and returns at once.
    fn shutdown(&self) {
        self.shutdown.begin();
    }

    /// Waits until the gateway has stopped. A second waiter waits for the first.
    fn wait(&self, py: Python<'_>) {
        py.detach(|| {
            let mut thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        });
        logging::flush(py);
    }
}

fn read(config: &Bound<'_, PyDict>, live: &Bound<'_, PyDict>, dir: &str) -> PyResult<Config> {
    let value = Value::new(table(config, &mut Vec::new())?, Origin::unknown());
    let mut apps = IndexMap::new();
    for (name, object) in live {
        let name: String = name.extract()?;
        let origin = Origin::named(format!("app({name:?})"));
        apps.insert(
            name.clone(),
            AppNode {
                app: crate::live_app(&name, object.unbind(), crate::Options::default()),
                processes: None,
                origin,
            },
        );
    }
    let dir = std::path::absolute(dir)?;
    Config::from_value_with(value, dir, &registry()?, apps)
        .map_err(|error| ConfigError::new_err(error.to_string()))
}

/// The call that gave a key, as errors name it: `Gateway(listen=...)`, `app("shop", threads=...)`.
fn origin(path: &[String]) -> Origin {
    let key = |rest: &[String]| rest.first().map(|key| format!(", {key}=...")).unwrap_or_default();
    Origin::named(match path {
        [] => "Gateway()".to_owned(),
        [section, name, rest @ ..] if section == "apps" => format!("app({name:?}{})", key(rest)),
        [section, _, path, rest @ ..] if section == "sites" && path.starts_with('/') => {
            format!("route({path:?}{})", key(rest))
        }
        [section, name, rest @ ..] if section == "sites" => format!("site({name:?}{})", key(rest)),
        [first, ..] => format!("Gateway({first}=...)"),
    })
}

fn table(dict: &Bound<'_, PyDict>, path: &mut Vec<String>) -> PyResult<Table> {
    let mut table = Table::new();
    for (key, object) in dict {
        let key: String = key.extract().map_err(|_| {
            ConfigError::new_err(format!("{}: a key has to be a string, found {key:?}", origin(path)))
        })?;
        // None is how Python says that something is not given.
        if object.is_none() {
            continue;
        }
        path.push(key.clone());
        let value = value(&object, path);
        let origin = origin(path);
        path.pop();
        table.insert(key, origin, value?);
    }
    Ok(table)
}

/// A configuration is shallow; what is deeper is a structure that contains itself.
const DEEPEST: usize = 32;

fn value(object: &Bound<'_, PyAny>, path: &mut Vec<String>) -> PyResult<Value> {
    if path.len() > DEEPEST {
        return Err(ConfigError::new_err(format!("{}: the value is nested too deeply", origin(path))));
    }
    let data = if let Ok(text) = object.cast::<PyString>() {
        Data::String(text.to_str()?.to_owned())
    } else if let Ok(truth) = object.cast::<PyBool>() {
        Data::Boolean(truth.is_true())
    } else if let Ok(number) = object.cast::<PyInt>() {
        Data::Integer(number.extract()?)
    } else if let Ok(number) = object.cast::<PyFloat>() {
        Data::Float(number.extract()?)
    } else if let Ok(dict) = object.cast::<PyDict>() {
        Data::Table(table(dict, path)?)
    } else if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let items = object.try_iter()?.map(|item| {
            path.push("[]".to_owned());
            let value = item.and_then(|item| value(&item, path));
            path.pop();
            value
        });
        Data::Array(items.collect::<PyResult<_>>()?)
    } else if let Ok(mapping) = object.cast::<PyMapping>() {
        let dict = PyDict::new(object.py());
        dict.update(mapping)?;
        Data::Table(table(&dict, path)?)
    } else if let Ok(text) = object.py().import("os")?.call_method1("fspath", (object,)) {
        Data::String(text.extract()?)
    } else {
        let kind = object.get_type();
        let message = format!(
            "{}: found a {}, expected text, a number, true or false, a list or a dict",
            origin(path),
            kind.name()?
        );
        return Err(ConfigError::new_err(message));
    };
    Ok(Value::new(data, origin(path)))
}
