//! Which interface a callable has, found by looking at it.

use hawksbill_core::BuildError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// How an application is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// `application(environ, start_response)`: PEP 3333.
    Wsgi,
    /// `await application(scope, receive, send)`: ASGI 3.
    Asgi,
}

/// What looking at an object found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Is(Interface),
    /// `application(scope)(receive, send)`: ASGI 2.
    DoubleCallable,
    /// Called without arguments it may return an application.
    Factory,
    /// It takes two arguments as well as three.
    Ambiguous,
    NotCallable,
    Neither,
}

/// An application and its interface; a factory is called for it. `name` is how messages call it.
///
/// # Errors
/// When it is neither, when it could be both and `wanted` does not say which, and what a factory raises.
pub(crate) fn resolve<'py>(
    object: Bound<'py, PyAny>,
    factory: bool,
    wanted: Option<Interface>,
    name: &str,
) -> Result<(Bound<'py, PyAny>, Interface), BuildError> {
    let py = object.py();
    let look = if factory { Look::Factory } else { look_at(&object).unwrap_or(Look::Ambiguous) };
    if look == Look::Factory && !(wanted.is_some() && !factory && looks_variadic(&object)) {
        let application = object.call0().map_err(|error| {
            BuildError::new(format!("calling the factory '{name}' failed: {error}"))
                .details(crate::failure::Failure::new(py, &error).traceback)
        })?;
        if look_at(&application).is_ok_and(|look| look == Look::Factory) {
            return Err(BuildError::new(format!(
                "'{name}' is a factory of a factory; name what makes the application"
            )));
        }
        return resolve(application, false, wanted, &format!("{name}()"));
    }
    match (wanted, look) {
        (_, Look::NotCallable) => {
            let kind = object.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            Err(BuildError::new(format!(
                "'{name}' is a {kind} and cannot be called; name a WSGI or ASGI application"
            )))
        }
        (_, Look::DoubleCallable) => Err(BuildError::new(format!(
            "'{name}' takes one argument, as ASGI 2 applications did; wrap it with \
             asgiref.compatibility.guarantee_single_callable to make it an ASGI 3 application"
        ))),
        (Some(interface), _) | (None, Look::Is(interface)) => Ok((object, interface)),
        (None, _) => Err(BuildError::new(format!(
            "'{name}' does not show whether it is a WSGI or an ASGI application; say so: --wsgi or --asgi on the \
             command line, wsgi = or asgi = in a configuration"
        ))),
    }
}

fn looks_variadic(object: &Bound<'_, PyAny>) -> bool {
    accepts(object, 2).unwrap_or(true) || accepts(object, 3).unwrap_or(true)
}

fn look_at(object: &Bound<'_, PyAny>) -> PyResult<Look> {
    if !object.is_callable() {
        return Ok(Look::NotCallable);
    }
    if let Ok(class) = object.cast::<PyType>() {
        return look_at_class(class);
    }
    if is_asynchronous(object)? {
        return Ok(if accepts(object, 3)? { Look::Is(Interface::Asgi) } else { Look::Neither });
    }
    if let Some(interface) = by_names(object)? {
        return Ok(Look::Is(interface));
    }
    Ok(match (accepts(object, 2)?, accepts(object, 3)?) {
        (true, false) => Look::Is(Interface::Wsgi),
        (false, true) => Look::Is(Interface::Asgi),
        (true, true) => Look::Ambiguous,
        (false, false) if accepts(object, 0)? => Look::Factory,
        (false, false) if accepts(object, 1)? => Look::DoubleCallable,
        (false, false) => Look::Neither,
    })
}

/// A class is a WSGI application if its instances are made of environ and `start_response` (PEP 3333 has one), and one
/// of ASGI 2 if they are made of a scope.
fn look_at_class(class: &Bound<'_, PyType>) -> PyResult<Look> {
    if accepts(class, 2)? && !accepts(class, 0)? {
        return Ok(Look::Is(Interface::Wsgi));
    }
    if accepts(class, 1)? && !accepts(class, 0)? && class.hasattr(intern!(class.py(), "__call__"))? {
        return Ok(Look::DoubleCallable);
    }
    Ok(Look::Factory)
}

/// Whether a call returns a coroutine: an `async def`, also inside `functools.partial` and behind `__call__`.
fn is_asynchronous(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    let test = py.import(intern!(py, "inspect"))?.getattr(intern!(py, "iscoroutinefunction"))?;
    let mut function = object.clone();
    while let Some(inner) = function.getattr_opt(intern!(py, "func"))? {
        let is_partial =
            function.is_instance(&py.import(intern!(py, "functools"))?.getattr(intern!(py, "partial"))?)?;
        if !is_partial {
            break;
        }
        function = inner;
    }
    if test.call1((&function,))?.is_truthy()? {
        return Ok(true);
    }
    let call = function.get_type().getattr(intern!(py, "__call__"))?;
    test.call1((call,))?.is_truthy()
}

/// By the names of the parameters, where they are those of the specifications.
fn by_names(object: &Bound<'_, PyAny>) -> PyResult<Option<Interface>> {
    let names: Vec<String> = signature(object)?
        .getattr("parameters")?
        .call_method0("keys")?
        .try_iter()?
        .map(|name| name?.extract())
        .collect::<PyResult<_>>()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(match names[..] {
        ["environ" | "env", "start_response", ..] => Some(Interface::Wsgi),
        ["scope", "receive", "send", ..] => Some(Interface::Asgi),
        _ => None,
    })
}

fn signature<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    object
        .py()
        .import(intern!(object.py(), "inspect"))?
        .call_method1(intern!(object.py(), "signature"), (object,))
}

/// Whether it can be called with this many positional arguments.
fn accepts(object: &Bound<'_, PyAny>, count: usize) -> PyResult<bool> {
    let py = object.py();
    let arguments = PyTuple::new(py, (0..count).map(|_| py.None()))?;
    Ok(signature(object)?.getattr("bind")?.call(arguments, None::<&Bound<'_, PyDict>>).is_ok())
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    const SOURCE: &str = "
import functools

def wsgi(environ, start_response): ...
def wsgi_other_names(e, s): ...
def wsgi_more(environ, start_response, *, debug=False): ...
class Wsgi:
    def __call__(self, environ, start_response): ...
class PerRequest:
    def __init__(self, environ, start_response): ...
    def __iter__(self): ...
async def asgi(scope, receive, send): ...
def asgi_sync(scope, receive, send): return asgi(scope, receive, send)
class Asgi:
    async def __call__(self, scope, receive, send): ...
class Asgi2:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
def asgi2(scope): ...
def factory(config=None): return Asgi()
def factory0(): return Wsgi()
def broken_factory(): return 1 / 0
def anything(*args, **kwargs): ...
@functools.wraps(wsgi)
def wrapped(*args, **kwargs): ...
def extra(config, environ, start_response): ...
async def extra_async(config, scope, receive, send): ...
async def view(request): ...
number = 7
";

    fn check(expression: &str, wanted: Option<Interface>) -> Result<Interface, String> {
        Python::initialize();
        Python::attach(|py| {
            let globals = PyDict::new(py);
            py.run(&CString::new(SOURCE).unwrap(), Some(&globals), None).unwrap();
            let object = py.eval(&CString::new(expression).unwrap(), Some(&globals), None).unwrap();
            resolve(object, false, wanted, "x:y").map(|(_, found)| found).map_err(|error| error.to_string())
        })
    }

    #[test]
    fn applications_are_told_apart() {
        let wsgi =
            ["wsgi", "wsgi_other_names", "wsgi_more", "Wsgi()", "PerRequest", "Wsgi", "wrapped", "factory0"];
        for expression in wsgi.into_iter().chain(["functools.partial(extra, 1)", "Wsgi().__call__"]) {
            assert_eq!(check(expression, None), Ok(Interface::Wsgi), "{expression}");
        }
        let asgi = ["asgi", "asgi_sync", "Asgi()", "Asgi", "factory", "Asgi().__call__"];
        for expression in asgi.into_iter().chain(["functools.partial(extra_async, 1)"]) {
            assert_eq!(check(expression, None), Ok(Interface::Asgi), "{expression}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_advice() {
        for (expression, part) in [
            ("asgi2", "guarantee_single_callable"),
            ("Asgi2", "guarantee_single_callable"),
            ("anything", "--wsgi or --asgi"),
            ("view", "--wsgi or --asgi"),
            ("number", "is a int and cannot be called"),
            ("broken_factory", "ZeroDivisionError"),
        ] {
            let error = check(expression, None).unwrap_err();
            assert!(error.contains(part), "{expression}: {error}");
        }
    }

    #[test]
    fn what_is_wanted_counts() {
        assert_eq!(check("anything", Some(Interface::Asgi)), Ok(Interface::Asgi));
        assert_eq!(check("wsgi", Some(Interface::Asgi)), Ok(Interface::Asgi));
        assert!(check("number", Some(Interface::Wsgi)).is_err());
    }
}
