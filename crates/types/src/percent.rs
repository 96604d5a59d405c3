//! Shares of a whole, and Kubernetes' "a number or a percentage".
//!
//! `Percent` is 0 to 100 by construction, as traffic shares are. `IntOrPercent` follows the rollout fields (`maxSurge`,
//! `maxUnavailable`), where a percentage may be over 100 and the field says how to round.

use std::fmt;
use std::str::FromStr;

/// A share from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The whole.
    pub const FULL: Self = Self(100);

    /// `None` above 100.
    pub fn new(value: u8) -> Option<Self> {
        (value <= 100).then_some(Self(value))
    }

    /// 0 to 100.
    pub fn value(self) -> u8 {
        self.0
    }

    /// What is left of the whole.
    pub fn rest(self) -> Self {
        Self(100 - self.0)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A count, or a share of a count that is known later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// An absolute count.
    Int(i32),
    /// A share in percent; may be over 100.
    Percent(u32),
}

/// The text is neither an integer nor a percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither an integer nor a percentage like \"25%\"")]
pub struct IntOrPercentError(pub String);

/// Which way a share of a count is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Towards more, as `maxSurge` is.
    Up,
    /// Towards less, as `maxUnavailable` is.
    Down,
}

impl IntOrPercent {
    /// The count it stands for when the whole is `total`.
    pub fn of(self, total: i32, round: Round) -> i32 {
        match self {
            Self::Int(count) => count,
            Self::Percent(percent) => {
                let product = i64::from(total) * i64::from(percent);
                let rest_up = i64::from(round == Round::Up && product % 100 != 0);
                i32::try_from(product / 100 + rest_up).unwrap_or(i32::MAX)
            }
        }
    }
}

impl FromStr for IntOrPercent {
    type Err = IntOrPercentError;

    fn from_str(text: &str) -> Result<Self, IntOrPercentError> {
        let bad = || IntOrPercentError(text.to_owned());
        match text.strip_suffix('%') {
            Some(number) => number.parse().map(Self::Percent).map_err(|_| bad()),
            None => text.parse().map(Self::Int).map_err(|_| bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_count_is_rounded_as_its_field_says() {
        let cases = [
            ("25%", 10, Round::Up, 3),
            ("25%", 10, Round::Down, 2),
            ("100%", 7, Round::Down, 7),
            ("150%", 2, Round::Up, 3),
            ("0%", 5, Round::Up, 0),
            ("4", 100, Round::Down, 4),
        ];
        for (text, total, round, want) in cases {
            assert_eq!(text.parse::<IntOrPercent>().unwrap().of(total, round), want, "{text} of {total}");
        }
        for text in ["", "%", "-1%", "x", "1.5%"] {
            assert!(text.parse::<IntOrPercent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_percent_is_never_over_a_hundred() {
        assert_eq!(Percent::new(101), None);
        assert_eq!(Percent::new(30).unwrap().rest().to_string(), "70%");
    }
}
