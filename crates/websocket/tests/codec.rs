//! The codec's two halves against each other and against noise: messages cut into frames at random, frames into reads.

use bytes::{Buf, Bytes};
use hawksbill_websocket::{
    CloseCode, Config, Decoder, DeflateParams, Encoder, Frame, Message, ProtocolError, Role, SharedMessage,
    apply_mask,
};
use proptest::prelude::*;

fn message() -> impl Strategy<Value = Message> {
    let bytes = |size| prop::collection::vec(any::<u8>(), 0..size);
    let repetitive = prop::collection::vec(0..3_u8, 0..3000);
    let code = prop_oneof![1000..1004_u16, 1007..1015_u16, 3000..5000_u16];
    prop_oneof![
        any::<String>().prop_map(Message::text),
        ".{0,20}".prop_map(|text| Message::text(text.repeat(50))),
        bytes(300).prop_map(Message::binary),
        repetitive.prop_map(Message::binary),
        (0..200_000_usize).prop_map(|len| Message::binary(vec![7; len])),
        bytes(126).prop_map(|data| Message::Ping(data.into())),
        bytes(126).prop_map(|data| Message::Pong(data.into())),
        (code, "[a-zé]{0,40}").prop_map(|(code, reason)| Message::close(code, reason)),
    ]
}

fn deflate() -> impl Strategy<Value = Option<DeflateParams>> {
    prop::option::of((any::<bool>(), any::<bool>(), 9..=15_u8, 9..=15_u8, 0..=9_u32, 0..200_usize).prop_map(
        |(server, client, server_bits, client_bits, level, threshold)| DeflateParams {
            server_no_context_takeover: server,
            client_no_context_takeover: client,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
            level,
            threshold,
        },
    ))
}

fn roles() -> impl Strategy<Value = (Role, Role)> {
    prop_oneof![Just((Role::Server, Role::Client)), Just((Role::Client, Role::Server))]
}

/// The frame's bytes, its payload cut at `cuts` into as many frames, a ping before each that continues.
fn fragmented(frame: &Frame, cuts: &[usize]) -> (Vec<u8>, usize) {
    let header = frame.header();
    if header[0] & 0x08 != 0 || cuts.is_empty() {
        return (frame.to_vec(), 0);
    }
    let mask = if header[1] & 0x80 == 0 { None } else { header.last_chunk::<4>().copied() };
    let mut payload = frame.payload().to_vec();
    if let Some(mask) = mask {
        apply_mask(&mut payload, mask, 0);
    }
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
    cuts.sort_unstable();
    let mut out = Vec::new();
    let mut start = 0;
    for (i, end) in cuts.iter().copied().chain([payload.len()]).enumerate() {
        if i > 0 {
            write_frame(&mut out, 0x89, &[], mask);
        }
        let fin = if i == cuts.len() { 0x80 } else { 0 };
        let first = if i == 0 { header[0] & 0x7F } else { 0 };
        write_frame(&mut out, first | fin, &payload[start..end], mask);
        start = end;
    }
    (out, cuts.len())
}

fn write_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    let bit: u8 = if mask.is_some() { 0x80 } else { 0 };
    out.push(first);
    let len = payload.len().to_be_bytes();
    match payload.len() {
        0..126 => out.push(bit + len[7]),
        126..65_536 => out.extend([bit + 126, len[6], len[7]]),
        _ => {
            out.push(bit + 127);
            out.extend(len);
        }
    }
    out.extend(mask.iter().flatten());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask, 0);
    }
}

/// Everything that comes out of `wire` when it is read in pieces of these sizes, over and over.
fn read(decoder: &mut Decoder, wire: &[u8], sizes: &[usize]) -> Result<Vec<Message>, ProtocolError> {
    let mut messages = Vec::new();
    let mut rest = wire;
    for size in sizes.iter().cycle() {
        let (mut piece, tail) = rest.split_at((*size).min(rest.len()));
        rest = tail;
        while piece.has_remaining() {
            messages.extend(decoder.decode(&mut piece)?);
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        messages in prop::collection::vec(message(), 1..6),
        deflate in deflate(),
        (from, to) in roles(),
        cuts in prop::collection::vec(any::<usize>(), 0..5),
        sizes in prop::collection::vec(1..5000_usize, 1..5),
        shared: bool,
    ) {
        let config = Config { deflate, ..Config::default() };
        let mut encoder = Encoder::new(from, &config);
        let mut decoder = Decoder::new(to, &config);
        for message in messages {
            let frame = if shared { encoder.encode_shared(&SharedMessage::new(message.clone()).unwrap()).unwrap() } else { encoder.encode(message.clone()).unwrap() };
            let (wire, pings) = fragmented(&frame, &cuts);
            let mut expected = vec![Message::Ping(Bytes::new()); pings];
            let closes = matches!(message, Message::Close(_));
            expected.push(message);
            let decoded = read(&mut decoder, &wire, &sizes).unwrap();
            prop_assert!(decoded == expected);
            prop_assert!(decoder.is_between_messages());
            if closes {
                break;
            }
        }
    }

    /// Reads cut anywhere give the same messages, or the same fault, as one read of everything.
    #[test]
    fn noise_is_judged_alike_however_it_arrives(
        wire in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), noisy_frames()],
        deflate in deflate(),
        (role, _) in roles(),
        sizes in prop::collection::vec(1..40_usize, 1..4),
    ) {
        let config = Config { max_message_size: 500, max_frame_size: 300, deflate, ..Config::default() };
        let whole = read(&mut Decoder::new(role, &config), &wire, &[usize::MAX]);
        let pieces = read(&mut Decoder::new(role, &config), &wire, &sizes);
        prop_assert_eq!(&whole, &pieces);
        for message in whole.unwrap_or_default() {
            match message {
                Message::Text(text) => prop_assert!(text.len() <= 500),
                Message::Binary(data) => prop_assert!(data.len() <= 500),
                Message::Ping(data) | Message::Pong(data) => prop_assert!(data.len() <= 125),
                Message::Close(frame) => prop_assert!(frame.is_none_or(|frame| frame.code.is_sendable())),
            }
        }
    }

    /// A message comes out if, and only if, all its fragments together, uncompressed, are within the limit.
    #[test]
    fn the_limit_is_that_of_the_whole_message(
        data in prop_oneof![prop::collection::vec(0..3_u8, 0..1000), prop::collection::vec(any::<u8>(), 0..1000)],
        limit in 0..1000_usize,
        deflate in deflate(),
        (from, to) in roles(),
        cuts in prop::collection::vec(any::<usize>(), 0..5),
        sizes in prop::collection::vec(1..300_usize, 1..4),
    ) {
        let generous = Config { deflate: deflate.clone(), ..Config::default() };
        let frame = Encoder::new(from, &generous).encode(Message::binary(data.clone())).unwrap();
        let (wire, pings) = fragmented(&frame, &cuts);
        let config = Config { max_message_size: limit, deflate, ..Config::default() };
        let decoded = read(&mut Decoder::new(to, &config), &wire, &sizes);
        if data.len() <= limit {
            let mut expected = vec![Message::Ping(Bytes::new()); pings];
            expected.push(Message::binary(data));
            prop_assert_eq!(decoded, Ok(expected));
        } else {
            prop_assert_eq!(decoded, Err(ProtocolError::MessageTooBig { limit }));
        }
    }

    #[test]
    fn text_that_is_not_utf8_never_comes_out(
        payload in prop::collection::vec(any::<u8>(), 1..100), cut: usize, sizes in prop::collection::vec(1..20_usize, 1..4),
    ) {
        let cut = cut % payload.len();
        let mut wire = Vec::new();
        write_frame(&mut wire, 0x01, &payload[..cut], None);
        write_frame(&mut wire, 0x80, &payload[cut..], None);
        let result = read(&mut Decoder::new(Role::Client, &Config::default()), &wire, &sizes);
        let expected = String::from_utf8(payload).map(|text| vec![Message::text(text)]);
        prop_assert_eq!(result, expected.map_err(|_| ProtocolError::InvalidUtf8));
    }

    #[test]
    fn close_codes_are_refused_alike_on_both_sides(code: u16) {
        let mut wire = Vec::new();
        write_frame(&mut wire, 0x88, &code.to_be_bytes(), None);
        let config = Config::default();
        let decoded = Decoder::new(Role::Client, &config).decode(&mut wire.as_slice()).is_ok();
        let encoded = Encoder::new(Role::Server, &config).encode(Message::close(code, "")).is_ok();
        prop_assert_eq!((decoded, encoded), (CloseCode(code).is_sendable(), CloseCode(code).is_sendable()));
    }
}

/// Frames that are right in themselves and follow each other at random.
fn noisy_frames() -> impl Strategy<Value = Vec<u8>> {
    let first =
        prop::sample::select(vec![0x01_u8, 0x02, 0x00, 0x80, 0x81, 0x82, 0xC1, 0xC2, 0x41, 0x88, 0x89, 0x8A]);
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..150),
        "[ -~é€🐢]{0,60}".prop_map(String::into_bytes),
        Just(vec![0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]),
    ];
    let mask = prop::option::of(any::<[u8; 4]>());
    (prop::collection::vec((first, payload), 1..6), mask).prop_map(|(frames, mask)| {
        let mut out = Vec::new();
        for (first, payload) in frames {
            write_frame(&mut out, first, &payload, mask);
        }
        out
    })
}

/// The compressed examples of RFC 7692 section 7.2.3, as frames.
#[test]
fn compressed_examples_of_the_rfc() {
    let params = DeflateParams {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
        level: 6,
        threshold: 0,
    };
    let config = Config { deflate: Some(params), ..Config::default() };
    let hello = || Ok(vec![Message::text("Hello")]);
    let examples: [&[u8]; 5] = [
        // 7.2.3.1, in one frame and in two; 7.2.3.2, with the window of the messages before; 7.2.3.3; 7.2.3.4.
        &[0xC1, 0x07, 0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
        &[0x41, 0x03, 0xF2, 0x48, 0xCD, 0x80, 0x04, 0xC9, 0xC9, 0x07, 0x00],
        &[0xC1, 0x05, 0xF2, 0x00, 0x11, 0x00, 0x00],
        &[0xC1, 0x0B, 0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
        &[0xC1, 0x08, 0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
    ];
    for size in 1..12 {
        let mut decoder = Decoder::new(Role::Client, &config);
        for wire in examples {
            assert_eq!(read(&mut decoder, wire, &[size]), hello());
        }
    }
    // 7.2.3.6: compressed emptiness. RSV1 belongs to the first frame of a message alone.
    let mut decoder = Decoder::new(Role::Client, &config);
    assert_eq!(read(&mut decoder, &[0xC1, 0x01, 0x00], &[9]), Ok(vec![Message::text("")]));
    assert_eq!(read(&mut decoder, &[0x41, 0x00, 0xC0, 0x00], &[9]), Err(ProtocolError::ReservedBits));
}

#[test]
fn a_bomb_in_many_fragments_is_bounded() {
    let params = DeflateParams {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
        level: 9,
        threshold: 0,
    };
    let generous =
        Config { deflate: Some(params.clone()), max_message_size: usize::MAX, ..Config::default() };
    let bomb = Encoder::new(Role::Server, &generous).encode(Message::binary(vec![0; 50_000_000])).unwrap();
    assert!(bomb.wire_len() < 60_000);
    let (wire, _) = fragmented(&bomb, &[100, 1000, 10_000, 20_000]);
    let config = Config { deflate: Some(params), max_message_size: 1_000_000, ..Config::default() };
    let result = read(&mut Decoder::new(Role::Client, &config), &wire, &[1000]);
    assert_eq!(result, Err(ProtocolError::MessageTooBig { limit: 1_000_000 }));
}
