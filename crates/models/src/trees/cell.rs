//! The types of columns' values: `f32` (XGBoost, CatBoost, scikit-learn) and `f64` (LightGBM, histogram boosting).
//!
//! Not here: trees.

use std::cell::Cell as Slot;

/// Keeps numbers that are stored in a threshold's place from being denormal floats, which some processors
/// compare slowly.
const STORED: u32 = 1 << 30;
/// Numbers that [`Cell::of_index`] can hold.
pub(crate) const INDEX_MAX: u32 = STORED - 1;

/// The type of a column's values.
pub(crate) trait Cell: Copy + PartialOrd + Default + Send + Sync + 'static {
    /// What is missing.
    const MISSING: Self;
    /// Nothing is greater.
    const INFINITY: Self;

    /// A value that holds an integer up to [`INDEX_MAX`].
    fn of_index(index: u32) -> Self;
    /// The integer of [`Cell::of_index`].
    fn index(self) -> u32;
    /// The category that a value means; `None` for negative, missing and huge ones.
    fn category(self) -> Option<u32>;
    /// Whether it is missing.
    fn is_missing(self) -> bool;
    /// Whether it is zero.
    fn is_zero(self) -> bool;
    /// Nothing up to it is a category.
    const LOW: f64;
    /// The value in 64 bits.
    fn wide(self) -> f64;
    /// Lends memory that this thread keeps from call to call.
    fn with_scratch<T>(then: impl FnOnce(&mut Vec<Self>) -> T) -> T;
}

macro_rules! cell {
    ($float:ty, $bits:ty, $low:expr, $scratch:ident) => {
        thread_local! {
            static $scratch: Slot<Vec<$float>> = const { Slot::new(Vec::new()) };
        }

        impl Cell for $float {
            const MISSING: Self = <$float>::NAN;
            const INFINITY: Self = <$float>::INFINITY;

            fn of_index(index: u32) -> Self {
                debug_assert!(index <= INDEX_MAX);
                let high = <$bits>::BITS - 32;
                <$float>::from_bits(<$bits>::from(index) | <$bits>::from(STORED) << high)
            }

            fn index(self) -> u32 {
                self.to_bits() as u32 & INDEX_MAX
            }

            fn category(self) -> Option<u32> {
                // Both libraries cut the fraction off; beyond 2^31 their conversion is negative.
                (self > $low && self < 2_147_483_648.0).then_some(self as u32)
            }

            fn is_missing(self) -> bool {
                self.is_nan()
            }

            fn is_zero(self) -> bool {
                self == 0.0
            }

            const LOW: f64 = $low as f64;

            fn wide(self) -> f64 {
                self as f64
            }

            fn with_scratch<T>(then: impl FnOnce(&mut Vec<Self>) -> T) -> T {
                let mut scratch = $scratch.take();
                let answer = then(&mut scratch);
                if scratch.capacity() <= super::CELLS_KEPT_MAX {
                    $scratch.set(scratch);
                }
                answer
            }
        }
    };
}

// XGBoost (f32) takes no negative number for a category, LightGBM (f64) those above -1 for the first.
cell!(f32, u32, -f32::MIN_POSITIVE, SCRATCH_32);
cell!(f64, u64, -1.0, SCRATCH_64);
