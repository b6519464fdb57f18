//! Hawksbill inside a Rust program, in both directions.

use axum::Router;
use axum::http::{HeaderName, HeaderValue};
use axum::routing::{any_service, get};
use hawksbill::apps::Files;
use hawksbill::{BuildError, Builder, Gateway, GatewayBuilder, Turtle};
use tower_http::set_header::SetResponseHeaderLayer;

/// The directory that both servers serve.
pub const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/public");

/// An axum router with a turtle in it.
///
/// # Errors
/// When the directory cannot be read.
pub fn axum_with_a_turtle() -> Result<Router, BuildError> {
    // One kind alone, without the gateway around it: `build` makes it a turtle, `infallible` what axum takes.
    let files: Turtle = hawksbill::AppKind::build(Files::of(PUBLIC), &mut Builder::new("."))?;
    Ok(Router::new()
        .route("/", get(async || "axum answers, with a turtle beneath /files\n"))
        .nest_service("/files", any_service(files.infallible())))
}

/// A gateway with an axum router in it.
pub fn gateway_with_axum(listen: &str) -> GatewayBuilder {
    let axum = Router::new().route("/", get(async || "axum answers, inside the gateway\n"));
    let served_by = SetResponseHeaderLayer::overriding(
        HeaderName::from_static("x-served-by"),
        HeaderValue::from_static("hawksbill"),
    );
    Gateway::builder()
        .listen(listen)
        .layer(served_by)
        .site("api.localhost", |site| site.route("/", axum))
        .site("files.localhost", |site| site.app("/", Files::of(PUBLIC)))
}
