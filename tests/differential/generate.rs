//! Heads from a seed: mostly valid ones, with up to three mistakes put in.

use crate::bytes::Random;
use crate::words::{
    BYTES, CODINGS, EMPTY_LINES, FOLDS, HOSTS, LENGTHS, METHODS, OTHERS, TARGETS, VERSIONS,
};

/// An endless supply; the same for the same seed.
pub fn heads(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random::seeded(seed);
    std::iter::repeat_with(move || {
        let mut head = valid(&mut random);
        for _ in 0..random.below(4) {
            mutate(&mut random, &mut head);
        }
        head
    })
}

/// What the lists give: one Host or none, no or one framing in most, in any order.
fn valid(random: &mut Random) -> Vec<u8> {
    let line = [METHODS, TARGETS, VERSIONS].map(|list| word(random, list)).join(" ");
    let mut fields = vec![word(random, HOSTS)];
    match random.below(12) {
        0..=2 => fields.push(word(random, LENGTHS)),
        3..=5 => fields.push(word(random, CODINGS)),
        6 => fields.extend([word(random, CODINGS), word(random, LENGTHS)]),
        _ => {}
    }
    fields.extend((0..random.below(4)).map(|_| word(random, OTHERS)));
    let turn = random.below(fields.len());
    fields.rotate_left(turn);
    format!("{line}\r\n{}\r\n\r\n", fields.join("\r\n")).into_bytes()
}

fn word(random: &mut Random, list: &[(usize, &'static str)]) -> &'static str {
    let mut nth = random.below(list.iter().map(|(weight, _)| weight).sum());
    let mut words = list.iter();
    loop {
        let (weight, word) = words.next().expect("fewer than the sum of all weights");
        match nth.checked_sub(*weight) {
            Some(rest) => nth = rest,
            None => return word,
        }
    }
}

/// One mistake, or something unusual.
fn mutate(random: &mut Random, head: &mut Vec<u8>) {
    let at = random.below(head.len() + 1);
    let line = line_at(head, at);
    match random.below(16) {
        0..=3 => head.insert(at, *random.pick(BYTES)),
        4..=6 if at < head.len() => head[at] = *random.pick(BYTES),
        7..=9 if at < head.len() => drop(head.remove(at)),
        10 => {
            let again = head[line.clone()].to_vec();
            head.splice(line.end..line.end, again);
        }
        11 => insert(head, at, word(random, FOLDS)),
        12 => bare_line_end(head, line.end),
        13 => {
            let list = random.pick(&[HOSTS, LENGTHS, CODINGS, OTHERS]);
            let times = if random.below(30) == 0 { 12 } else { 1 };
            insert(head, line.end, &format!("{}\r\n", word(random, list)).repeat(times));
        }
        14 if random.below(3) == 0 => head.truncate(at),
        14 => insert(head, 0, word(random, EMPTY_LINES)),
        15 if random.below(20) == 0 => insert(head, at, &"a".repeat(100 + random.below(500))),
        _ => {}
    }
}

fn insert(head: &mut Vec<u8>, at: usize, text: &str) {
    head.splice(at..at, text.bytes());
}

/// The line around a byte, its LF included.
fn line_at(head: &[u8], at: usize) -> std::ops::Range<usize> {
    let start = head[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |lf| lf + 1);
    let end =
        head[at..].iter().position(|byte| *byte == b'\n').map_or(head.len(), |lf| at + lf + 1);
    start..end
}

/// Takes the CR away from the CRLF that ends there.
fn bare_line_end(head: &mut Vec<u8>, end: usize) {
    if head[..end].ends_with(b"\r\n") {
        head.remove(end - 2);
    }
}
