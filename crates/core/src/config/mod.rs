//! Configuration values: what TOML, Python, flags and JSON become before they become structs.
//!
//! Hawksbill has one config tree and five spellings of it. Each spelling first becomes a [`Value`]: a tree in
//! which every value and every key remembers its [`Origin`]. A serde deserializer over that tree then fills the
//! config structs of the application kinds and layers, and what does not fit is reported as a [`ConfigError`],
//! which names the place, what was found there, what is allowed, and the likely intention.
//!
//! ```
//! use hawksbill_core::config::{self, Duration, Path};
//!
//! #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct App {
//!     workers: u16,
//!     timeout: Duration,
//! }
//!
//! let text = "[apps.shop]\nworkers = \"${WORKERS:-2}\"\ntimeout = \"1m30s\"\n";
//! let mut tree = config::parse_toml("hawksbill.toml", text)?;
//! config::expand(&mut tree, &|_variable| None)?;
//! let path = Path::root().key("apps").key("shop");
//! let shop: App = tree.at(&["apps", "shop"]).unwrap().decode(&path)?;
//! assert_eq!((shop.workers, shop.timeout.as_secs()), (2, 90));
//!
//! let tree = config::parse_toml("hawksbill.toml", "[apps.shop]\nworker = 2\n")?;
//! let problem = tree.at(&["apps", "shop"]).unwrap().decode::<App>(&path).unwrap_err();
//! assert_eq!(
//!     problem.to_string(),
//!     "hawksbill.toml:2:1: unknown key 'worker' in [apps.shop]; did you mean 'workers'? \
//!      Allowed here: workers, timeout\n  \
//!        |\n\
//!      2 | worker = 2\n  \
//!        | ^^^^^^"
//! );
//! # Ok::<(), config::ConfigError>(())
//! ```
//!
//! Values that are more than a string or a number have types of their own ([`Duration`], [`Size`], [`Listen`],
//! [`HostPattern`], [`CidrSet`], [`Percent`], [`Bounded`], [`OneOrMany`]), each with one canonical spelling.

mod capture;
mod carry;
mod de;
mod error;
mod expand;
mod origin;
mod path;
mod reflect;
mod toml;
mod types;
mod value;

pub use self::capture::relay;
pub use self::error::{ConfigError, Problem, did_you_mean};
pub use self::expand::expand;
pub use self::origin::{Origin, Position, Source};
pub use self::path::{Path, Segment};
pub use self::reflect::fields_of;
pub use self::toml::parse_toml;
pub use self::types::{
    Bounded, Cidr, CidrEntry, CidrSet, Duration, HostName, HostPattern, InvalidValue, Listen, ListenHost,
    OneOrMany, Percent, Size,
};
pub use self::value::{Data, Table, Value};
