//! The Rust builder makes the tree that TOML, flags and Python make for the same content.

use hawksbill::core::config::{Bounded, Duration};
use hawksbill::layers::AccessLog;
use hawksbill::{Config, Gateway, standard_registry};
use hawksbill_python::{Wsgi, register};

/// What the Python tests compare the other spellings with.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/tests/golden");

#[test]
fn every_spelling_makes_the_same_tree() {
    let shop = Wsgi {
        wsgi: "shop.wsgi:application".to_owned(),
        dir: Some("shop".into()),
        threads: Bounded::clamped(6),
        queue: Bounded::clamped(1024),
        timeout: Duration::from_secs(30),
        slow: Duration::default(),
    };
    let rust = Gateway::builder()
        .listen("127.0.0.1:8000")
        .settings(|settings| settings.drain = Duration::from_secs(5))
        .with(AccessLog::to("-"))
        .app("shop", shop)
        .site("*", |site| site.to("/", "shop"))
        .config()
        .unwrap();
    let registry = standard_registry().and_then(register).unwrap();
    let file = format!("{GOLDEN}/shop.toml");
    let toml = Config::load(file.as_ref(), hawksbill::core::config::Table::new(), &registry).unwrap();
    let expected = std::fs::read_to_string(format!("{GOLDEN}/shop.tree")).unwrap();
    assert_eq!(rust.to_string(), expected);
    assert_eq!(toml.to_string(), expected);
}
