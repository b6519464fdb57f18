//! Processes: pools of identical ones, generations that follow each other without a gap, replacements for those that
//! die, hang or grow. It knows processes, never requests.
//!
//! A [`Plan`] says what is to run. [`Supervisor::run`] runs it, asked through a [`Handle`]; each process holds the
//! [`child`] half of a channel to it.
//!
//! ```
//! use hawksbill_supervisor::{Apply, Descriptors, Plan, Pool, Program, Settings, Supervisor};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (supervisor, handle) = Supervisor::new(Settings::default(), Descriptors::new())?;
//! let running = tokio::spawn(supervisor.run());
//! let mut plan = Plan::default();
//! let program = Program { path: "sleep".into(), args: vec!["60".into()], ..Program::default() };
//! plan.pools.insert("nap".into(), Pool { program, speaks: false, ..Pool::default() });
//!
//! handle.apply(Apply::new(plan)).await?;
//! let status = handle.status().await.ok_or("gone")?;
//! assert_eq!(status.pools["nap"].processes.len(), 1);
//!
//! handle.stop(true).await;
//! running.await?;
//! # Ok(()) }
//! ```

mod actor;
mod announce;
pub mod child;
mod connection;
mod descriptors;
mod event;
mod exit;
mod handle;
mod job;
mod launch;
mod plan;
mod pool;
mod preload;
pub mod preloader;
mod process;
mod reap;
mod service;
mod signals;
mod spawn;
mod status;
mod stop;
mod supervisor;
pub mod systemd;
mod tree;
mod trial;
mod upgrade;
mod wire;

pub use descriptors::Descriptors;
pub use event::{Event, Of};
pub use exit::Exit;
pub use handle::{Answers, Applied, Apply, Failure, Handle};
pub use launch::launch;
pub use plan::{Identity, Kind, Limit, Output, Plan, Pool, Program, Recycle, Restart, Size, When};
pub use signals::{Received, Signals};
pub use status::{PoolStatus, ProcessStatus, State, Status};
pub use supervisor::{Line, Lines, Settings, Supervisor, Wish};
pub use upgrade::Resume;
pub use wire::{Beat, Member, Order, Start, VERSION};
