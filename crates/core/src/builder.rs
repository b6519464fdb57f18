//! From configuration to running turtles: what a kind gets while it is built, and the generation it becomes part of.
//!
//! ```
//! use hawksbill_core::{Body, Builder, Turtle};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let mut builder = Builder::new("/srv/shop");
//! builder.on_start("warm the cache", async { Ok(()) });
//! builder.on_stop(async { /* close the files */ });
//! let mut generation = builder.finish();
//! generation.start().await.unwrap();
//! generation.stop().await;
//! # }
//! ```

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{App, BoxError, Turtle, Vitals};

/// What a kind gets while configuration becomes turtles: where it stands, what else there is, and ways to tie work to
/// the generation that is being built.
pub struct Builder {
    dir: PathBuf,
    site: Option<Arc<str>>,
    app: Option<Arc<str>>,
    place: Option<Arc<str>>,
    waiting: HashMap<Arc<str>, (Box<dyn App>, Arc<str>)>,
    built: HashMap<Arc<str>, Turtle>,
    shared: HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>,
    generation: Generation,
}

/// One loaded configuration with its code: what has to happen when it starts and when it ends.
#[derive(Default)]
pub struct Generation {
    loads: Vec<Start>,
    starts: Vec<Start>,
    drivers: Vec<Arc<dyn Driver>>,
    stops: Vec<BoxFuture<'static, ()>>,
    tasks: Vec<BoxFuture<'static, ()>>,
    vitals: Arc<Vitals>,
}

/// Runs a gateway on the thread that it is called on, together with work of another kind that would else need a thread
/// of its own, such as an event loop.
pub trait Driver: Send + Sync {
    /// Whether it is the one to do so. Asked when the generation is loaded.
    fn wants(&self) -> bool;

    /// Runs `serving` to its end on this thread, under a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// When it cannot begin; `serving` is dropped then.
    fn drive(&self, serving: BoxFuture<'static, ()>) -> Result<(), BuildError>;
}

struct Start {
    what: String,
    place: Option<Arc<str>>,
    run: BoxFuture<'static, Result<(), BuildError>>,
}

/// Why a configuration cannot serve: one message to a person, with a place where there is one.
#[derive(Debug)]
pub struct BuildError {
    message: String,
    place: Option<String>,
    details: Option<String>,
    source: Option<BoxError>,
}

impl Builder {
    /// A builder for a configuration whose relative paths count from `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            site: None,
            app: None,
            place: None,
            waiting: HashMap::new(),
            built: HashMap::new(),
            shared: HashMap::new(),
            generation: Generation::default(),
        }
    }

    /// The directory from which relative paths in the configuration count.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path of the configuration, made absolute.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.join(path)
    }

    /// The site being built, by its first name; `None` for what stands over all sites and for named applications.
    pub fn site(&self) -> Option<&Arc<str>> {
        self.site.as_ref()
    }

    /// The named application being built.
    pub fn app_name(&self) -> Option<&Arc<str>> {
        self.app.as_ref()
    }

    /// Does `build` in the context of a site.
    pub fn in_site<T>(&mut self, site: impl Into<Arc<str>>, build: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.site.replace(site.into());
        let built = build(self);
        self.site = outer;
        built
    }

    /// Does `build` for what stands at a place of the configuration, which its errors then name. The place is also the
    /// key under which a layer that is applied to many routes finds the state that they share.
    ///
    /// # Errors
    /// What `build` fails with.
    pub fn at<T>(
        &mut self,
        place: impl Into<Arc<str>>,
        build: impl FnOnce(&mut Self) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let place = place.into();
        let outer = self.place.replace(place.clone());
        let built = build(self);
        self.place = outer;
        built.map_err(|error| error.within(&*place))
    }

    /// The place of the configuration that is being built.
    pub fn place(&self) -> Option<&Arc<str>> {
        self.place.as_ref()
    }

    /// Makes an application known by name. It is built when it is first asked for. `place` is where it is configured.
    pub fn add_app(&mut self, name: impl Into<Arc<str>>, place: impl Into<Arc<str>>, app: Box<dyn App>) {
        self.waiting.insert(name.into(), (app, place.into()));
    }

    /// Makes a turtle that exists already known by name.
    pub fn add_turtle(&mut self, name: impl Into<Arc<str>>, turtle: Turtle) {
        self.built.insert(name.into(), turtle);
    }

    /// The named application, built now if this is the first time it is asked for.
    ///
    /// # Errors
    /// When there is none of that name, it contains itself, or it cannot be built.
    pub fn named(&mut self, name: &str) -> Result<Turtle, BuildError> {
        if let Some(turtle) = self.built.get(name) {
            return Ok(turtle.clone());
        }
        let Some((name, (app, place))) = self.waiting.remove_entry(name) else {
            return Err(BuildError::new(match &self.app {
                Some(outer) if **outer == *name => format!("application '{name}' contains itself"),
                _ => format!("there is no application '{name}'"),
            }));
        };
        let outer_site = self.site.take();
        let outer_app = self.app.replace(name.clone());
        let turtle = self.at(place, |cx| app.build(cx));
        self.site = outer_site;
        self.app = outer_app;
        let turtle = turtle?;
        self.built.insert(name, turtle.clone());
        Ok(turtle)
    }

    /// What several kinds of one generation use together, by type and key: an open log file, a pool of threads.
    ///
    /// # Errors
    /// What `make` fails with, the first time.
    pub fn shared<T, E>(
        &mut self,
        key: &str,
        make: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<Arc<T>, E>
    where
        T: Send + Sync + 'static,
    {
        let slot = (TypeId::of::<T>(), key.to_owned());
        if let Some(existing) = self.shared.get(&slot).cloned().and_then(|any| any.downcast::<T>().ok()) {
            return Ok(existing);
        }
        let made = Arc::new(make(self)?);
        self.shared.insert(slot, made.clone());
        Ok(made)
    }

    /// Runs before everything that is given to [`on_start`](Self::on_start), in the order of registration; a failure
    /// keeps the generation from serving. What is loaded decides under which runtime the rest runs, so nothing may be
    /// left running under this one.
    pub fn on_load<F>(&mut self, what: impl Into<String>, load: F)
    where
        F: Future<Output = Result<(), BuildError>> + Send + 'static,
    {
        let load = Start { what: what.into(), place: self.place.clone(), run: Box::pin(load) };
        self.generation.loads.push(load);
    }

    /// Offers a way to run the whole gateway, to whoever has no runtime of his own.
    pub fn offer_driver(&mut self, driver: Arc<dyn Driver>) {
        self.generation.drivers.push(driver);
    }

    /// Runs before the generation serves, in the order of registration; a failure keeps it from serving.
    pub fn on_start<F>(&mut self, what: impl Into<String>, start: F)
    where
        F: Future<Output = Result<(), BuildError>> + Send + 'static,
    {
        let start = Start { what: what.into(), place: self.place.clone(), run: Box::pin(start) };
        self.generation.starts.push(start);
    }

    /// Runs when the generation has served its last request, the latest first.
    pub fn on_stop<F>(&mut self, stop: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.generation.stops.push(Box::pin(stop));
    }

    /// A task that runs as long as the generation; whoever starts the generation spawns it on its runtime.
    pub fn spawn<F>(&mut self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.generation.tasks.push(Box::pin(task));
    }

    /// What the generation will say of itself while it serves.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.generation.vitals
    }

    /// Ends building.
    pub fn finish(self) -> Generation {
        self.generation
    }
}

impl Generation {
    /// Runs what was given to [`Builder::on_load`], unless that has been done. After a failure, what was to be stopped
    /// is stopped.
    ///
    /// # Errors
    /// The first failure.
    pub async fn load(&mut self) -> Result<(), BuildError> {
        let loads = std::mem::take(&mut self.loads);
        self.run(loads).await
    }

    /// Who is to run the gateway, now that it is loaded; `None`: any runtime will do.
    pub fn driver(&self) -> Option<Arc<dyn Driver>> {
        self.drivers.iter().find(|driver| driver.wants()).cloned()
    }

    /// Loads, then runs what was given to [`Builder::on_start`]. After a failure, what was to be stopped is stopped.
    ///
    /// # Errors
    /// The first failure.
    pub async fn start(&mut self) -> Result<(), BuildError> {
        self.load().await?;
        let starts = std::mem::take(&mut self.starts);
        self.run(starts).await
    }

    async fn run(&mut self, starts: Vec<Start>) -> Result<(), BuildError> {
        for start in starts {
            tracing::debug!(target: "hawksbill::start", "{}", start.what);
            if let Err(error) = start.run.await {
                self.run_stops().await;
                return Err(match start.place {
                    Some(place) => error.within(&*place),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// The tasks to be spawned once the generation has started, and aborted when it has stopped.
    pub fn take_tasks(&mut self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.tasks)
    }

    /// What it says of itself while it serves.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Runs what was given to [`Builder::on_stop`].
    pub async fn stop(mut self) {
        self.run_stops().await;
    }

    async fn run_stops(&mut self) {
        while let Some(stop) = self.stops.pop() {
            stop.await;
        }
    }
}

impl BuildError {
    /// An error that tells a person what happened and what to do next.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, details: None, source: None }
    }

    /// Where in the configuration: a file with line and column, a key, a flag. The innermost place stays.
    pub fn within(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert_with(|| place.into());
        self
    }

    /// Lines that stand under the message as they are, such as a traceback.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Attaches the cause.
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(details) = &self.details {
            write!(f, "\n{}", details.trim_end())?;
        }
        Ok(())
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("dir", &self.dir).field("site", &self.site).finish_non_exhaustive()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("loads", &self.loads.len())
            .field("drivers", &self.drivers.len())
            .field("starts", &self.starts.len())
            .field("stops", &self.stops.len())
            .field("tasks", &self.tasks.len())
            .field("vitals", &self.vitals)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failed_start_stops_what_was_started() {
        let stopped = Arc::new(AtomicUsize::new(0));
        let mut builder = Builder::new("/");
        let seen = stopped.clone();
        builder.on_stop(async move {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        builder.on_start("first", async { Ok(()) });
        builder.on_start("second", async { Err(BuildError::new("no such module 'shop'")) });
        let error = builder.finish().start().await.unwrap_err();
        assert_eq!(error.to_string(), "no such module 'shop'");
        assert_eq!(stopped.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn everything_is_loaded_before_anything_starts() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut builder = Builder::new("/");
        for name in ["shop", "blog"] {
            let (loading, starting) = (seen.clone(), seen.clone());
            builder.on_load(name, async move {
                loading.lock().unwrap().push(format!("{name} loaded"));
                Ok(())
            });
            builder.on_start(name, async move {
                starting.lock().unwrap().push(format!("{name} started"));
                Ok(())
            });
        }
        let mut generation = builder.finish();
        generation.load().await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["shop loaded", "blog loaded"]);
        generation.start().await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["shop loaded", "blog loaded", "shop started", "blog started"]);
    }

    #[test]
    fn shared_things_are_made_once_a_key() {
        let mut builder = Builder::new("/");
        let mut made = 0;
        for key in ["a", "a", "b"] {
            builder
                .shared::<usize, BuildError>(key, |_| {
                    made += 1;
                    Ok(made)
                })
                .unwrap();
        }
        assert_eq!(made, 2);
    }

    #[test]
    fn an_unknown_application_is_named() {
        assert_eq!(
            Builder::new("/").named("shop").unwrap_err().to_string(),
            "there is no application 'shop'"
        );
    }
}
