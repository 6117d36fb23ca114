//! What only the C library can do.

#![expect(unsafe_code, reason = "the allocator has no other interface")]

/// Has threads share what the allocator keeps: left alone it makes eight heaps for each processor, and what one build
/// leaves in them keeps their pages for ever.
pub(crate) fn share_heaps() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let heaps = libc::c_int::try_from(processors).unwrap_or(libc::c_int::MAX);
    // SAFETY: may be called at any time, from any thread. Refused, it has no effect.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, heaps);
    }
}

/// What builds held and freed the allocator keeps for the next ones: after large ones more than all the rest.
pub(crate) fn give_memory_back() {
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
