//! Masking (RFC 6455 section 5.3): an exclusive or with a key of four bytes, eight bytes at a time.

/// Masks or unmasks `data` in place; `offset` is how many bytes of the frame's payload came before it.
///
/// ```
/// let mut data = *b"turtle";
/// hawksbill_websocket::apply_mask(&mut data, [1, 2, 3, 4], 0);
/// assert_eq!(data[0], b't' ^ 1);
/// // The second half may come later.
/// let (first, second) = data.split_at_mut(3);
/// hawksbill_websocket::apply_mask(first, [1, 2, 3, 4], 0);
/// hawksbill_websocket::apply_mask(second, [1, 2, 3, 4], 3);
/// assert_eq!(&data, b"turtle");
/// ```
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: u64) {
    let [a, b, c, d] = match offset % 4 {
        1 => [key[1], key[2], key[3], key[0]],
        2 => [key[2], key[3], key[0], key[1]],
        3 => [key[3], key[0], key[1], key[2]],
        _ => key,
    };
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_bytewise_definition(data: Vec<u8>, key: [u8; 4], offset in 0..9_u64) {
            let mut masked = data.clone();
            apply_mask(&mut masked, key, offset);
            let start = usize::try_from(offset).unwrap();
            for (i, byte) in data.iter().enumerate() {
                prop_assert_eq!(masked[i], byte ^ key[(start + i) % 4]);
            }
        }
    }
}
