//! Which part of an address space belongs to which cluster of this machine.
//!
//! A slice belongs to one cluster at a time. The claim is an abstract unix socket: its scope is the network namespace, as
//! that of the addresses is; it needs no folder that all users can write; and the kernel drops it when the process dies,
//! however it dies. The number is remembered by the cluster, so it keeps its addresses unless another took the slice meanwhile.

use std::io;
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use super::Error;

/// A slice that is held as long as the value lives.
pub(super) struct Claim {
    /// The number of the slice.
    pub(super) slice: u8,
    _socket: UnixListener,
}

/// Takes the remembered slice of `a.N.0.0/16`, else a free one. `usable` refuses a slice that others use in their own way.
pub(super) fn claim(
    first_octet: u8,
    slices: RangeInclusive<u8>,
    remembered: Option<u8>,
    data_dir: &Path,
    usable: impl Fn(u8) -> io::Result<()>,
) -> Result<Claim, Error> {
    let remembered = remembered.filter(|slice| slices.contains(slice));
    let first = remembered.unwrap_or_else(|| preferred(data_dir, &slices));
    let mut tried = 0;
    for slice in (first..=*slices.end()).chain(*slices.start()..first) {
        tried += 1;
        match claim_one(first_octet, slice, &usable) {
            Ok(claim) => {
                if remembered.is_some_and(|old| old != slice) {
                    tracing::warn!(
                        from = remembered,
                        to = slice,
                        "the address slice is taken; pods get new addresses"
                    );
                }
                return Ok(claim);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => {
                let doing = format!("claim {first_octet}.{slice}.0.0/16");
                return Err(Error::Kernel { doing, source });
            }
        }
    }
    Err(Error::NoFreeSlice { first_octet, tried })
}

fn claim_one(first_octet: u8, slice: u8, usable: &impl Fn(u8) -> io::Result<()>) -> io::Result<Claim> {
    let name = format!("slipway/network/{first_octet}.{slice}");
    let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    usable(slice)?;
    Ok(Claim { slice, _socket: socket })
}

/// Different folders start at different slices, so that clusters which take turns seldom meet.
fn preferred(data_dir: &Path, slices: &RangeInclusive<u8>) -> u8 {
    let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let count = u64::from(slices.end() - slices.start()) + 1;
    slices.start() + u8::try_from(hash % count).unwrap_or(0)
}
