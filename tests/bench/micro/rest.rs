//! What else every request or connection costs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use divan::{Bencher, black_box};

use gateway::exchange::RequestIds;
use gateway::telemetry::access_log::{AccessLog, Entry, Format, Settings, Writer};
use gateway::telemetry::metrics;
use gateway_ebpf::bucket::{self, Limits, Line, WAYS};

struct Memory([Cell<u64>; WAYS]);

impl Line for Memory {
    fn load(&self, way: usize) -> u64 {
        self.0.get(way).map_or(0, Cell::get)
    }

    fn swap(&self, way: usize, old: u64, new: u64) -> bool {
        self.0.get(way).is_some_and(|cell| cell.replace(new) == old)
    }

    fn add(&self, way: usize, by: u64) -> u64 {
        self.0.get(way).map_or(0, |cell| cell.replace(cell.get().wrapping_add(by)))
    }
}

#[divan::bench]
fn limiter_step(bencher: Bencher<'_, '_>) {
    let memory = Memory([const { Cell::new(0) }; WAYS]);
    let limits = Limits::new(20_000_000, 200);
    let mut now = 1;
    bencher.bench_local(|| {
        now += 1000;
        bucket::admit(&memory, black_box(7), now, limits)
    });
}

#[divan::bench]
fn record_metrics(bencher: Bencher<'_, '_>) {
    let worker = metrics::Worker::new();
    bencher.bench_local(|| {
        worker.requests_in_flight.add(1);
        if let Some(counter) = worker.responses.get(black_box(200)) {
            counter.add(1);
        }
        worker.request_duration.record(black_box(Duration::from_micros(250)));
        worker.downstream_bytes_in.add(100);
        worker.downstream_bytes_out.add(1000);
        worker.requests_in_flight.sub(1);
    });
}

#[divan::bench(args = [Format::Json, Format::Combined])]
fn access_line(bencher: Bencher<'_, '_>, format: Format) {
    let settings = Settings { format, path: Some(PathBuf::from("/dev/null")) };
    let (sender, writer) = Writer::start(format, settings.open().unwrap()).unwrap();
    let mut log = AccessLog::new(sender, Arc::new(metrics::Worker::new()));
    let entry = Entry {
        time: SystemTime::now(),
        client: SocketAddr::from(([203, 0, 113, 195], 50_000)),
        method: b"GET",
        target: b"/shop/items/4711?sort=price&page=2",
        host: b"www.example.com",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0",
        referer: b"https://www.example.com/shop/",
        version_minor: 1,
        status: 200,
        bytes_in: 0,
        bytes_out: 512,
        duration: Duration::from_micros(1234),
        upstream: Some("shop"),
        endpoint: Some(SocketAddr::from(([10, 0, 0, 7], 9000))),
        upstream_duration: Some(Duration::from_micros(1000)),
        identity: "",
        request_id: b"0123456789abcdef0123456789abcdef",
        error: None,
        observed: "",
    };
    bencher.bench_local(|| log.record(black_box(&entry)));
    drop(log);
    writer.finish();
}

#[divan::bench]
fn request_id(bencher: Bencher<'_, '_>) {
    let ids = RequestIds::new().unwrap();
    bencher.bench_local(|| ids.make());
}
