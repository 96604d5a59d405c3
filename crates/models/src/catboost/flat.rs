//! FlatBuffers, as far as a `.cbm` file needs them: tables, vectors, texts; every offset is checked.
//!
//! Not here: what the fields mean (`cbm`).

use crate::error::{LoadError, Result};

/// A buffer that begins somewhere in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flat<'b> {
    bytes: &'b [u8],
    /// Where the buffer begins in the file, for messages.
    origin: usize,
}

/// A table of a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'b> {
    flat: Flat<'b>,
    at: usize,
    fields: usize,
    fields_len: usize,
}

impl<'b> Flat<'b> {
    pub(super) fn new(bytes: &'b [u8], origin: usize) -> Self {
        Self { bytes, origin }
    }

    fn error(&self, at: usize, what: &str) -> LoadError {
        LoadError::malformed("CatBoost cbm", self.origin + at, what)
    }

    fn take(&self, at: usize, len: usize) -> Result<&'b [u8]> {
        let end = at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.error(at, "an offset beyond the buffer"))?;
        Ok(&self.bytes[at..end])
    }

    fn u16(&self, at: usize) -> Result<usize> {
        let bytes = self.take(at, 2)?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn u32(&self, at: usize) -> Result<usize> {
        let bytes = self.take(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    }

    /// Where the offset at `at` leads.
    fn follow(&self, at: usize) -> Result<usize> {
        Ok(at + self.u32(at)?)
    }

    pub(super) fn root(self) -> Result<Table<'b>> {
        self.table(self.follow(0)?)
    }

    fn table(self, at: usize) -> Result<Table<'b>> {
        let back = self.u32(at)? as u32 as i32;
        let fields = usize::try_from(at as i64 - i64::from(back));
        let fields = fields.map_err(|_| self.error(at, "a table whose fields lie before the buffer"))?;
        let len = self.u16(fields)?;
        self.take(fields, len)?;
        Ok(Table { flat: self, at, fields, fields_len: len })
    }
}

impl<'b> Table<'b> {
    /// Where a field is; `None` where it has its default.
    fn field(&self, slot: usize) -> Result<Option<usize>> {
        let entry = 4 + 2 * slot;
        if entry + 2 > self.fields_len {
            return Ok(None);
        }
        let offset = self.flat.u16(self.fields + entry)?;
        Ok((offset > 0).then(|| self.at + offset))
    }

    fn scalar<const N: usize>(&self, slot: usize) -> Result<Option<[u8; N]>> {
        let Some(at) = self.field(slot)? else { return Ok(None) };
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.flat.take(at, N)?);
        Ok(Some(bytes))
    }

    pub(super) fn byte(&self, slot: usize) -> Result<u8> {
        Ok(self.scalar::<1>(slot)?.map_or(0, |bytes| bytes[0]))
    }

    pub(super) fn int(&self, slot: usize, default: i32) -> Result<i32> {
        Ok(self.scalar(slot)?.map_or(default, i32::from_le_bytes))
    }

    pub(super) fn float(&self, slot: usize, default: f32) -> Result<f32> {
        Ok(self.scalar(slot)?.map_or(default, f32::from_le_bytes))
    }

    pub(super) fn double(&self, slot: usize, default: f64) -> Result<f64> {
        Ok(self.scalar(slot)?.map_or(default, f64::from_le_bytes))
    }

    /// A table within.
    pub(super) fn inner(&self, slot: usize) -> Result<Option<Table<'b>>> {
        let Some(at) = self.field(slot)? else { return Ok(None) };
        self.flat.table(self.flat.follow(at)?).map(Some)
    }

    /// The bytes of a vector of elements of `size` bytes.
    fn vector(&self, slot: usize, size: usize) -> Result<(usize, &'b [u8])> {
        let Some(at) = self.field(slot)? else { return Ok((0, &[])) };
        let start = self.flat.follow(at)?;
        let len = self.flat.u32(start)?;
        Ok((start + 4, self.flat.take(start + 4, len.saturating_mul(size))?))
    }

    pub(super) fn bytes(&self, slot: usize) -> Result<&'b [u8]> {
        Ok(self.vector(slot, 1)?.1)
    }

    pub(super) fn text(&self, slot: usize) -> Result<&'b str> {
        let (at, bytes) = self.vector(slot, 1)?;
        std::str::from_utf8(bytes).map_err(|_| self.flat.error(at, "a text that is not UTF-8"))
    }

    pub(super) fn elements<const N: usize, T>(
        &self,
        slot: usize,
        of: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let (_, bytes) = self.vector(slot, N)?;
        let (whole, _) = bytes.as_chunks::<N>();
        Ok(whole.iter().map(|bytes| of(*bytes)).collect())
    }

    pub(super) fn ints(&self, slot: usize) -> Result<Vec<i32>> {
        self.elements(slot, i32::from_le_bytes)
    }

    pub(super) fn floats(&self, slot: usize) -> Result<Vec<f32>> {
        self.elements(slot, f32::from_le_bytes)
    }

    pub(super) fn doubles(&self, slot: usize) -> Result<Vec<f64>> {
        self.elements(slot, f64::from_le_bytes)
    }

    /// Tables of a vector.
    pub(super) fn tables(&self, slot: usize) -> Result<Vec<Table<'b>>> {
        let (start, bytes) = self.vector(slot, 4)?;
        (0..bytes.len() / 4).map(|index| self.flat.table(self.flat.follow(start + 4 * index)?)).collect()
    }

    /// Texts of a vector.
    pub(super) fn texts(&self, slot: usize) -> Result<Vec<&'b str>> {
        let (start, bytes) = self.vector(slot, 4)?;
        let one = |index: usize| {
            let at = self.flat.follow(start + 4 * index)?;
            let bytes = self.flat.take(at + 4, self.flat.u32(at)?)?;
            std::str::from_utf8(bytes).map_err(|_| self.flat.error(at, "a text that is not UTF-8"))
        };
        (0..bytes.len() / 4).map(one).collect()
    }
}
