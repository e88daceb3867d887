//! The gateway as a library, so that tests and fuzzers reach its parts. `main.rs` only calls it.
//!
//! The modules stand in dependency order: each may use those above it and none below
//! (`cargo xtask tidy` checks that). ARCHITECTURE.md walks one request through them.

pub mod sys;

pub mod http;
pub mod routing;
pub mod tls;

pub mod document;

pub mod telemetry;

pub mod net;

pub mod exchange;
pub mod policy;
pub mod upstream;

pub mod action;

pub mod admission;
pub mod xdp;

pub mod config;
pub mod explain;

pub mod downstream;
pub mod worker;

pub mod control;

pub mod doctor;
pub mod remote;
pub mod top;

pub mod cli;
