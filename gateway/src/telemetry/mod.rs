//! Numbers and lines about what happened. A leaf: every other module may use it.

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod prometheus;
