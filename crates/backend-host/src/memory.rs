//! The memory file of a lane, as its two sides see it.
//!
//! The server makes it and never maps it: it reads and writes by `pread` and `pwrite`, because memory that foreign code
//! can write at any moment is no `&[u8]`, and a mapping could be turned into `SIGBUS`. A worker of ours maps it to read,
//! so that engines take inputs where they lie.
//!
//! Not here: what lies where (`protocol`).

#![allow(unsafe_code)] // A mapping is made and ended here; each block says why it is sound.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// What a lane keeps of its memory between calls; the rest goes back to the system.
const KEPT_BYTES: u64 = 4 << 20;

/// Makes an empty memory file that can only grow.
pub(crate) fn create() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("slipway-lane", flags)?);
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK)?;
    Ok(file)
}

/// Gives back the memory of a large call; `used` bytes were written. The file stays as long as it is.
pub(crate) fn release(file: &File, used: u64) {
    if used > KEPT_BYTES {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(file, punch, KEPT_BYTES, used - KEPT_BYTES) {
            tracing::warn!(%error, "cannot give back a worker's memory");
        }
    }
}

/// A mapping of the file's first bytes, to read. For the worker's side.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *const u8,
    length: usize,
}

// SAFETY: the mapping is only read through this value, and memory may be read from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing in it changes after it is made.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps everything that the file has now; nothing where it is empty.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(Self { start: std::ptr::dangling(), length });
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use. The file is
        // sealed against shrinking, so all of its pages stay behind the mapping.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast_const().cast(), length })
    }

    /// The bytes. The protocol lets the other side write them only while this side does not work on a call, and
    /// whoever calls this lets go of them before it answers.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `length` are a mapping that lives as long as `self` (or no bytes at all), readable, and
        // by the protocol unchanged while the slice is in use.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping was made by `of` with this length, and no slice of it outlives `self`.
            unsafe { libc::munmap(self.start.cast_mut().cast(), self.length) };
        }
    }
}

/// Reads bytes of the file into a new buffer. `length` is bounded by the caller.
pub(crate) fn read(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_is_mapped_and_cannot_shrink() {
        let file = create().expect("a memory file");
        assert_eq!(Mapping::of(&file).expect("mapped").bytes(), b"");
        file.write_all_at(b"tensor", 64).expect("written");
        let mapping = Mapping::of(&file).expect("mapped");
        assert_eq!(&mapping.bytes()[64..], b"tensor");
        file.set_len(1 << 20).expect("longer");
        assert_eq!(mapping.bytes().len(), 70, "a mapping stays what it was");
        file.set_len(10).expect_err("shorter");
    }

    #[test]
    fn a_large_calls_memory_is_given_back() {
        use std::os::unix::fs::MetadataExt;
        let file = create().expect("a memory file");
        let large = vec![1_u8; 16 << 20];
        file.write_all_at(&large, 0).expect("written");
        assert!(file.metadata().expect("stat").blocks() * 512 >= 16 << 20);
        release(&file, 16 << 20);
        let metadata = file.metadata().expect("stat");
        assert!(metadata.blocks() * 512 <= KEPT_BYTES, "{} blocks", metadata.blocks());
        assert_eq!(metadata.len(), 16 << 20);
    }
}
