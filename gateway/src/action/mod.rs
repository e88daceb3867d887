//! What answers a request once its route is known.

pub mod forward;
mod relay;
mod response;
mod tunnel;
