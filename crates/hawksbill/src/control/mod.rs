//! The control socket of `hawksbill run`: what the commands ask a gateway that is running.
//!
//! It speaks JSON over HTTP/1.1 (`docs/control.md`). What it answers is a turtle like every other.

mod api;
mod client;
mod figures;
mod logs;
mod place;
mod report;
mod socket;
mod trouble;

pub(crate) use self::api::Api;
pub(crate) use self::client::{Client, Refused};
pub(crate) use self::figures::{Crew, Figures, Lookout, OFTEN, Row};
pub(crate) use self::place::{Found, Subject, find, kept};
pub(crate) use self::report::{Report, age};
pub(crate) use self::socket::Control;
pub(crate) use self::trouble::Trouble;

/// Where the paths of this version of the interface begin.
pub(crate) const VERSION: &str = "/v1";
