//! A range of IPv4 addresses in CIDR form.
//!
//! The network's implementations, the address allocator of Services and the node's flags speak of ranges; the standard
//! library has addresses only. IPv6 is absent on purpose until a network implementation has it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of IPv4 addresses: a base whose host bits are zero, and a prefix of 0 to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Range {
    base: Ipv4Addr,
    prefix_bits: u8,
}

/// Why a text or a pair is no range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// The text is not `a.b.c.d/n`.
    #[error("\"{0}\" is not an IPv4 range; expected a.b.c.d/n with n from 0 to 32")]
    Syntax(String),
    /// Bits after the prefix are set.
    #[error("{base}/{prefix_bits} has bits set after its prefix")]
    HostBits {
        /// The address that was given.
        base: Ipv4Addr,
        /// The prefix that was given.
        prefix_bits: u8,
    },
}

impl Ipv4Range {
    /// The range of `prefix_bits` that starts at `base`.
    pub fn new(base: Ipv4Addr, prefix_bits: u8) -> Result<Self, RangeError> {
        if prefix_bits > 32 {
            return Err(RangeError::Syntax(format!("{base}/{prefix_bits}")));
        }
        if u32::from(base) & !mask(prefix_bits) != 0 {
            return Err(RangeError::HostBits { base, prefix_bits });
        }
        Ok(Self { base, prefix_bits })
    }

    /// The first address.
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// How many leading bits are fixed: 0 to 32.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// How many addresses it holds: 1 to 2^32.
    pub fn size(&self) -> u64 {
        1u64 << (32 - u32::from(self.prefix_bits))
    }

    /// Whether `ip` is inside.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & mask(self.prefix_bits) == u32::from(self.base)
    }

    /// The address at `offset` from the base, if it is inside.
    pub fn nth(&self, offset: u32) -> Option<Ipv4Addr> {
        let inside = u64::from(offset) < self.size();
        inside.then(|| Ipv4Addr::from(u32::from(self.base) + offset))
    }
}

fn mask(prefix_bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0)
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_bits)
    }
}

impl FromStr for Ipv4Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let base = base.parse().map_err(|_| syntax())?;
        let prefix = prefix.parse().map_err(|_| syntax())?;
        Self::new(base, prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_prints_as_it_was_read_and_knows_its_members() {
        let range: Ipv4Range = "127.9.128.0/17".parse().unwrap();
        assert_eq!(range.to_string(), "127.9.128.0/17");
        assert_eq!(range.size(), 32_768);
        assert!(range.contains(Ipv4Addr::new(127, 9, 255, 255)));
        assert!(!range.contains(Ipv4Addr::new(127, 9, 127, 255)));
        assert_eq!(range.nth(1), Some(Ipv4Addr::new(127, 9, 128, 1)));
        assert_eq!(range.nth(32_768), None);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3.4/x", "1.2.3/8", "10.0.0.1/24"] {
            assert!(text.parse::<Ipv4Range>().is_err(), "{text}");
        }
        assert_eq!("0.0.0.0/0".parse::<Ipv4Range>().unwrap().size(), 1 << 32);
    }
}
