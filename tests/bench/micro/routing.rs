//! The table of routes, whose look-up must cost the same however many there are.

use divan::{Bencher, black_box};

use gateway::routing::{Entry, Table};

const SIZES: [usize; 3] = [10, 1_000, 100_000];

/// Every tenth host a wildcard, every third path exact.
fn entries(count: usize) -> Vec<Entry<usize>> {
    let entry = |index: usize| {
        let host = match index % 10 {
            0 => format!("*.tenant{index}.example.com"),
            _ => format!("tenant{}.example.com", index / 20 * 20 + 1),
        };
        let path = match index % 3 {
            0 => format!("/v{}/items", index % 7),
            _ => format!("/v{}/service{index}/*", index % 7),
        };
        let (host, path) = (host.parse().unwrap(), path.parse().unwrap());
        Entry { priority: 0, host, path, conditions: 0, target: index }
    };
    (0..count).map(entry).collect()
}

fn lookup(bencher: Bencher<'_, '_>, count: usize, host: &str, path: &str, found: bool) {
    let table = Table::new(entries(count));
    assert_eq!(table.lookup(Some(host.as_bytes()), path.as_bytes(), |_| true).is_some(), found);
    bencher
        .bench_local(|| table.lookup(Some(black_box(host.as_bytes())), path.as_bytes(), |_| true));
}

#[divan::bench(args = SIZES)]
fn exact_host(bencher: Bencher<'_, '_>, count: usize) {
    lookup(bencher, count, "tenant1.example.com", "/v4/service4/a/b/c/d", true);
}

#[divan::bench(args = SIZES)]
fn wildcard_host(bencher: Bencher<'_, '_>, count: usize) {
    lookup(bencher, count, "a.b.tenant0.example.com", "/v0/items", true);
}

#[divan::bench(args = SIZES)]
fn no_route(bencher: Bencher<'_, '_>, count: usize) {
    lookup(bencher, count, "www.a.b.c.example.org", "/a/b/c/d/e", false);
}

#[divan::bench(args = [10_000], sample_count = 10)]
fn build(bencher: Bencher<'_, '_>, count: usize) {
    bencher.with_inputs(|| entries(count)).bench_local_values(Table::new);
}
