//! What the XDP program decides, free of BPF, and what it shares with userspace.
//!
//! The program limits new TCP connections per source before the kernel spends anything on them.
//! A packet takes one path: [`packet`] decodes it, [`verdict`] decides, asking [`bucket`] whether
//! its source may open another connection; [`hash`] says where that source's state lies, [`flood`] whether
//! there are too many new sources, [`known`] whether a socket must be looked for, and [`answer`] makes a SYN its own
//! answer. All of it is pure and tested as ordinary Rust; `main.rs` adds the entry points, `tables.rs` the maps,
//! `cookie.rs` the kernel's cookies, `note.rs` what userspace is told, and `frame.rs` the packet.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod answer;
pub mod bucket;
pub mod bytes;
pub mod flood;
pub mod hash;
pub mod known;
pub mod open;
pub mod packet;
pub mod verdict;
