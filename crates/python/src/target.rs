//! `mod:attr`: naming a Python object, and finding it.

use std::fmt;
use std::path::{Path, PathBuf};

use hawksbill_core::BuildError;
use pyo3::exceptions::{PyAttributeError, PyModuleNotFoundError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyModule};

/// What a bare module means, in this order.
const APPLICATIONS: [&str; 2] = ["application", "app"];
/// Then a function that makes the application.
const FACTORIES: [&str; 2] = ["create_app", "make_app"];

/// A Python object by name: `pkg.mod:attr`, `pkg.mod:make()`, or `pkg.mod` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    module: String,
    attribute: Option<String>,
    call: bool,
}

/// An imported object.
#[derive(Debug)]
pub(crate) struct Found<'py> {
    pub(crate) object: Bound<'py, PyAny>,
    /// Named like a factory, or called in the target: what counts is what it returns.
    pub(crate) factory: bool,
}

impl Target {
    /// Reads a target.
    ///
    /// # Errors
    /// What is wrong with it, as a whole sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (module, attribute) = match text.split_once(':') {
            Some((module, attribute)) => (module, Some(attribute)),
            None => (text, None),
        };
        if module.contains('/') || Path::new(module).extension().is_some_and(|ending| ending == "py") {
            let path = module.strip_suffix(".py").unwrap_or(module).trim_matches('/').replace('/', ".");
            return Err(format!("'{text}' names a file; name its module instead, such as '{path}:app'"));
        }
        let (attribute, call) = match attribute {
            Some(attribute) => match attribute.strip_suffix("()") {
                Some(factory) => (Some(factory), true),
                None => (Some(attribute), false),
            },
            None => (None, false),
        };
        if !is_dotted_name(module) || !attribute.is_none_or(is_dotted_name) {
            return Err(format!(
                "'{text}' is no target; write 'module:attribute', such as 'shop.wsgi:application'"
            ));
        }
        Ok(Self { module: module.to_owned(), attribute: attribute.map(str::to_owned), call })
    }

    /// A module alone.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(crate) fn module(text: &str) -> Result<Self, String> {
        let target = Self::parse(text)?;
        match target.attribute {
            None => Ok(target),
            Some(_) => {
                Err(format!("'{text}' names an attribute; name a module, such as '{}'", target.module))
            }
        }
    }

    /// Puts `dir` first on `sys.path`.
    ///
    /// # Errors
    /// What Python raises.
    pub(crate) fn prepare(&self, py: Python<'_>, dir: &Path) -> Result<(), BuildError> {
        put_on_path(py, dir).map_err(|error| self.failed(py, &error))
    }

    /// Imports the module, with `dir` first on `sys.path`.
    ///
    /// # Errors
    /// Which module is missing, or the traceback of an import that failed.
    pub(crate) fn import<'py>(
        &self,
        py: Python<'py>,
        dir: &Path,
    ) -> Result<Bound<'py, PyModule>, BuildError> {
        self.prepare(py, dir)?;
        let module = py.import(&*self.module).map_err(|error| self.import_failed(py, dir, &error))?;
        self.check_origin(py, &module, dir)?;
        Ok(module)
    }

    /// Imports the module, with `dir` first on `sys.path`, and finds the object in it.
    ///
    /// # Errors
    /// Which module or attribute is missing, or the traceback of an import that failed.
    pub(crate) fn find<'py>(&self, py: Python<'py>, dir: &Path) -> Result<Found<'py>, BuildError> {
        let module = self.import(py, dir)?;
        let Some(attribute) = &self.attribute else { return self.find_default(&module) };
        let mut object = module.clone().into_any();
        for name in attribute.split('.') {
            object = object.getattr(name).map_err(|error| self.attribute_failed(&module, name, &error))?;
        }
        if self.call {
            object = object.call0().map_err(|error| self.failed(py, &error))?;
        }
        Ok(Found { object, factory: false })
    }

    fn find_default<'py>(&self, module: &Bound<'py, PyModule>) -> Result<Found<'py>, BuildError> {
        let names = APPLICATIONS.into_iter().map(|name| (name, false));
        for (name, factory) in names.chain(FACTORIES.into_iter().map(|name| (name, true))) {
            if let Ok(object) = module.getattr(name) {
                return Ok(Found { object, factory });
            }
        }
        let wanted = [&APPLICATIONS[..], &FACTORIES[..]].concat().join(", ");
        Err(BuildError::new(format!(
            "module '{}' has none of {wanted}{}; name the attribute, as in '{}:name'",
            self.module,
            listed(&callables(module)),
            self.module,
        )))
    }

    pub(crate) fn import_failed(&self, py: Python<'_>, dir: &Path, error: &PyErr) -> BuildError {
        if error.is_instance_of::<PyModuleNotFoundError>(py) {
            let name: Option<String> = error.value(py).getattr("name").and_then(|name| name.extract()).ok();
            let name = name.unwrap_or_default();
            let itself = self.module == name || self.module.starts_with(&format!("{name}."));
            if itself && !name.is_empty() {
                return BuildError::new(format!(
                    "there is no module '{name}' in {}, nor among the installed packages; \
                     check the name, or set 'dir' to the directory that holds it",
                    dir.display()
                ));
            }
            return BuildError::new(format!(
                "importing '{}' failed, because it imports the module '{name}', which is not installed here; \
                 install what has it with '{}/bin/python -m pip install', or name the virtual environment that has it \
                 with 'venv'",
                self.module,
                prefix(py),
            ))
            .details(traceback(py, error));
        }
        BuildError::new(format!("importing '{}' failed: {error}", self.module)).details(traceback(py, error))
    }

    fn attribute_failed(&self, module: &Bound<'_, PyModule>, name: &str, error: &PyErr) -> BuildError {
        let py = module.py();
        if error.is_instance_of::<PyAttributeError>(py) {
            let file = module.getattr("__file__").and_then(|file| file.extract::<String>());
            let place = file.unwrap_or_else(|_| self.module.clone());
            let found = callables(module);
            let first = found.first().map_or("name", String::as_str);
            return BuildError::new(format!(
                "'{self}': there is no '{name}' in {place}{}; name another one, as in '{}:{first}'",
                listed(&found),
                self.module,
            ));
        }
        self.failed(py, error)
    }

    pub(crate) fn failed(&self, py: Python<'_>, error: &PyErr) -> BuildError {
        BuildError::new(format!("loading '{self}' failed: {error}")).details(traceback(py, error))
    }

    /// Two applications of one process cannot have different modules of one name.
    fn check_origin(
        &self,
        py: Python<'_>,
        module: &Bound<'_, PyModule>,
        dir: &Path,
    ) -> Result<(), BuildError> {
        let Some((loaded, here)) = other_origin(py, module, dir).unwrap_or(None) else { return Ok(()) };
        let top = self.module.split('.').next().unwrap_or(&self.module);
        Err(BuildError::new(format!(
            "module '{top}' is already loaded from {}, so the one at {} cannot be: \
             rename one of them, or give the applications processes of their own",
            loaded.display(),
            here.display()
        )))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.module)?;
        if let Some(attribute) = &self.attribute {
            write!(f, ":{attribute}")?;
        }
        if self.call { f.write_str("()") } else { Ok(()) }
    }
}

fn is_dotted_name(text: &str) -> bool {
    text.split('.').all(|part| {
        let mut characters = part.chars();
        characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && characters.all(|other| other.is_alphanumeric() || other == '_')
    })
}

fn put_on_path(py: Python<'_>, dir: &Path) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
    // The text and not a `Path`: only strings count there.
    let dir = dir.as_os_str().into_pyobject(py)?;
    if !path.contains(&dir)? {
        path.insert(0, dir)?;
        py.import("importlib")?.call_method0("invalidate_caches")?;
    }
    Ok(())
}

/// Where the top module of this one was loaded from, and where it would be in `dir`, if these differ.
fn other_origin(
    py: Python<'_>,
    module: &Bound<'_, PyModule>,
    dir: &Path,
) -> PyResult<Option<(PathBuf, PathBuf)>> {
    let name = module.name()?.to_string();
    let top = name.split('.').next().unwrap_or(&name);
    let loaded = py.import("sys")?.getattr("modules")?.get_item(top)?.getattr("__spec__")?;
    let finder = py.import("importlib.machinery")?.getattr("PathFinder")?;
    let here = finder.call_method1("find_spec", (top, vec![dir.as_os_str()]))?;
    if here.is_none() || loaded.is_none() {
        return Ok(None);
    }
    let origin = |spec: &Bound<'_, PyAny>| spec.getattr("origin")?.extract::<Option<PathBuf>>();
    let (Some(loaded), Some(here)) = (origin(&loaded)?, origin(&here)?) else { return Ok(None) };
    let same = loaded == here || loaded.canonicalize().ok() == here.canonicalize().ok();
    Ok((!same).then_some((loaded, here)))
}

/// `; it has app, main`
fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; it has {}", names.join(", ")) }
}

/// The public callables that the module defines.
fn callables(module: &Bound<'_, PyModule>) -> Vec<String> {
    const MOST: usize = 12;
    let mut names = Vec::new();
    for (name, value) in module.dict() {
        let Ok(name) = name.extract::<String>() else { continue };
        let is_own = value.getattr("__module__").and_then(|home| home.eq(module.name()?)).unwrap_or(true);
        if !name.starts_with('_') && value.is_callable() && is_own && names.len() < MOST {
            names.push(name);
        }
    }
    names
}

fn prefix(py: Python<'_>) -> String {
    py.import("sys").and_then(|sys| sys.getattr("prefix")?.extract()).unwrap_or_default()
}

/// What Python would print, without the frames of the import machinery.
fn traceback(py: Python<'_>, error: &PyErr) -> String {
    crate::failure::Failure::new(py, error).traceback
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached<T>(test: impl FnOnce(Python<'_>) -> T) -> T {
        Python::initialize();
        Python::attach(test)
    }

    fn find(text: &str, dir: &Path) -> Result<String, String> {
        attached(|py| {
            let found = Target::parse(text).unwrap().find(py, dir);
            found.map(|found| found.object.repr().unwrap().to_string()).map_err(|error| error.to_string())
        })
    }

    fn module(name: &str, source: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hawksbill-target-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.py")), source).unwrap();
        dir
    }

    #[test]
    fn targets_are_names() {
        let target = Target::parse("shop.wsgi:site.app").unwrap();
        assert_eq!(
            (&*target.module, target.attribute.as_deref(), target.call),
            ("shop.wsgi", Some("site.app"), false)
        );
        assert!(Target::parse("shop:create_app()").unwrap().call);
        assert_eq!(
            Target::parse("shop/wsgi.py").unwrap_err(),
            "'shop/wsgi.py' names a file; name its module instead, such as 'shop.wsgi:app'"
        );
        for wrong in ["", ":app", "shop:", "a b:c", "shop:app:x", "shop..wsgi", "1shop:app", "shop:make(1)"] {
            assert!(Target::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_bare_module_means_application_then_app_then_a_factory() {
        let dir = module("bare_target", "class A:\n    inner = 'in A'\napp = 'app'\ncreate_app = None\n");
        assert_eq!(find("bare_target", &dir).unwrap(), "'app'");
        assert_eq!(find("bare_target:A.inner", &dir).unwrap(), "'in A'");
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = module("missing_target", "def serve(): pass\ndef _hidden(): pass\n");
        let error = find("missing_target:app", &dir).unwrap_err();
        let file = dir.join("missing_target.py");
        let expected = format!(
            "'missing_target:app': there is no 'app' in {}; it has serve; name another one, as in 'missing_target:serve'",
            file.display()
        );
        assert_eq!(error, expected);
        let error = find("not_there_at_all.wsgi", &dir).unwrap_err();
        assert!(error.starts_with("there is no module 'not_there_at_all' in "), "{error}");
    }

    #[test]
    fn a_failing_import_is_told_from_a_missing_module() {
        let dir = module("importing_target", "import no_such_dependency\n");
        let error = find("importing_target:app", &dir).unwrap_err();
        assert!(error.contains("it imports the module 'no_such_dependency'"), "{error}");
        assert!(error.contains("importing_target.py\", line 1"), "{error}");
        assert!(!error.contains("importlib"), "{error}");

        let dir = module("raising_target", "def f():\n    return 1 / 0\nf()\n");
        let error = find("raising_target:app", &dir).unwrap_err();
        assert!(error.starts_with("importing 'raising_target' failed: ZeroDivisionError"), "{error}");
        assert!(error.contains("line 2, in f"), "{error}");
    }

    #[test]
    fn two_modules_of_one_name_are_refused() {
        let first = module("twice_target", "app = 1\n");
        assert!(find("twice_target:app", &first).is_ok());
        let second = first.join("second");
        std::fs::create_dir_all(&second).unwrap();
        std::fs::write(second.join("twice_target.py"), "app = 2\n").unwrap();
        let error = find("twice_target:app", &second).unwrap_err();
        assert!(error.starts_with("module 'twice_target' is already loaded from "), "{error}");
    }
}
