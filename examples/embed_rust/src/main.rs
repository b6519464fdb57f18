//! Serves both until Ctrl-C. See the README beside this program.

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What the gateway has to say is told as events; without this nobody hears it.
    tracing_subscriber::fmt::init();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8001").await?;
    let axum = axum::serve(listener, embed_rust::axum_with_a_turtle()?);
    let gateway = embed_rust::gateway_with_axum("127.0.0.1:8002").build()?;
    tokio::select! {
        ended = axum => ended?,
        ended = gateway.run() => ended?,
    }
    Ok(())
}
