//! The gateway as a client and an origin see it: the built binary, real sockets, no knowledge of
//! its inside. `tests/README.md` says how to run one of these.
#![expect(
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test panics to fail, and the harness is made of threads"
)]

mod harness;

mod answers;
mod bans;
mod bodies;
mod clients;
mod combined;
mod command_line;
mod compose;
mod connections;
mod credentials;
mod doctor;
mod drain;
mod driver;
mod endpoints;
mod examples;
mod explain;
mod faults;
mod forward_auth;
mod forwarding;
mod greedy;
mod health;
mod hygiene;
mod limits;
mod names;
mod operating;
mod passwords;
mod policies;
mod pressure;
mod proxies;
mod random;
mod rejections;
mod reload;
mod routes;
mod splits;
mod statuses;
mod tls;
mod tokens;
mod top;
mod websocket;
