//! Sockets, buffers and deadlines: the only place that names the runtime, so that it can be
//! exchanged.

pub mod buffer;
pub mod deadline;
pub mod listener;
pub mod pace;
pub mod proxy_protocol;
pub mod rt;
pub mod secure;
pub mod stream;

pub use buffer::{Buffer, Buffers};
pub use deadline::{Deadline, Deadlines, Timer};
pub use listener::Listener;
pub use pace::Pace;
pub use stream::{Reader, Stream, Writer};
