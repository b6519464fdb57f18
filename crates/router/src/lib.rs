//! Virtual-host and path routing: [`Sites`] choose by host, [`Routes`] by path.
//!
//! Both are turtles over turtles, and each can be used without the other.
//!
//! ```
//! use hawksbill_core::config::HostPattern;
//! use hawksbill_core::{Body, Mount, Turtle};
//! use hawksbill_router::{Routes, Sites};
//! use http::{Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! fn named(name: &'static str) -> Turtle {
//!     Turtle::from_fn(move |request: Request<Body>| {
//!         let path = request.uri().path();
//!         let shown = match request.extensions().get::<Mount>() {
//!             Some(mount) => format!("{name} {:?}", mount.split(path)),
//!             None => format!("{name} {path}"),
//!         };
//!         std::future::ready(Ok(Response::new(Body::from(shown))))
//!     })
//! }
//!
//! let shop = Routes::builder()
//!     .route("/", named("shop"))
//!     .route("/static", named("files")) // sees the path as it came
//!     .mount("/blog", named("blog")) // sees what is behind /blog, and /blog as SCRIPT_NAME / root_path
//!     .build()?;
//! let sites = Sites::builder()
//!     .site("example.com", ["example.com".parse::<HostPattern>()?, "*.example.com".parse()?], shop)
//!     .build()?;
//!
//! let ask = async |host: &str, path: &str| {
//!     let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
//!     match sites.ask(request).await {
//!         Ok(response) => {
//!             let page = hawksbill_core::body::to_bytes(response.into_body(), 1024).await.unwrap();
//!             String::from_utf8_lossy(&page).into_owned()
//!         }
//!         Err(error) => error.to_string(),
//!     }
//! };
//! assert_eq!(ask("Example.COM:8000", "/static/a.css").await, "files /static/a.css");
//! assert_eq!(ask("www.example.com.", "/static2").await, "shop /static2");
//! assert_eq!(ask("example.com", "/blog//2026/").await, r#"blog ("/blog", "//2026/")"#);
//! assert_eq!(ask("example.org", "/").await, "421 Misdirected Request: no site answers to host 'example.org'");
//! # Ok(()) }
//! ```
//!
//! How a host is read is told in [`Sites`], how a path is read in [`Routes`].

mod host;
mod path;
mod prefix;
mod routes;
mod shown;
mod sites;
mod trie;

pub use prefix::PrefixError;
pub use routes::{RouteError, Routes, RoutesBuilder};
pub use sites::{SiteError, Sites, SitesBuilder};
