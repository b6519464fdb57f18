//! Files of a directory.
//!
//! ```
//! use hawksbill_apps::Files;
//! use hawksbill_core::{AppKind, Body, Builder, body::to_bytes};
//! use http::Request;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let dir = tempfile::tempdir().unwrap();
//! std::fs::write(dir.path().join("hello.txt"), "hello").unwrap();
//! let turtle = Files::of(dir.path()).build(&mut Builder::new("/")).unwrap();
//!
//! let request = Request::get("/hello.txt").header("range", "bytes=1-2").body(Body::empty()).unwrap();
//! let response = turtle.ask(request).await.unwrap();
//! assert_eq!(response.status(), 206);
//! assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
//! assert_eq!(response.headers()["content-range"], "bytes 1-2/5");
//! assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "el");
//! # }
//! ```
//!
//! GET, HEAD and OPTIONS are answered, others refused with 405. A path is decoded and must consist of ordinary names:
//! dot segments, dot files (except `.well-known` at the top), encoded slashes and backslashes are 404. A directory
//! shows its index, after a redirect to the path with a slash at its end; it is never listed. What is neither a
//! regular file nor a directory is 404, a file that the server may not read 403. Each answer has `ETag` (time of
//! modification in nanoseconds, and size) and `Last-Modified`, and honours all preconditions and ranges of RFC 9110.

mod body;
mod conditional;
mod open;
mod path;
mod range;
mod serve;

use std::path::PathBuf;
use std::sync::Arc;

use hawksbill_core::config::OneOrMany;
use hawksbill_core::{AppKind, BuildError, Builder, Error, Kind, Side, Turtle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::open::Root;
pub use self::open::Symlinks;
use self::serve::Served;

/// Serves the files of a directory: `"/static" = { files = "/srv/shop/static" }` answers `/static/css/x.css` with
/// `/srv/shop/static/css/x.css`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The directory. A relative one counts from the directory of the configuration.
    pub files: PathBuf,
    /// What a directory shows: the first of these files that it has, `index.html` unless named otherwise. With an empty list
    /// directories show nothing.
    #[serde(default = "default_index")]
    pub index: OneOrMany<String>,
    /// Which symbolic links are followed: `owner` (inside the directory, and out of it where its owner or root made the
    /// link, as `collectstatic --link` does), `inside` (only relative links that stay inside) or `follow` (all).
    #[serde(default)]
    pub symlinks: Symlinks,
}

fn default_index() -> OneOrMany<String> {
    vec!["index.html".to_owned()].into()
}

impl Files {
    /// The files of `directory`, with the defaults.
    pub fn of(directory: impl Into<PathBuf>) -> Self {
        Self { files: directory.into(), index: default_index(), symlinks: Symlinks::default() }
    }
}

impl AppKind for Files {
    const NAME: &'static str = "files";
    const MOUNTED: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        if let Some(name) = self.index.iter().find(|name| !path::is_plain_name(name)) {
            return Err(BuildError::new(format!(
                "index {name:?} cannot be served: give the name of a file, without slashes and not beginning with a dot"
            )));
        }
        let directory = cx.path(&self.files);
        let root = Root::new(directory.clone(), self.symlinks).map_err(|error| {
            BuildError::new(format!(
                "files: cannot serve from the directory {}; create it, or let the user that runs the server enter it",
                directory.display()
            ))
            .caused_by(error)
        })?;
        let served = Arc::new(Served { root, index: self.index.into_vec() });
        Ok(Turtle::from_fn(move |request| {
            // The body is dropped here: nothing of it is wanted.
            let (parts, _) = request.into_parts();
            let served = served.clone();
            async move {
                match tokio::runtime::Handle::try_current() {
                    Ok(runtime) => match runtime.spawn_blocking(move || served.answer(&parts)).await {
                        Ok(answer) => answer,
                        Err(error) => Err(gateway("a thread for files failed").caused_by(error)),
                    },
                    Err(error) => Err(gateway("files: there is no tokio runtime").caused_by(error)),
                }
            }
        }))
    }
}

fn gateway(reason: &'static str) -> Error {
    Error::new(Kind::Internal).at(Side::Gateway).because(reason)
}

#[cfg(test)]
mod tests;
