//! A real store for targets that write files, beside which nothing may be written.

use std::cell::RefCell;

use builderd::store::Store;

/// Runs that share a state folder: opening one takes longer than a run, and keeping it for good fills the disk.
const RUNS: usize = 400;

struct World {
    runs: usize,
    store: Store,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("state")).expect("a store");
        Self {
            runs: 0,
            store,
            folder,
        }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// Has `run` do something with the store; it also gets a number that no other run with this store has.
pub fn with(run: impl AsyncFnOnce(&Store, usize)) {
    WORLD.with_borrow_mut(|world| {
        if world.runs == RUNS {
            *world = World::new();
        }
        world.runs += 1;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(run(&world.store, world.runs));
        let beside = std::fs::read_dir(world.folder.path())
            .expect("the folder is there")
            .count();
        assert_eq!(beside, 1, "something was written beside the state folder");
    });
}
