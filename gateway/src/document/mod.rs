//! What a person wrote: TOML with places, read key by key, so that every mistake is found and not only
//! the first. Knows nothing of what the keys mean.

pub(crate) mod listed;
pub mod problem;
pub mod section;
pub mod units;
pub mod value;
pub mod values;

pub use problem::{Place, Problem};
