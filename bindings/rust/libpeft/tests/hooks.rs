//! What the library calls back: panics, the log, the allocator, the thread pool; and what may not be called from there.
mod kit;
use std::alloc::{alloc, dealloc, Layout};
use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kit::*;
use libpeft::*;

/// The text of the panic that `f` ends with.
#[track_caller]
fn panics<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic");
    payload
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or(payload.downcast_ref::<String>().cloned())
        .unwrap()
}

fn job(adapters: &Adapters, ctx: &Context, steps: u32) -> Trainer {
    let mut t = Trainer::new(adapters, [("max_steps", steps)]).unwrap();
    t.add_job("a", Some(&rows(ctx, 4)), None, ()).unwrap();
    t
}

#[test]
fn a_panic_goes_around_the_library() {
    let (ctx, _, adapters) = set();
    let mut t = job(&adapters, &ctx, 3);
    t.on_step(|s| if s.step == 2 { panic!("at step {}", s.step) } else { ControlFlow::Continue(()) });
    assert_eq!(panics(|| t.run()), "at step 2");
    t.on_step(|_| ControlFlow::Continue(()));
    assert_eq!(t.step().unwrap().unwrap().step, 3); // it goes on
    assert!(t.step().unwrap().is_none());

    let tok = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "a", ()).unwrap();
    let o = Options::new().set("ignore_eos", true).set("max_new_tokens", 6);
    let whole = s.generate(&tok, "abc", &o).unwrap();
    let mut n = 0;
    let text = panics(|| {
        s.generate_with(&tok, "abc", &o, |_, _| {
            n += 1;
            assert!(n < 4, "token 4");
            ControlFlow::Continue(())
        })
    });
    assert_eq!((text.as_str(), n), ("token 4", 4));
    assert_eq!(s.generate(&tok, "abc", &o).unwrap(), whole);
}

#[test]
fn a_progress_closure_may_stop_and_may_use_other_handles() {
    let (ctx, _, adapters) = set();
    let mut t = job(&adapters, &ctx, 4);
    let session = Mutex::new(Session::new(&adapters, "a", ()).unwrap());
    let (set, seen) = (adapters.clone(), Arc::new(Mutex::new(Vec::new())));
    let (log, c) = (seen.clone(), ctx.clone());
    t.on_step(move |s| {
        log.lock().unwrap().push(bits(&logits(&mut session.lock().unwrap(), &c))); // of the adapter that is trained
        std::thread::scope(|scope| {
            scope.spawn(|| logits(&mut Session::new(&set, "a", ()).unwrap(), &c));
            // on another thread as well
        });
        if s.step == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    refused(t.run(), Status::Callback, "after step 3");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen[0] != seen[1] && seen[1] != seen[2]);
    assert_eq!(seen[2], bits(&logits(&mut Session::new(&adapters, "a", ()).unwrap(), &ctx)));
}

#[test]
fn the_log_is_a_closure() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let ctx = Context::builder()
        .log(Level::Debug, move |level, text| log.lock().unwrap().push((level, text.to_string())))
        .build()
        .unwrap();
    write_noise(&ctx);
    let lines = lines.lock().unwrap();
    assert_eq!((lines.len(), lines[0].0), (1, Level::Warn));
    assert!(lines[0].1.contains("the head is stored apart"), "{lines:?}");
    let silent = Context::builder().log(Level::Error, |_, text| panic!("{text}")).build().unwrap();
    write_noise(&silent);
}

/// Makes the library say something: a head that is apart from the embedding, although the config ties them.
fn write_noise(ctx: &Context) {
    let tied = CONFIG.replace("\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true");
    Model::from_tensors(ctx, &tied, tensors(&model(ctx)), ()).unwrap();
}

#[test]
fn a_log_that_panics_or_calls_the_library_breaks_nothing() {
    let (panicking, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let (p, a) = (panicking.clone(), answer.clone());
    let ctx = Context::builder()
        .log(Level::Debug, move |_, _| {
            let tried = Context::new().map(|_| ());
            *a.lock().unwrap() = Some(tried);
            assert!(!p.load(Ordering::SeqCst), "the log");
        })
        .build()
        .unwrap();
    write_noise(&ctx);
    let answer = answer.lock().unwrap().take().expect("the library logged something");
    refused(answer, Status::Busy, "from within a log");
    panicking.store(true, Ordering::SeqCst);
    assert_eq!(panics(|| write_noise(&ctx)), "the log");
    panicking.store(false, Ordering::SeqCst);
    write_noise(&ctx);
}

/// Counts, and fails or panics where it is told.
#[derive(Default)]
struct Counting {
    now: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    fail_at: Arc<AtomicUsize>,
    panic: bool,
}

const HEAD: usize = 64;

// SAFETY: memory of the system's allocator behind a head that keeps the alignment for its return.
unsafe impl Allocator for Counting {
    fn alloc(&self, size: usize, align: usize) -> *mut u8 {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if call == self.fail_at.load(Ordering::SeqCst) {
            assert!(!self.panic, "no memory");
            return std::ptr::null_mut();
        }
        let head = HEAD.max(align);
        let layout = match Layout::from_size_align(size + head, head) {
            Ok(layout) => layout,
            Err(_) => return std::ptr::null_mut(),
        };
        // SAFETY: the size is not 0; the head has room for a number.
        unsafe {
            let p = alloc(layout);
            if p.is_null() {
                return p;
            }
            self.now.fetch_add(size, Ordering::SeqCst);
            p.add(head).cast::<usize>().sub(1).write(head);
            p.add(head)
        }
    }

    unsafe fn release(&self, ptr: *mut u8, size: usize) {
        self.now.fetch_sub(size, Ordering::SeqCst);
        // SAFETY: `ptr` came from `alloc`, which wrote the head's size before it.
        unsafe {
            let head = ptr.cast::<usize>().sub(1).read();
            dealloc(ptr.sub(head), Layout::from_size_align_unchecked(size + head, head));
        }
    }
}

#[test]
fn all_memory_comes_from_the_hosts_allocator() {
    let counting = Counting::default();
    let (now, calls, fail_at) = (counting.now.clone(), counting.calls.clone(), counting.fail_at.clone());
    let ctx = Context::builder().allocator(counting).threads(1).build().unwrap();
    let model = model(&ctx);
    let adapters = Adapters::new(&model).unwrap();
    adapters.add("a", "lora", (), 1).unwrap();
    job(&adapters, &ctx, 1).run().unwrap();
    let memory = ctx.memory();
    assert_eq!(memory.now, now.load(Ordering::SeqCst));
    assert!(memory.peak > memory.now);
    ctx.reset_memory_peak();
    assert_eq!(ctx.memory().peak, memory.now);
    let mut failures = 0;
    for n in 1.. {
        calls.store(0, Ordering::SeqCst);
        fail_at.store(n, Ordering::SeqCst);
        let before = now.load(Ordering::SeqCst);
        match Session::new(&adapters, "a", ()) {
            Ok(_) => break,
            Err(e) => assert_eq!(e.status(), Status::NoMemory, "{e:?}"),
        }
        assert_eq!(now.load(Ordering::SeqCst), before);
        failures += 1;
    }
    assert!(failures > 3, "{failures}");
    fail_at.store(0, Ordering::SeqCst);
    drop((model, adapters));
    assert!(now.load(Ordering::SeqCst) > 0);
    drop(ctx);
    assert_eq!(now.load(Ordering::SeqCst), 0);
}

#[test]
fn an_allocator_that_panics_is_one_without_memory() {
    let counting = Counting { panic: true, ..Counting::default() };
    let (now, calls, fail_at) = (counting.now.clone(), counting.calls.clone(), counting.fail_at.clone());
    let ctx = Context::builder().allocator(counting).build().unwrap();
    let before = now.load(Ordering::SeqCst);
    fail_at.store(calls.load(Ordering::SeqCst) + 3, Ordering::SeqCst);
    assert_eq!(panics(|| Model::random(&ctx, CONFIG, 1)), "no memory");
    assert_eq!(now.load(Ordering::SeqCst), before);
    assert_eq!(model(&ctx).arch(), "llama");
}

#[test]
fn the_hosts_threads_make_the_same_bits() {
    let (ctx, _, adapters) = set();
    job(&adapters, &ctx, 3).run().unwrap();
    let name = adapters.tensors("a").unwrap()[0].name.clone();
    let want = bits(&adapters.read_tensor("a", &name).unwrap());
    let (loops, parts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // All help; only some do; nobody does; the closure panics in the middle.
    for kind in 0..4 {
        let (l, p) = (loops.clone(), parts.clone());
        let ctx = Context::builder()
            .threads(3)
            .parallel_for(move |work| {
                l.fetch_add(1, Ordering::SeqCst);
                p.fetch_add(work.len(), Ordering::SeqCst);
                assert!(!work.is_empty() && work.workers() == 3);
                let helpers = [5, 1, 0, 1][kind];
                std::thread::scope(|s| {
                    for _ in 0..helpers {
                        s.spawn(|| work.help());
                    }
                });
                assert!(kind < 3, "the pool");
            })
            .build()
            .unwrap();
        let model = model(&ctx);
        let adapters = Adapters::new(&model).unwrap();
        adapters.add("a", "lora", [("r", 4)], 1).unwrap();
        let mut t = job(&adapters, &ctx, 3);
        if kind == 3 {
            assert_eq!(panics(|| t.run()), "the pool"); // all the same, the run is complete
        } else {
            t.run().unwrap();
        }
        assert!(t.step().is_ok_and(|s| s.is_none()) || kind == 3);
        assert_eq!(bits(&adapters.read_tensor("a", &name).unwrap()), want, "kind {kind}");
        assert!(loops.swap(0, Ordering::SeqCst) > 0 && parts.swap(0, Ordering::SeqCst) > 0);
    }
}

#[test]
fn contexts_are_set_up_by_a_builder() {
    let ctx = Context::builder().threads(3).isa("generic").build().unwrap();
    assert_eq!((ctx.threads(), ctx.isa()), (3, "generic"));
    assert_eq!(format!("{ctx:?}"), "Context { threads: 3, isa: \"generic\" }");
    assert!(Context::new().unwrap().threads() > 0);
    refused(Context::builder().threads(1025).build(), Status::Invalid, "1025");
    refused(Context::builder().threads(u32::MAX).build(), Status::Invalid, "threads");
    refused(Context::builder().isa("sse9").build(), Status::Unsupported, "generic");
    refused(Context::builder().isa("a\0").build(), Status::Invalid, "NUL at byte 1");
    refused(ctx.inspect("/no such file"), Status::NotFound, "/no such file");
}
