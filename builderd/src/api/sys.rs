//! What only the C library can do.

#![expect(unsafe_code, reason = "the allocator has no other interface")]

/// What builds held and freed the allocator keeps for the next ones: after large ones more than all the rest.
pub(super) fn give_memory_back() {
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
