//! The files of an application that people edit.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use glob::Pattern;

/// How many entries of one application's directory are looked at, at most: a look has to be quick.
const MOST: usize = 20_000;

/// Directories in which nobody writes an application. A virtual environment is told by its mark (PEP 405) besides.
const NOBODYS: [&str; 4] = [".git", "__pycache__", "node_modules", "site-packages"];

/// What a person edits and a program reads once: code, templates, settings, translations. Whatever an application writes by
/// itself (a database, uploads, logs) must not be among it, or it would be loaded again for its own doing.
const EDITED: [&str; 18] = [
    "py", "pyi", "pyx", "so", "html", "htm", "jinja", "jinja2", "j2", "mako", "toml", "yaml", "yml", "ini",
    "cfg", "env", "mo", "graphql",
];

/// How one file was found. The size is there for file systems whose times are coarse.
pub(super) type Look = BTreeMap<PathBuf, (SystemTime, u64)>;

/// Where files are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// Below this directory what people edit.
    Dir(PathBuf),
    /// These alone, whatever they are; of a directory all that is below it.
    Files(BTreeSet<PathBuf>),
}

/// Files, and how they were.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) root: Root,
    /// What does not count, by its whole path.
    except: Vec<Pattern>,
    /// When they were last acted upon.
    known: Look,
    /// At the last look.
    last: Look,
    /// The directories in which a file can appear.
    pub(super) dirs: BTreeSet<PathBuf>,
}

/// What a look finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Rest,
    /// Something is different from the look before, and may be written still.
    Moves,
    /// These were changed, put there or taken away.
    Changed(Vec<PathBuf>),
}

impl Sources {
    pub(super) fn at(root: Root, except: Vec<Pattern>) -> Self {
        let (known, dirs) = root.look(&except);
        Self { root, except, last: known.clone(), known, dirs }
    }

    /// What was last acted upon.
    pub(super) fn into_known(self) -> Look {
        self.known
    }

    /// Has what others knew of these files count, and of what is new among them what was saved after a program that has
    /// loaded it was started: it may have loaded what was there before.
    pub(super) fn after(mut self, others: &Look, started: Option<SystemTime>) -> Self {
        self.known.retain(|_, (saved, _)| started.is_none_or(|started| *saved <= started));
        let theirs = others.iter().filter(|(path, _)| self.last.contains_key(*path));
        self.known.extend(theirs.map(|(path, how)| (path.clone(), *how)));
        self
    }

    /// Whether the next look finds a change, if nothing moves until then.
    pub(super) fn is_behind(&self) -> bool {
        self.known != self.last
    }

    /// The names of files that count though they do not look like what people edit.
    pub(super) fn named(&self) -> impl Iterator<Item = OsString> {
        let names = self.known.keys().filter_map(|path| path.file_name());
        names.filter(|name| !is_edited(name)).map(OsStr::to_owned)
    }

    /// Compares. A change counts once two looks after one another have found the same: whoever saves several files is
    /// not interrupted.
    pub(super) fn look(&mut self) -> Seen {
        let (now, dirs) = self.root.look(&self.except);
        self.dirs = dirs;
        if now != self.last {
            self.last = now;
            return Seen::Moves;
        }
        if now == self.known {
            return Seen::Rest;
        }
        let changed = now.iter().filter(|(path, how)| self.known.get(*path) != Some(how));
        let gone = self.known.keys().filter(|path| !now.contains_key(*path));
        let found = changed.map(|(path, _)| path).chain(gone).cloned().collect();
        self.known = now;
        Seen::Changed(found)
    }
}

impl Root {
    fn look(&self, except: &[Pattern]) -> (Look, BTreeSet<PathBuf>) {
        let (mut found, dirs) = match self {
            Self::Dir(dir) => scan(dir, is_edited),
            Self::Files(files) => look_at_all(files),
        };
        found.retain(|path, _| !except.iter().any(|pattern| pattern.matches_path(path)));
        (found, dirs)
    }
}

fn look_at_all(files: &BTreeSet<PathBuf>) -> (Look, BTreeSet<PathBuf>) {
    let (mut found, mut dirs) = (Look::new(), BTreeSet::new());
    for path in files {
        if path.is_dir() {
            let (below, more) = scan(path, |_| true);
            found.extend(below);
            dirs.extend(more);
            continue;
        }
        found.extend(look_at(path).map(|look| (path.clone(), look)));
        dirs.extend(path.parent().map(Path::to_owned));
    }
    (found, dirs)
}

/// Directories and files that cannot be read are left out, and symbolic links to directories not followed.
fn scan(dir: &Path, counts: fn(&OsStr) -> bool) -> (Look, BTreeSet<PathBuf>) {
    let (mut found, mut dirs) = (Look::new(), BTreeSet::new());
    let mut next = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST {
                return (found, dirs);
            }
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() {
                if is_somebodys(&entry) {
                    next.push(path);
                }
            } else if counts(&entry.file_name())
                && let Some(look) = look_at(&path)
            {
                found.insert(path, look);
            }
        }
        dirs.insert(dir);
    }
    (found, dirs)
}

fn look_at(path: &Path) -> Option<(SystemTime, u64)> {
    let about = path.metadata().ok().filter(fs::Metadata::is_file)?;
    Some((about.modified().ok()?, about.len()))
}

fn is_somebodys(dir: &DirEntry) -> bool {
    let name = dir.file_name();
    !NOBODYS.iter().any(|nobodys| name == *nobodys) && !dir.path().join("pyvenv.cfg").exists()
}

/// Whether a change of a file of this name counts. Editors' locks and copies do not.
pub(super) fn is_edited(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    if text == ".env" {
        return true;
    }
    let extension = Path::new(name).extension().unwrap_or_default();
    !text.starts_with(".#") && !text.starts_with('#') && EDITED.iter().any(|edited| extension == *edited)
}

/// Removes what Python has compiled of these files. It takes a source for unchanged by a time in whole seconds and a
/// size, and two saves within a second are nothing unusual.
pub(super) fn forget_compiled(changed: &[PathBuf]) {
    for path in changed.iter().filter(|path| path.extension() == Some(OsStr::new("py"))) {
        let (Some(dir), Some(stem)) = (path.parent(), path.file_stem()) else { continue };
        let before = format!("{}.", stem.to_string_lossy());
        for entry in fs::read_dir(dir.join("__pycache__")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&before) {
                // One that stays is no worse than under any other server.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names<'a>(dir: &Path, paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<String> {
        paths.into_iter().map(|path| path.strip_prefix(dir).unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_change_is_told_once_and_when_it_is_at_rest() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "app.py", "a");
        write(dir, "old.py", "a");
        let mut sources = Sources::at(Root::Dir(dir.to_owned()), Vec::new());
        assert_eq!(sources.look(), Seen::Rest);
        write(dir, "app.py", "longer");
        assert_eq!(sources.look(), Seen::Moves);
        write(dir, "templates/page.html", "new");
        fs::remove_file(dir.join("old.py")).unwrap();
        assert_eq!(sources.look(), Seen::Moves);
        let Seen::Changed(changed) = sources.look() else { panic!("it is at rest") };
        assert_eq!(names(dir, &changed), ["app.py", "templates/page.html", "old.py"]);
        assert_eq!(sources.look(), Seen::Rest, "once is enough");
        assert_eq!(sources.dirs.len(), 2);
    }

    #[test]
    fn what_nobody_edits_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let not = [
            ".git/a.py",
            "__pycache__/app.py",
            "node_modules/a/b.html",
            "env/pyvenv.cfg",
            "env/lib/a.py",
            "db.sqlite3",
            "media/turtle.png",
            ".app.py.swp",
            "app.py~",
            ".#app.py",
            "4913",
        ];
        for path in not {
            write(dir, path, "x");
        }
        for path in [".env", "app.py", "package/views.py"] {
            write(dir, path, "x");
        }
        assert_eq!(names(dir, scan(dir, is_edited).0.keys()), [".env", "app.py", "package/views.py"]);
    }

    #[test]
    fn single_files_are_looked_at_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hawksbill.toml");
        let mut sources = Sources::at(Root::Files(BTreeSet::from([file.clone()])), Vec::new());
        fs::write(dir.path().join("app.py"), "x").unwrap();
        assert_eq!(sources.look(), Seen::Rest);
        fs::write(&file, "x").unwrap();
        assert_eq!((sources.look(), sources.look()), (Seen::Moves, Seen::Changed(vec![file])));
    }

    #[test]
    fn what_was_saved_before_the_first_look_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let files = ["known.py", "loaded.py", "saved.py"];
        for path in files {
            write(dir, path, "x");
        }
        let paths: BTreeSet<PathBuf> = files.iter().map(|path| dir.join(path)).collect();
        let at = || Sources::at(Root::Files(paths.clone()), Vec::new());
        let known = at().known;
        let latest = known.values().map(|(saved, _)| *saved).max().unwrap();
        let earlier = latest - std::time::Duration::from_secs(9);
        assert_eq!(at().after(&Look::new(), Some(latest)).look(), Seen::Rest);
        let other = Look::from([(dir.join("known.py"), (earlier, 1))]);
        assert_eq!(at().after(&other, None).look(), Seen::Changed(vec![dir.join("known.py")]));
        let same: Look = known.into_iter().filter(|(path, _)| path.ends_with("loaded.py")).collect();
        let mut sources = at().after(&same, Some(earlier));
        assert!(sources.is_behind());
        assert_eq!(sources.look(), Seen::Changed(vec![dir.join("known.py"), dir.join("saved.py")]));
        assert!(!sources.is_behind());
    }

    #[test]
    fn what_is_named_counts_whatever_it_is_and_what_is_excepted_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for path in
            ["data/prices.csv", "data/deep/rates.json", "data/deep/draft.json", "menu.json", "other.json"]
        {
            write(dir, path, "x");
        }
        let named =
            Root::Files(BTreeSet::from([dir.join("data"), dir.join("menu.json"), dir.join("not yet")]));
        let except = Pattern::new("*/draft*").unwrap();
        let mut sources = Sources::at(named, vec![except]);
        assert_eq!(
            names(dir, sources.known.keys()),
            ["data/deep/rates.json", "data/prices.csv", "menu.json"]
        );
        assert!(sources.named().any(|name| name == "menu.json"));
        assert_eq!(sources.dirs, ["", "data", "data/deep"].map(|below| dir.join(below)).into());
        write(dir, "data/deep/draft.json", "longer");
        assert_eq!(sources.look(), Seen::Rest);
        write(dir, "not yet", "now");
        assert_eq!((sources.look(), sources.look()), (Seen::Moves, Seen::Changed(vec![dir.join("not yet")])));
    }

    #[test]
    fn what_was_compiled_of_a_changed_file_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for name in ["app.cpython-311.pyc", "app.cpython-311.opt-1.pyc", "apple.cpython-311.pyc"] {
            write(dir, &format!("__pycache__/{name}"), "x");
        }
        forget_compiled(&[dir.join("app.py"), dir.join("apple.html"), dir.join("elsewhere/b.py")]);
        let left: Vec<_> = fs::read_dir(dir.join("__pycache__")).unwrap().flatten().collect();
        assert_eq!(left.iter().map(DirEntry::file_name).collect::<Vec<_>>(), ["apple.cpython-311.pyc"]);
    }
}
