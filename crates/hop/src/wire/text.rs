//! Numbers and texts, in and out.

use bytes::Bytes;

use crate::Fault;

/// A length as it is written. What is longer than that fits no frame, which is found out when the frame is made.
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_length(out, text.len());
    out.extend_from_slice(text);
}

/// Takes a payload apart. Nothing is allocated before it is known to be there.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    pub(crate) fn rest(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn address<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.array()
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::broken("a text is not UTF-8"))
    }

    /// Bytes that share the memory of the payload.
    pub(crate) fn shared(&mut self, payload: &Bytes) -> Result<Bytes, Fault> {
        self.bytes().map(|bytes| payload.slice_ref(bytes))
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault::broken("a payload is longer than what it holds"))
        }
    }
}

fn short() -> Fault {
    Fault::broken("a payload is shorter than what it should hold")
}
