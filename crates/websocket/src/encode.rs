//! From messages to frames, without input or output of its own.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};

use crate::config::{Config, Role};
use crate::deflate::Deflater;
use crate::error::EncodeError;
use crate::frame::{Frame, MAX_CONTROL, Opcode};
use crate::mask::apply_mask;
use crate::message::{CloseFrame, Message};

/// Frames messages: one frame each, masked by a client, compressed where that was agreed and gains something.
///
/// ```
/// use hawksbill_websocket::{Config, Encoder, Message, Role};
///
/// let mut encoder = Encoder::new(Role::Server, &Config::default());
/// let frame = encoder.encode(Message::text("Hello"))?;
/// assert_eq!(frame.header(), [0x81, 0x05]);
/// assert_eq!(frame.payload(), "Hello");
/// # Ok::<(), hawksbill_websocket::EncodeError>(())
/// ```
pub struct Encoder {
    role: Role,
    threshold: usize,
    deflater: Option<Deflater>,
}

impl Encoder {
    /// An encoder for the endpoint that stands on `role`'s side.
    pub fn new(role: Role, config: &Config) -> Self {
        let deflater = config.deflate.as_ref().map(|params| {
            let (bits, alone) = match role {
                Role::Server => (params.server_max_window_bits, params.server_no_context_takeover),
                Role::Client => (params.client_max_window_bits, params.client_no_context_takeover),
            };
            Deflater::new(params.level, bits, !alone)
        });
        let threshold = config.deflate.as_ref().map_or(0, |params| params.threshold);
        Self { role, threshold, deflater }
    }

    /// The frame of one message.
    ///
    /// # Errors
    /// A control message that is too long, or a close code that may not be sent; the encoder stays usable.
    pub fn encode(&mut self, message: Message) -> Result<Frame, EncodeError> {
        let (opcode, payload) = parts(message)?;
        let compressed = match &mut self.deflater {
            Some(deflater) if !opcode.is_control() && payload.len() >= self.threshold.max(1) => {
                deflater.deflate(&payload)
            }
            _ => None,
        };
        let (rsv1, payload) = match compressed {
            Some(compressed) => (true, Bytes::from(compressed)),
            None => (false, payload),
        };
        match self.role {
            Role::Server => Ok(Frame::new(opcode, rsv1, None, payload)),
            Role::Client => {
                let mut key = [0; 4];
                getrandom::fill(&mut key).map_err(|_| EncodeError::NoRandomness)?;
                Ok(Frame::new(opcode, rsv1, Some(key), masked(payload, key)))
            }
        }
    }

    /// The frame of a message that goes to many connections: what was framed, or compressed, for another is shared.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_shared(&mut self, message: &SharedMessage) -> Result<Frame, EncodeError> {
        if self.role == Role::Client {
            // Each client frame has a mask of its own.
            return self.encode(message.message.clone());
        }
        if let Some(deflater) = &mut self.deflater
            && message.plain.payload().len() >= self.threshold.max(1)
            && let Some(frame) = deflater.shareable().and_then(|deflater| message.compressed(deflater))
        {
            deflater.forget();
            return Ok(frame.clone());
        }
        Ok(message.plain.clone())
    }
}

/// A message framed once for any number of server connections, and compressed at most once, when the first needs it.
///
/// ```
/// use hawksbill_websocket::{Config, Encoder, Message, Role, SharedMessage};
///
/// let news = SharedMessage::new(Message::text("turtles all the way down"))?;
/// for _subscriber in 0..3 {
///     let mut encoder = Encoder::new(Role::Server, &Config::default());
///     assert_eq!(encoder.encode_shared(&news)?.payload(), "turtles all the way down");
/// }
/// # Ok::<(), hawksbill_websocket::EncodeError>(())
/// ```
#[derive(Debug)]
pub struct SharedMessage {
    message: Message,
    opcode: Opcode,
    plain: Frame,
    compressed: OnceLock<Option<Frame>>,
}

impl SharedMessage {
    /// Frames the message.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn new(message: Message) -> Result<Self, EncodeError> {
        let (opcode, payload) = parts(message.clone())?;
        let plain = Frame::new(opcode, false, None, payload);
        Ok(Self { message, opcode, plain, compressed: OnceLock::new() })
    }

    /// The message itself.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The compressed frame, if the message is worth compressing. It refers to nothing before it, so it fits any
    /// connection whose window is the widest.
    fn compressed(&self, mut deflater: Deflater) -> Option<&Frame> {
        if self.opcode.is_control() {
            return None;
        }
        let frame = self.compressed.get_or_init(|| {
            let payload = deflater.deflate(self.plain.payload())?;
            Some(Frame::new(self.opcode, true, None, Bytes::from(payload)))
        });
        frame.as_ref()
    }
}

/// Opcode and payload, checked.
fn parts(message: Message) -> Result<(Opcode, Bytes), EncodeError> {
    let (opcode, payload) = match message {
        Message::Text(text) => (Opcode::Text, text.into_bytes()),
        Message::Binary(data) => (Opcode::Binary, data),
        Message::Ping(data) => (Opcode::Ping, data),
        Message::Pong(data) => (Opcode::Pong, data),
        Message::Close(None) => (Opcode::Close, Bytes::new()),
        Message::Close(Some(CloseFrame { code, .. })) if !code.is_sendable() => {
            return Err(EncodeError::CloseCode(code));
        }
        Message::Close(Some(CloseFrame { code, reason })) => {
            (Opcode::Close, Bytes::from([&code.0.to_be_bytes(), reason.as_bytes()].concat()))
        }
    };
    if opcode.is_control() && payload.len() > MAX_CONTROL {
        return Err(EncodeError::ControlTooLong(payload.len()));
    }
    Ok((opcode, payload))
}

/// The payload masked: in place where nobody else holds it.
fn masked(payload: Bytes, key: [u8; 4]) -> Bytes {
    let mut payload = payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    apply_mask(&mut payload, key, 0);
    payload.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoder;
    use crate::extension::DeflateParams;
    use crate::message::CloseCode;

    fn deflate(server_no_context_takeover: bool, server_max_window_bits: u8) -> Config {
        let params = DeflateParams {
            server_no_context_takeover,
            client_no_context_takeover: true,
            server_max_window_bits,
            client_max_window_bits: 15,
            level: 6,
            threshold: 16,
        };
        Config { deflate: Some(params), ..Config::default() }
    }

    fn turtles() -> Message {
        Message::text("turtles, turtles, turtles, turtles, turtles")
    }

    #[test]
    fn a_client_masks_and_leaves_a_shared_payload_alone() {
        let shared = Bytes::from(vec![1; 100]);
        let mut encoder = Encoder::new(Role::Client, &Config::default());
        let frame = encoder.encode(Message::Binary(shared.clone())).unwrap();
        assert_eq!(shared, vec![1; 100]);
        assert_eq!(frame.header()[..2], [0x82, 0x80 + 100]);
        let mut decoder = Decoder::new(Role::Server, &Config::default());
        assert_eq!(decoder.decode(&mut frame.to_vec().as_slice()), Ok(Some(Message::Binary(shared))));
    }

    #[test]
    fn what_may_not_be_sent_is_refused() {
        let mut encoder = Encoder::new(Role::Server, &Config::default());
        for code in [1005, 1006, 1015, 0] {
            let error = encoder.encode(Message::close(code, "")).unwrap_err();
            assert_eq!(error, EncodeError::CloseCode(CloseCode(code)));
        }
        let long = "x".repeat(124);
        let error = encoder.encode(Message::close(1000, long.as_str())).unwrap_err();
        assert_eq!(error, EncodeError::ControlTooLong(126));
        assert!(encoder.encode(Message::close(1000, &long[1..])).is_ok());
        assert!(encoder.encode(Message::Ping(vec![0; 126].into())).is_err());
    }

    #[test]
    fn compresses_data_above_the_threshold_only() {
        let mut encoder = Encoder::new(Role::Server, &deflate(true, 15));
        let rsv1 = |frame: Frame| frame.header()[0] & 0x40 != 0;
        assert!(rsv1(encoder.encode(turtles()).unwrap()));
        assert!(!rsv1(encoder.encode(Message::text("aaaaaaaaaaaaaaa")).unwrap()));
        assert!(!rsv1(encoder.encode(Message::text("")).unwrap()));
        assert!(!rsv1(encoder.encode(Message::Ping(vec![0; 100].into())).unwrap()));
    }

    #[test]
    fn a_shared_frame_fits_between_a_connections_own() {
        // Another text than the connection's own: what is remembered of one must not be taken for the other.
        let news = Message::text("hawksbill! hawksbill! hawksbill! hawksbill!");
        let shared = SharedMessage::new(news.clone()).unwrap();
        for (config, is_shared) in
            [(deflate(true, 15), true), (deflate(false, 15), true), (deflate(true, 12), false)]
        {
            let mut encoder = Encoder::new(Role::Server, &config);
            let mut decoder = Decoder::new(Role::Client, &config);
            let frames = [
                encoder.encode(turtles()).unwrap(),
                encoder.encode_shared(&shared).unwrap(),
                encoder.encode(turtles()).unwrap(),
                encoder.encode_shared(&shared).unwrap(),
            ];
            assert_eq!(frames[1].header()[0] & 0x40 != 0, is_shared);
            assert_eq!(frames[1].payload().as_ptr(), frames[3].payload().as_ptr());
            for (frame, expected) in frames.iter().zip([turtles(), news.clone(), turtles(), news.clone()]) {
                assert_eq!(decoder.decode(&mut frame.to_vec().as_slice()), Ok(Some(expected)));
            }
        }
    }
}
