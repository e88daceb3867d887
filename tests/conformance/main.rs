//! The rules of HTTP/1.1 for a proxy, as data: see `README.md`.
#![expect(
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test panics to fail, and its origins are threads"
)]

mod case;
mod origin;
mod proxies;
mod run;
mod scorecard;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Case, Level};
use origin::Origin;
use proxies::Kind;
use run::{Pieces, run};
use scorecard::Column;

/// Proxies of a kind that run side by side, each with an origin of its own.
const LANES: usize = 4;

/// Requests no longer than this are cut at every point.
const CUT_EVERYWHERE_BYTES: usize = 400;

/// Runs every job on some lane; returns the problems by the job's position.
fn run_all(kind: Kind, jobs: &[(&Case, Pieces)], strict: bool) -> BTreeMap<usize, Vec<String>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let origin = Origin::start();
                let proxy = kind.start(origin.address);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((case, pieces)) = jobs.get(index) else { break };
                    let (_, problems) =
                        run(case, proxy.address, &origin, *pieces, strict, kind.patience());
                    if !problems.is_empty() {
                        found.lock().unwrap().insert(index, problems);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[track_caller]
fn expect_all(jobs: &[(&Case, Pieces)]) {
    let problems = run_all(Kind::Gateway, jobs, true);
    let mut text = String::new();
    for (index, problems) in &problems {
        let (case, pieces) = jobs[*index];
        let request = String::from_utf8_lossy(&case.request);
        text += &format!("{}/{} ({pieces:?}) {request:?}\n", case.theme, case.name);
        problems.iter().for_each(|problem| text += &format!("    {problem}\n"));
    }
    assert!(problems.is_empty(), "{} of {} failed:\n{text}", problems.len(), jobs.len());
}

#[test]
fn every_case() {
    let cases = case::load();
    let jobs: Vec<_> = cases.iter().map(|case| (case, Pieces::Whole)).collect();
    expect_all(&jobs);
}

#[test]
fn every_case_byte_by_byte() {
    let cases = case::load();
    let short = cases.iter().filter(|case| case.request.len() <= CUT_EVERYWHERE_BYTES);
    let jobs: Vec<_> = short.map(|case| (case, Pieces::Single)).collect();
    expect_all(&jobs);
}

#[test]
fn every_case_cut_anywhere() {
    let cases = case::load();
    let mut jobs = Vec::new();
    for case in &cases {
        let len = case.request.len();
        // In a long one nothing happens in the middle.
        let inner = len.saturating_sub(CUT_EVERYWHERE_BYTES / 2).max(CUT_EVERYWHERE_BYTES / 2);
        // What ends by a deadline does so however it is cut.
        let slow = case.ours.iter().flatten().any(|answer| *answer == case::Answer::Status(408));
        let cuts = (1..len).filter(|cut| !slow && !(CUT_EVERYWHERE_BYTES / 2..inner).contains(cut));
        jobs.extend(cuts.map(|cut| (case, Pieces::CutAt(cut))));
    }
    expect_all(&jobs);
}

/// Lines of the card that may differ from run to run: a peer's case, and the sums it is in, each as it
/// is and as it was.
const LINES_UNSTEADY_MAX: usize = 16;

/// Writes the scorecard, or with `CONFORMANCE=check` compares it: `cargo xtask conformance`.
#[test]
#[ignore = "runs other proxies: cargo xtask conformance"]
fn scorecard() {
    let cases = case::load();
    let jobs: Vec<_> = cases.iter().map(|case| (case, Pieces::Whole)).collect();
    let mut columns = Vec::new();
    for kind in proxies::ALL {
        let Some(version) = kind.version() else {
            assert!(std::env::var_os("CI").is_none(), "{} is not installed", kind.name());
            println!("skipped: {} is not installed; the card is left as it is", kind.name());
            return;
        };
        let problems = run_all(kind, &jobs, false);
        let passed = cases
            .iter()
            .enumerate()
            .map(|(index, case)| (case.name.clone(), !problems.contains_key(&index)));
        columns.push(Column { kind, version, passed: passed.collect() });
    }
    let card = scorecard::render(&cases, &columns);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/SCORECARD.md");
    let all: Vec<&Case> = cases.iter().collect();
    let (ours, peers) = columns.split_first().unwrap();
    assert_eq!(ours.kind, Kind::Gateway);
    assert!(ours.failed(&cases, Level::Must).is_empty(), "{:?}", ours.failed(&cases, Level::Must));
    assert!(peers.iter().all(|peer| peer.count(&all) < ours.count(&all)));
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if std::env::var("CONFORMANCE").as_deref() == Ok("check") {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let differing = lines(&committed).symmetric_difference(&lines(&card)).count();
        let total = format!("| all | {} | {} |", all.len(), ours.count(&all));
        // Another release of a peer may do better or worse; that is not this project's doing. Nor is
        // it when a peer does a case now and then, depending on the machine.
        let same_peers = peers.iter().all(|peer| committed.contains(&peer.version));
        assert!(
            committed.contains(&total) && (!same_peers || differing <= LINES_UNSTEADY_MAX),
            "the committed card differs; run `cargo xtask conformance`\n{card}"
        );
        return;
    }
    std::fs::write(path, &card).unwrap();
    println!("{card}");
}
