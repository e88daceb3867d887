//! Three parsers read the same heads: the gateway's, httparse, which it is built on and is stricter
//! than, and h11, a Python library that shares no line with either. Wherever two disagree, a request
//! could mean one thing to the gateway and another to an origin; so each disagreement needs its rule
//! in `rules.rs`, and each rule a disagreement that nothing else explains.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test panics to fail"
)]

#[path = "../e2e/harness/bytes.rs"]
#[expect(dead_code, reason = "the tests in e2e use the rest")]
mod bytes;
mod generate;
mod h11;
mod head;
mod report;
mod rules;
mod verdict;
mod words;

use report::Report;
use rules::Peer;

/// The same heads in every run, unless GATEWAY_TEST_SEED says otherwise.
const SEED: u64 = 9112;
const HTTPARSE_HEADS: usize = 300_000;
const H11_HEADS: usize = 200_000;

fn seed() -> u64 {
    let given = std::env::var("GATEWAY_TEST_SEED").ok();
    given.map_or(SEED, |text| text.parse().expect("a number"))
}

#[test]
fn httparse() {
    let mut report = Report::new(Peer::Httparse, seed());
    for head in generate::heads(seed()).take(HTTPARSE_HEADS) {
        report.compare(&head, &verdict::of_httparse(&head));
    }
    report.conclude();
}

#[test]
fn h11() {
    let heads: Vec<_> = generate::heads(seed()).take(H11_HEADS).collect();
    let Some(verdicts) = h11::verdicts(&heads) else { return };
    let mut report = Report::new(Peer::H11, seed());
    for (head, verdict) in heads.iter().zip(&verdicts) {
        report.compare(head, verdict);
    }
    report.conclude();
}
