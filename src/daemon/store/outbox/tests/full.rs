//! A disk that is full only when a commit tries it.

use super::*;
use crate::store::quota::{LevelChange, StorageLimits};
use claudemesh_base::db::Faults;
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::quota::Level;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Disk {
    is_full: AtomicBool,
}

impl Faults for Disk {
    fn before_commit(&self, _: &Path, _: Durability) -> Result<(), Error> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Full, "the disk is full"));
        }
        Ok(())
    }

    fn after_commit(&self, _: &Path, _: Durability) {}
}

#[test]
fn a_retry_needs_no_room_and_does_not_show_that_there_is_some() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (disk, heard) = (Arc::new(Disk::default()), Arc::new(Mutex::new(Vec::new())));
    let on_change = {
        let heard = heard.clone();
        move |change: &LevelChange| heard.lock().expect("whole").push(change.level)
    };
    let runtime = Runtime::real(Arc::default());
    let quota = Quota::new(dir.path(), StorageLimits::NONE, runtime, Box::new(on_change));
    let path = dir.path().join("outbox.db");
    let driver = Driver::Inline(disk.clone());
    let outbox = Outbox::open_within(&path, driver, Arc::new(|_| ()), quota).expect("opens");
    let accept = |id: &str| block_on(outbox.accept(new_row(id, b"hola")));
    let heard = || std::mem::take(&mut *heard.lock().expect("whole"));
    let first = accept("known").expect("accepts");

    disk.is_full.store(true, Ordering::Relaxed);
    assert_eq!(accept("new").expect_err("no room").kind(), Kind::Full);
    let retried = accept("known").expect("is answered");
    assert_eq!(retried.row_id, first.row_id);
    assert_ne!(retried.decision, AcceptDecision::Insert);
    assert_eq!(heard(), [Level::Refusing]);

    disk.is_full.store(false, Ordering::Relaxed);
    accept("known").expect("is answered");
    let nobody = block_on(outbox.requeue(requeue_of("nobody", "next"))).expect("answers");
    assert_eq!(nobody, RequeueOutcome::NotFound);
    assert_eq!(heard(), [], "nothing was written");
    accept("new").expect("accepts");
    assert_eq!(heard(), [Level::Ample]);
    outbox.close();
}
