//! Holds verdicts against the rules and counts which explained what.

use crate::head::Head;
use crate::rules::{Peer, RULES, Rule, We};
use crate::verdict::{self, Verdict, difference};

pub struct Report {
    peer: Peer,
    seed: u64,
    heads: usize,
    taken: usize,
    /// For each rule, how many disagreements it explains, and how many nothing else does.
    explained: Vec<(usize, usize)>,
}

impl Report {
    pub fn new(peer: Peer, seed: u64) -> Self {
        Self { peer, seed, heads: 0, taken: 0, explained: vec![(0, 0); RULES.len()] }
    }

    /// Fails unless the gateway means the same as the peer does, or a rule says why not.
    #[track_caller]
    pub fn compare(&mut self, bytes: &[u8], theirs: &Verdict) {
        let ours = verdict::of_gateway(bytes);
        let head = Head::of(bytes);
        self.heads += 1;
        let broken = |rule: &&Rule| rule.we == We::Refuse && (rule.holds)(&head);
        if matches!(ours, Verdict::Take(_)) {
            self.taken += usize::from(matches!(theirs, Verdict::Take(_)));
            if let Some(rule) = RULES.iter().find(broken) {
                self.fail(bytes, &ours, theirs, &format!("taken against the rule {:?}", rule.name));
            }
        }
        let Some(part) = difference(&ours, theirs) else { return };
        let explains = |rule: &Rule| {
            rule.we == what_we_did(&ours) && rule.peers.contains(&self.peer) && (rule.holds)(&head)
        };
        let explaining: Vec<_> = (0..RULES.len()).filter(|at| explains(&RULES[*at])).collect();
        if explaining.is_empty() || part != "verdict" {
            self.fail(bytes, &ours, theirs, &format!("no rule explains another {part}"));
        }
        for at in &explaining {
            self.explained[*at].0 += 1;
            self.explained[*at].1 += usize::from(explaining.len() == 1);
        }
    }

    #[track_caller]
    fn fail(&self, bytes: &[u8], ours: &Verdict, theirs: &Verdict, message: &str) -> ! {
        panic!(
            "{message}\nhead:    {}\ngateway: {ours:?}\n{:?}: {theirs:?}\nto repeat: \
             GATEWAY_TEST_SEED={} (number {})",
            bytes.escape_ascii(),
            self.peer,
            self.seed,
            self.heads,
        );
    }

    /// Prints how often each rule was needed; one that never was is wrong or of no use.
    #[track_caller]
    pub fn conclude(&self) {
        println!(
            "{} heads, {} taken by both the gateway and {:?}",
            self.heads, self.taken, self.peer
        );
        println!("explained  alone  rule");
        let mut unused: Vec<&str> = Vec::new();
        for (rule, (all, alone)) in RULES.iter().zip(&self.explained) {
            if rule.peers.contains(&self.peer) {
                let Rule { name, section, we, .. } = rule;
                println!("{all:9} {alone:6}  we {we:?}: {name} (RFC {section})");
                unused.extend((*alone == 0).then_some(*name));
            }
        }
        assert!(unused.is_empty(), "never needed to explain {:?}: {unused:?}", self.peer);
        // Heads that everybody refuses teach nothing.
        assert!(self.taken > self.heads / 20, "too few heads are valid");
    }
}

fn what_we_did(ours: &Verdict) -> We {
    match ours {
        Verdict::Take(_) => We::Take,
        Verdict::Refuse(_) => We::Refuse,
        Verdict::Wait => We::Wait,
    }
}
