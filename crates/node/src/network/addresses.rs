//! Which pod has which address, remembered in one small file.
//!
//! Both implementations allocate in the same way: round robin over the pod range, so that an address is given out
//! again as late as possible (a client with a stale address meets nobody rather than a stranger). The file is written
//! by rename after every change. It is not synced: after a power cut no pod runs any more, and after a mere kill the kernel
//! still has the write.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use types::net::Ipv4Range;

use super::Error;

/// What the file says. `version` changes when an older binary could misread it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    version: u32,
    /// Which part of the address space the cluster holds (its meaning is the implementation's).
    slice: Option<u8>,
    pods: BTreeMap<String, Ipv4Addr>,
    #[serde(default)]
    last_offset: u32,
}

/// The addresses of one cluster's pods.
pub(super) struct Addresses {
    path: PathBuf,
    range: Ipv4Range,
    /// Offsets below this one are the node's own.
    reserved: u32,
    file: Mutex<File>,
}

/// The slice that the file remembers, if there is a file.
pub(super) fn remembered_slice(path: &Path) -> Result<Option<u8>, Error> {
    Ok(read(path)?.slice)
}

fn read(path: &Path) -> Result<File, Error> {
    let state = |doing, source| Error::State { doing, path: path.to_owned(), source };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(state("read", error)),
    };
    serde_json::from_slice(&bytes).map_err(|error| state("parse", error.into()))
}

impl Addresses {
    /// Opens the file for `slice`. Addresses of another slice, or outside the range, are forgotten: their pods get
    /// new ones.
    pub(super) fn open(
        path: PathBuf,
        slice: Option<u8>,
        range: Ipv4Range,
        reserved: u32,
    ) -> Result<Self, Error> {
        let mut file = read(&path)?;
        file.version = 1;
        file.slice = slice;
        file.pods.retain(|_, ip| range.contains(*ip));
        let addresses = Self { path, range, reserved, file: Mutex::new(file) };
        addresses.write(&addresses.file.lock())?;
        Ok(addresses)
    }

    /// The address of `uid`, a new one if it has none.
    pub(super) fn take(&self, uid: &str) -> Result<Ipv4Addr, Error> {
        let mut file = self.file.lock();
        if let Some(ip) = file.pods.get(uid) {
            return Ok(*ip);
        }
        let used: BTreeSet<Ipv4Addr> = file.pods.values().copied().collect();
        let (offset, ip) = next_free(self.range, self.reserved, file.last_offset, &used)
            .ok_or(Error::RangeFull { range: self.range })?;
        file.last_offset = offset;
        file.pods.insert(uid.to_owned(), ip);
        self.write(&file)?;
        Ok(ip)
    }

    /// The address of `uid`, if it has one.
    pub(super) fn of(&self, uid: &str) -> Option<Ipv4Addr> {
        self.file.lock().pods.get(uid).copied()
    }

    /// Who has an address and is not listed.
    pub(super) fn unlisted(&self, uids: &BTreeSet<String>) -> Vec<String> {
        let file = self.file.lock();
        file.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect()
    }

    /// Forgets `uid`.
    pub(super) fn give_back(&self, uid: &str) -> Result<(), Error> {
        let mut file = self.file.lock();
        if file.pods.remove(uid).is_none() {
            return Ok(());
        }
        self.write(&file)
    }

    /// Forgets every uid that is not listed, and returns those.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        let mut file = self.file.lock();
        let gone: Vec<String> = file.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        if gone.is_empty() {
            return Ok(gone);
        }
        file.pods.retain(|uid, _| uids.contains(uid));
        self.write(&file)?;
        Ok(gone)
    }

    fn write(&self, file: &File) -> Result<(), Error> {
        let state = |source| Error::State { doing: "write", path: self.path.clone(), source };
        let bytes = serde_json::to_vec(file).map_err(|error| state(error.into()))?;
        let temporary = self.path.with_extension("json.new");
        std::fs::write(&temporary, bytes).map_err(state)?;
        std::fs::rename(&temporary, &self.path).map_err(state)
    }
}

/// The next offset after `last` whose address is free; the last address of the range (broadcast) is never given.
fn next_free(
    range: Ipv4Range,
    reserved: u32,
    last: u32,
    used: &BTreeSet<Ipv4Addr>,
) -> Option<(u32, Ipv4Addr)> {
    let end = u32::try_from(range.size() - 1).ok()?;
    let span = end.checked_sub(reserved)?;
    let start = if last < reserved { reserved } else { last + 1 };
    (0..span).find_map(|step| {
        let offset = reserved + (start - reserved + step) % span;
        let ip = range.nth(offset)?;
        (!used.contains(&ip)).then_some((offset, ip))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_reused_as_late_as_possible() {
        let range: Ipv4Range = "10.0.0.0/29".parse().unwrap();
        let ip = |n| Ipv4Addr::new(10, 0, 0, n);
        let free = |last, used: &[u8]| next_free(range, 2, last, &used.iter().map(|n| ip(*n)).collect());
        assert_eq!(free(0, &[]), Some((2, ip(2))));
        assert_eq!(free(2, &[]), Some((3, ip(3))));
        assert_eq!(free(6, &[]), Some((2, ip(2))), "wraps before the broadcast address");
        assert_eq!(free(3, &[4, 5]), Some((6, ip(6))));
        assert_eq!(free(3, &[2, 3, 4, 5, 6]), None);
    }

    #[test]
    fn an_address_survives_reopening_and_another_slice_forgets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.json");
        let range = "127.20.0.0/17".parse().unwrap();
        let first = Addresses::open(path.clone(), Some(20), range, 256).unwrap();
        let ip = first.take("a").unwrap();
        assert_eq!(first.take("a").unwrap(), ip);
        drop(first);
        let again = Addresses::open(path.clone(), Some(20), range, 256).unwrap();
        assert_eq!(again.take("a").unwrap(), ip);
        assert_ne!(again.take("b").unwrap(), ip);
        assert_eq!(again.retain(&BTreeSet::from(["b".to_owned()])).unwrap(), ["a"]);
        assert_eq!(remembered_slice(&path).unwrap(), Some(20));
        let moved = Addresses::open(path, Some(21), "127.21.0.0/17".parse().unwrap(), 256).unwrap();
        assert_eq!(moved.retain(&BTreeSet::new()).unwrap(), Vec::<String>::new());
    }
}
