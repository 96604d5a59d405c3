//! Two models side by side: what they answer, and what they are.
//!
//! * [`answers`] asks a model of any format about a table; [`agreement`] compares two sets of answers.
//! * [`diff()`] compares what two models say about themselves.
//!
//! Not here: printing (`bin/slipway`), shadow traffic.

mod agree;
mod answers;
mod differ;

pub use agree::{Agreement, Confusion, Gap, agreement};
pub use answers::{Answers, Numbers, answers, open};
pub use differ::{Change, diff};
