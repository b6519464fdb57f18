//! UTF-8 checked while it arrives: a sequence may be cut anywhere, and a wrong byte is refused as soon as it is seen.

use std::str;

/// Not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidUtf8;

/// The state between two pieces: the beginning of a sequence that the last piece cut off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Utf8Validator {
    partial: [u8; 4],
    len: usize,
}

impl Utf8Validator {
    /// Takes the next piece; fails at the first byte after which the text cannot be UTF-8 any more.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.push(byte)?;
        }
        match str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
            Err(error) => {
                // At most three bytes: the beginning of a sequence that is right so far.
                let tail = &piece[error.valid_up_to()..];
                self.partial[..tail.len()].copy_from_slice(tail);
                self.len = tail.len();
                Ok(())
            }
        }
    }

    /// Whether the text may end here, which is not inside a sequence.
    pub(crate) fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.len == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Adds one byte to the sequence that was cut off. A sequence of four bytes is whole or wrong, so it always fits.
    fn push(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        self.partial[self.len] = byte;
        self.len += 1;
        match str::from_utf8(&self.partial[..self.len]) {
            Ok(_) => {
                self.len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), InvalidUtf8> {
        let mut validator = Utf8Validator::default();
        for piece in pieces {
            validator.feed(piece)?;
        }
        validator.finish()
    }

    #[test]
    fn fails_at_the_byte_that_is_wrong() {
        let mut validator = Utf8Validator::default();
        // U+D800 in UTF-8 form: the second byte already cannot be.
        validator.feed(&[0xED]).unwrap();
        assert_eq!(validator.feed(&[0xA0]), Err(InvalidUtf8));
        // Above U+10FFFF, and an overlong form.
        assert_eq!(check([&[0xF4][..], &[0x90]]), Err(InvalidUtf8));
        assert_eq!(check([&[0xC0][..]]), Err(InvalidUtf8));
    }

    #[test]
    fn a_cut_sequence_is_not_an_end() {
        assert_eq!(check([&[0xF0, 0x9F, 0x90][..]]), Err(InvalidUtf8));
        assert_eq!(check([&[0xF0][..], &[0x9F], &[0x90], &[0xA2]]), Ok(()));
        assert_eq!(check([]), Ok(()));
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(
            bytes in prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes)],
            size in 1..9_usize,
        ) {
            prop_assert_eq!(check(bytes.chunks(size)).is_ok(), str::from_utf8(&bytes).is_ok());
        }
    }
}
