//! From a command in the configuration to a program that can be started, found before anything is.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hawksbill_supervisor::Program;
use indexmap::IndexMap;

use crate::config::Command;

/// What a command's table says of its surroundings.
pub(super) struct Surrounded<'a> {
    /// The directory of the configuration.
    pub(super) base: &'a Path,
    pub(super) dir: Option<&'a Path>,
    pub(super) venv: Option<&'a Path>,
    pub(super) env: IndexMap<String, String>,
}

impl Surrounded<'_> {
    /// The program.
    ///
    /// # Errors
    /// When the command is none, or is not there.
    pub(super) fn program(mut self, command: &Command) -> Result<Program, String> {
        let dir = absolute(&self.base.join(self.dir.unwrap_or(Path::new(""))));
        if !dir.is_dir() {
            return Err(format!("dir: there is no directory {}", dir.display()));
        }
        let mut words = words(command)?.into_iter();
        let name = words.next().unwrap_or_default();
        let mut path =
            self.env.get("PATH").map(Into::into).or_else(|| env::var_os("PATH")).unwrap_or_default();
        if let Some(venv) = self.venv {
            let venv = absolute(&self.base.join(venv));
            let bin = venv.join("bin");
            if !bin.is_dir() {
                return Err(format!("venv: there is no virtual environment {}", venv.display()));
            }
            path = env::join_paths(std::iter::once(bin).chain(env::split_paths(&path)))
                .map_err(|error| format!("venv: {error}"))?;
            self.env.insert("VIRTUAL_ENV".to_owned(), venv.display().to_string());
            self.env.insert("PATH".to_owned(), path.to_string_lossy().into_owned());
        }
        let found = find(&name, &path, &dir)?;
        let env: BTreeMap<String, String> = self.env.into_iter().collect();
        let path = found.display().to_string();
        Ok(Program { path, args: words.collect(), env, dir: Some(dir), ..Program::default() })
    }
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A command's words.
pub(super) fn words(command: &Command) -> Result<Vec<String>, String> {
    let words = match command {
        Command::Line(line) => shlex::split(line)
            .ok_or_else(|| format!("command: a quote is not closed, or a backslash ends it: {line}"))?,
        Command::Words(words) => words.clone(),
    };
    match words.first() {
        Some(first) if !first.is_empty() => Ok(words),
        _ => Err("command: it is empty; write what is to be run".to_owned()),
    }
}

fn find(name: &str, path: &OsStr, dir: &Path) -> Result<PathBuf, String> {
    let runs = |file: &Path| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    if name.contains('/') {
        let file = dir.join(name);
        return match (file.is_file(), runs(&file)) {
            (_, true) => Ok(file),
            (true, false) => Err(format!("command: {} is not executable", file.display())),
            (false, _) => Err(format!("command: there is no file {}", file.display())),
        };
    }
    let places: Vec<PathBuf> = env::split_paths(path).map(|place| dir.join(place)).collect();
    places.iter().map(|place| place.join(name)).find(|file| runs(file)).ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!(
            "command: there is no program '{name}' in {}; install it, write its full path, or name its virtual environment with venv = \"...\"",
            places.join(":")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let cases: [(&str, &[&str]); 7] = [
            ("celery -A shop worker", &["celery", "-A", "shop", "worker"]),
            ("  a   b\t c ", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            (r#"a b\ c "d\"e" 'f\g'"#, &["a", "b c", "d\"e", r"f\g"]),
            ("a '' b", &["a", "", "b"]),
            ("a $HOME | b > c; d && e *", &["a", "$HOME", "|", "b", ">", "c;", "d", "&&", "e", "*"]),
            ("a --x='y z'", &["a", "--x=y z"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(&Command::Line(line.into())).unwrap(), expected, "{line}");
        }
        for wrong in ["", "  ", "a 'b", "a \"b", "a \\", "''"] {
            assert!(words(&Command::Line(wrong.into())).is_err(), "{wrong}");
        }
        assert_eq!(words(&Command::Words(vec!["a b".into(), "'".into()])).unwrap(), ["a b", "'"]);
        assert!(words(&Command::Words(Vec::new())).is_err());
    }

    #[test]
    fn what_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let program = |line: &str, venv: Option<&Path>, work: Option<&Path>| {
            let surrounded = Surrounded { base: dir.path(), dir: work, venv, env: IndexMap::new() };
            surrounded.program(&Command::Line(line.into()))
        };
        let found = program("sh -c true", None, None).unwrap();
        assert!(found.path.ends_with("/sh") && found.args == ["-c", "true"]);
        assert!(program("no-such-program", None, None).unwrap_err().contains("venv = "));
        assert!(program("./run.sh", None, None).unwrap_err().contains("no file"));
        std::fs::write(dir.path().join("run.sh"), "#!/bin/sh\n").unwrap();
        assert!(program("./run.sh", None, None).unwrap_err().contains("not executable"));
        assert!(program("sh", Some(Path::new("v")), None).unwrap_err().contains("virtual environment"));
        assert!(program("sh", None, Some(Path::new("d"))).unwrap_err().contains("no directory"));
        std::fs::create_dir_all(dir.path().join("v/bin")).unwrap();
        let own = program("sh", Some(Path::new("v")), None).unwrap();
        assert!(own.env["PATH"].starts_with(&dir.path().join("v/bin:").display().to_string()));
        assert_eq!(own.env["VIRTUAL_ENV"], dir.path().join("v").display().to_string());
    }
}
