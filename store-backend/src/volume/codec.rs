//! Integers and octet strings in journal records and transfer items: little-endian, strings with a u32 length before.

use bytes::Bytes;

/// The bytes end too early, go on too long, or hold a value that no writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a valid {what}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
}

/// Appends fields to a buffer.
pub(super) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_i64(&mut self, value: i64);
    fn put_fixed(&mut self, bytes: &[u8]);
    fn put_string(&mut self, bytes: &[u8]);
    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).expect("counts are limited far below 2^32"));
    }
    fn put_u16s(&mut self, values: &[u16]) {
        self.put_count(values.len());
        values
            .iter()
            .for_each(|value| self.put_fixed(&value.to_le_bytes()));
    }
    fn put_strings(&mut self, strings: &[String]) {
        self.put_count(strings.len());
        strings
            .iter()
            .for_each(|string| self.put_string(string.as_bytes()));
    }
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_fixed(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn put_string(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.extend_from_slice(bytes);
    }
}

/// Takes fields off the front of shared bytes; strings share them.
pub(super) struct Take {
    rest: Bytes,
    what: &'static str,
    is_without_body: bool,
}

impl Take {
    pub(super) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self {
            rest: bytes,
            what,
            is_without_body: false,
        }
    }

    /// Of something whose body, if it has one, is not there.
    pub(super) fn without_body(bytes: Bytes, what: &'static str) -> Self {
        Self {
            is_without_body: true,
            ..Self::new(bytes, what)
        }
    }

    pub(super) fn is_without_body(&self) -> bool {
        self.is_without_body
    }

    pub(super) fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if self.rest.len() < count {
            return Err(self.malformed());
        }
        Ok(self.rest.split_to(count))
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes(N)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.fixed().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(i64::from_le_bytes)
    }

    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let count = self.u32()? as usize;
        self.bytes(count)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.string()?.to_vec()).map_err(|_| self.malformed())
    }

    /// A count of things that take at least `size_min` octets each: a wrong one must not reserve memory.
    pub(super) fn count(&mut self, size_min: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count.saturating_mul(size_min) > self.rest.len() {
            return Err(self.malformed());
        }
        Ok(count)
    }

    pub(super) fn list<T>(
        &mut self,
        size_min: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.count(size_min)?;
        (0..count).map(|_| one(self)).collect()
    }

    pub(super) fn u16s(&mut self) -> Result<Vec<u16>, Malformed> {
        self.list(2, |take| take.fixed().map(u16::from_le_bytes))
    }

    /// What is left, all of it.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }
}
