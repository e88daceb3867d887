//! The configuration a worker serves by now. A request is served by the one it began with; the next
//! one on the same connection by the newest.

use std::cell::RefCell;
use std::rc::Rc;

use super::Shared;

/// Holds the newest [`Shared`].
pub struct Current(RefCell<Rc<Shared>>);

impl Current {
    /// Begins with `shared`.
    pub fn new(shared: Rc<Shared>) -> Self {
        Self(RefCell::new(shared))
    }

    /// The newest.
    pub fn get(&self) -> Rc<Shared> {
        Rc::clone(&self.0.borrow())
    }

    /// Takes the place of the newest. Exchanges in flight keep the one they have.
    pub fn set(&self, shared: Rc<Shared>) {
        *self.0.borrow_mut() = shared;
    }
}
