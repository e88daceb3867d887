//! Tokens that have been verified, so that the next request with one costs no signature.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::rc::Rc;

use super::Verified;

/// Tokens of each worker, with what they say: two megabytes if they are of the usual size, eight at most.
const TOKENS_MAX: usize = 512;

/// Bytes of a token that is remembered, so that all have a bound.
const TOKEN_BYTES_MAX: usize = 4 << 10;

/// The last tokens that were right, each at a place that nobody outside can compute.
#[derive(Default)]
pub(super) struct Remembered {
    hashes: RandomState,
    places: Vec<Option<Token>>,
}

struct Token {
    text: Box<[u8]>,
    verified: Rc<Verified>,
}

impl Remembered {
    pub fn find(&self, token: &[u8]) -> Option<Rc<Verified>> {
        let known = self.places.get(self.place(token))?.as_ref()?;
        (*known.text == *token).then(|| Rc::clone(&known.verified))
    }

    pub fn add(&mut self, token: &[u8], verified: &Rc<Verified>) {
        if token.len() > TOKEN_BYTES_MAX {
            return;
        }
        self.places.resize_with(TOKENS_MAX, || None);
        let place = self.place(token);
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(Token { text: token.into(), verified: Rc::clone(verified) });
        }
    }

    pub fn clear(&mut self) {
        self.places.clear();
    }

    fn place(&self, token: &[u8]) -> usize {
        self.hashes.hash_one(token) as usize % TOKENS_MAX
    }
}
