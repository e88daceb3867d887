//! The kernel's log records arrive as tracing's, if and only if somebody listens at debug level.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions};
use gateway_ebpf::abi;
use tracing::Level;

use crate::packets::syn_from_ipv4;
use crate::{load, settings};

struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn listen(level: Level) -> (tracing::subscriber::DefaultGuard, Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(move || Lines(sender.clone()))
        .finish();
    (tracing::subscriber::set_default(subscriber), receiver)
}

#[test]
fn a_drop_is_told_at_debug_level() {
    let (_guard, lines) = listen(Level::DEBUG);
    if load(&settings(1, true)).is_none() {
        return;
    }
    // No interface: the program is only fed by hand.
    let mut xdp = settings(1, true).attach().expect("load");
    let logs = xdp.take_logs().expect("logs are wanted");
    let frame = syn_from_ipv4([192, 0, 2, 99]);
    let options = TestRunOptions { data_in: Some(&frame), repeat: 3, ..Default::default() };
    xdp.program().entry_point(abi::PROGRAM).expect("entry point").test_run(options).expect("run");

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    let mut got = String::new();
    runtime.block_on(async {
        tokio::select! {
            end = logs.forward() => panic!("forwarding ended: {end:?}"),
            () = async {
                while !got.contains("over the limit") {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    got.extend(lines.try_iter());
                }
            } => {}
        }
    });
    assert!(got.contains("DEBUG gateway::xdp::kernel: xdp: over the limit: "), "{got}");
    assert!(got.contains("192.0.2.99"), "{got}");
}

#[test]
fn otherwise_there_are_no_logs() {
    let (_guard, _lines) = listen(Level::INFO);
    if load(&settings(1, true)).is_none() {
        return;
    }
    let mut xdp = settings(1, true).attach().expect("load");
    assert!(xdp.take_logs().is_none());
}
