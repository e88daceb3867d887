//! Requests that wait for a place, in the order they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Those who wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: RefCell<VecDeque<Rc<Place>>>,
}

#[derive(Debug, Default)]
struct Place {
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Calls the one who has waited longest.
    pub fn call(&self) {
        let Some(first) = self.waiting.borrow_mut().pop_front() else { return };
        first.called.set(true);
        if let Some(waker) = first.waker.take() {
            waker.wake();
        }
    }

    /// Waits to be called. May be dropped, also when it has been called just then.
    pub async fn wait(&self) {
        let place = Rc::<Place>::default();
        self.waiting.borrow_mut().push_back(Rc::clone(&place));
        let mut turn = Turn { queue: self, place, taken: false };
        poll_fn(|context| {
            if turn.place.called.get() {
                return Poll::Ready(());
            }
            turn.place.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        turn.taken = true;
    }
}

/// Leaves the queue, however the waiting ends.
struct Turn<'a> {
    queue: &'a Queue,
    place: Rc<Place>,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        match (self.taken, self.place.called.get()) {
            (true, _) => {}
            // Who was called and has gone lets the next one in.
            (false, true) => self.queue.call(),
            (false, false) => {
                self.queue.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn those_who_wait_are_called_in_order_and_those_who_leave_are_not() {
        let queue = Queue::default();
        let mut waits: VecDeque<_> = (0..4).map(|_| Box::pin(queue.wait())).collect();
        for wait in &mut waits {
            assert!(wait.now_or_never().is_none());
        }
        assert_eq!(queue.len(), 4);
        queue.call();
        assert!(waits[0].as_mut().now_or_never().is_some());
        assert!(waits[1].as_mut().now_or_never().is_none());
        drop(waits.remove(1));
        assert_eq!(queue.len(), 2);
        queue.call();
        // Called and gone: the call goes on to the last one.
        drop(waits.remove(1));
        assert!(waits[1].as_mut().now_or_never().is_some());
        assert_eq!(queue.len(), 0);
        queue.call();
    }
}
