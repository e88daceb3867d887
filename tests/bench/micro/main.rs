//! The parts of a request by themselves: time and allocations for each. `cargo bench --bench micro`.
#![expect(
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench panics to fail, and stands in for control"
)]

mod http;
mod policies;
mod rest;
mod routing;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}
