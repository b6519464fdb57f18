//! The settings of an application's WebSocket connections.

use hawksbill_core::config::{Duration, Size};
use hawksbill_websocket::{Config, DeflateConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of an application's WebSocket connections, and what keeps them alive.
///
/// ```
/// use hawksbill_python::WebSockets;
///
/// let usual = WebSockets::default();
/// assert_eq!(usual.max_message.to_string(), "16MB");
/// assert_eq!(usual.ping.as_secs(), 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebSockets {
    /// The longest message that a client may send, all fragments together and uncompressed. A longer one closes the
    /// connection with 1009.
    pub max_message: Size,
    /// A client that has sent nothing for this long is asked for a sign of life. `0`: never.
    pub ping: Duration,
    /// A client that is asked and silent for this long is given up: the application is told 1006. `0`: never.
    pub ping_timeout: Duration,
    /// Whether messages are compressed where the client offers it (RFC 7692, permessage-deflate).
    pub compress: bool,
}

impl Default for WebSockets {
    fn default() -> Self {
        Self {
            max_message: Size::megabytes(16),
            ping: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(20),
            compress: true,
        }
    }
}

impl WebSockets {
    /// What is offered to a client that offers compression.
    pub(super) fn deflate(&self) -> Option<DeflateConfig> {
        self.compress.then(DeflateConfig::default)
    }

    /// The codec's limits; a frame may be as long as a message.
    pub(super) fn config(&self) -> Config {
        let limit = self.max_message.as_usize();
        Config { max_message_size: limit, max_frame_size: limit, ..Config::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_not_offered() {
        assert!(WebSockets::default().deflate().is_some());
        assert!(WebSockets { compress: false, ..WebSockets::default() }.deflate().is_none());
    }

    #[test]
    fn a_frame_may_be_as_long_as_a_message() {
        let small = WebSockets { max_message: Size::new(100), ..WebSockets::default() };
        assert_eq!((small.config().max_message_size, small.config().max_frame_size), (100, 100));
    }
}
