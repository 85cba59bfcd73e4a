//! Turns of those who use the values of one adapter set.
//!
//! A training step writes the values of its adapters in place, and a session on another thread may not read them at that
//! moment; nor may it while a tensor is overwritten. The C interface leaves this to the caller. Here everyone takes turns
//! in the order of asking: readers together, a writer alone. No user code runs during a turn: it is given up around
//! progress and token callbacks, so that these may use whatever handle they like.
use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Reads values.
    Read,
    /// Writes values.
    Write,
}

#[derive(Default)]
struct State {
    next: u64,    // ticket of who asks next
    serving: u64, // ticket whose holder may go in next
    readers: usize,
    writer: bool,
}

#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn enter(&self, turn: Turn) {
        let mut s = self.lock();
        let ticket = s.next;
        s.next += 1;
        while s.serving != ticket || s.writer || (turn == Turn::Write && s.readers > 0) {
            s = self.changed.wait(s).unwrap_or_else(|e| e.into_inner());
        }
        s.serving += 1;
        match turn {
            Turn::Read => s.readers += 1,
            Turn::Write => s.writer = true,
        }
        self.changed.notify_all();
    }

    pub(crate) fn leave(&self, turn: Turn) {
        let mut s = self.lock();
        match turn {
            Turn::Read => s.readers -= 1,
            Turn::Write => s.writer = false,
        }
        self.changed.notify_all();
    }

    /// A turn until the end of the block.
    pub(crate) fn turn(&self, turn: Turn) -> Pass<'_> {
        self.enter(turn);
        Pass { gate: self, turn }
    }

    /// Runs user code in the middle of a turn, which is given up meanwhile.
    pub(crate) fn between<T>(&self, turn: Turn, f: impl FnOnce() -> T) -> T {
        self.leave(turn);
        let value = f();
        self.enter(turn);
        value
    }
}

pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    turn: Turn,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::sync::Arc;

    #[test]
    fn a_writer_is_alone() {
        let (gate, inside) = (Gate::default(), AtomicI32::new(0)); // readers, or -1000 for a writer
        std::thread::scope(|s| {
            for n in 0..6 {
                let (gate, inside) = (&gate, &inside);
                s.spawn(move || {
                    for _ in 0..200 {
                        if n < 2 {
                            let _turn = gate.turn(Turn::Write);
                            assert_eq!(inside.fetch_sub(1000, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            assert_eq!(inside.fetch_add(1000, Ordering::SeqCst), -1000);
                            gate.between(Turn::Write, std::thread::yield_now);
                            assert_eq!(inside.fetch_sub(1000, Ordering::SeqCst), 0);
                            assert_eq!(inside.fetch_add(1000, Ordering::SeqCst), -1000);
                        } else {
                            let _turn = gate.turn(Turn::Read);
                            assert!(inside.fetch_add(1, Ordering::SeqCst) >= 0);
                            std::thread::yield_now();
                            assert!(inside.fetch_sub(1, Ordering::SeqCst) > 0);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn readers_go_in_together_and_turns_are_in_order() {
        let gate = Arc::new(Gate::default());
        let (first, second) = (gate.turn(Turn::Read), gate.turn(Turn::Read)); // neither waits
        let order = Arc::new(Mutex::new(Vec::new()));
        let spawn = |turn, name: &'static str, asked: u64| {
            let (gate, order) = (gate.clone(), order.clone());
            let thread = std::thread::spawn({
                let gate = gate.clone();
                move || {
                    let _turn = gate.turn(turn);
                    order.lock().unwrap().push(name);
                }
            });
            while gate.lock().next < asked {
                std::thread::yield_now();
            }
            thread
        };
        let writer = spawn(Turn::Write, "writer", 3);
        let reader = spawn(Turn::Read, "reader", 4); // behind the writer, although readers are inside
        assert!(order.lock().unwrap().is_empty());
        drop((first, second));
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(*order.lock().unwrap(), ["writer", "reader"]);
    }
}
