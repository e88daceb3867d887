//! What the XDP program and userspace share.
#![no_std]
