//! Loops compiled for the widest vectors that the CPU has.
//!
//! They are plain Rust, whose multiplications and additions are never fused: every width gives the same bits.
//!
//! Not here: kernels written by hand (`gemm`, `gemm8`).

/// Defines a function that runs a loop compiled for this CPU.
macro_rules! widest {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $T:ty),*) $(-> $R:ty)? $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $T),*) $(-> $R)? {
            #[inline(always)]
            fn all($($arg: $T),*) $(-> $R)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($arg: $T),*) $(-> $R)? {
                    all($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $T),*) $(-> $R)? {
                    all($($arg),*)
                }
                if is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                {
                    // SAFETY: the CPU has what the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has what the function is compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            all($($arg),*)
        }
    };
}
pub(super) use widest;
