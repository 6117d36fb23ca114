//! What only the allocators can do.

#![expect(unsafe_code, reason = "the allocators have no other interface")]

/// What builds held and freed the allocators keep for the next ones: after large ones more than all the rest.
pub(super) fn give_memory_back() {
    // SAFETY: may be called at any time, from any thread. The second is of the libraries that are written in C.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        libc::malloc_trim(0);
    }
}
