//! Where applications were deployed: what lies over the configuration's file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hawksbill_core::config::{Origin, Table, Value};
use serde::{Deserialize, Serialize};

/// An application moves to another directory.
pub(crate) struct Deploy {
    pub(crate) app: String,
    pub(crate) dir: PathBuf,
    pub(crate) venv: Option<PathBuf>,
    /// How long what served until now can be gone back to.
    pub(crate) keep: Duration,
    /// How long the new processes are watched.
    pub(crate) probation: Duration,
}

/// Where an application was deployed: lies over what the file says.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Deployed {
    pub(super) dir: PathBuf,
    pub(super) venv: Option<PathBuf>,
}

pub(super) type Deployments = BTreeMap<String, Deployed>;

/// What was deployed, as a tree.
pub(super) fn over(deployed: &Deployments) -> Table {
    let mut tree = Table::new();
    let path = |path: &Path| Value::string(path.display().to_string(), Origin::named("deploy"));
    for (app, Deployed { dir, venv }) in deployed {
        set(&mut tree, app, "dir", path(dir));
        if let Some(venv) = venv {
            set(&mut tree, app, "venv", path(venv));
        }
    }
    tree
}

/// Sets a key of an application.
pub(super) fn set(tree: &mut Table, app: &str, key: &str, value: Value) {
    let mut under = Value::from(std::mem::take(tree));
    let origin = value.origin.clone();
    let entry = Table::from_iter([(key, value)]);
    let apps = Table::from_iter([(app, Value::from(entry))]);
    under.overlay(Value::from(Table::from_iter([("apps", Value::from(apps))])).with_origin(&origin));
    *tree = under.into_table().unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deployed_lies_over_the_rest() {
        let at = |dir: &str, venv: Option<&str>| Deployed { dir: dir.into(), venv: venv.map(PathBuf::from) };
        let deployed = Deployments::from([("a".into(), at("/x", None)), ("b".into(), at("/y", Some("/v")))]);
        let mut tree = over(&deployed);
        set(&mut tree, "a", "workers", Value::from(3));
        let tree = Value::from(tree);
        assert_eq!(tree.at(&["apps", "a", "dir"]), Some(&Value::from("/x")));
        assert_eq!(tree.at(&["apps", "a", "workers"]), Some(&Value::from(3)));
        assert_eq!(tree.at(&["apps", "a", "venv"]), None);
        assert_eq!(tree.at(&["apps", "b", "venv"]), Some(&Value::from("/v")));
    }
}
