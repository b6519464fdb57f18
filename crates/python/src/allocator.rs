//! The allocator of the extension module.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// mimalloc, asked for alignment only where it does not align so far anyway: that is the shorter way, and a request takes
/// it some twenty times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

/// What mimalloc aligns to without being asked, from this size on.
const ALIGNED: usize = 16;
/// What it aligns everything to.
const WORD: usize = align_of::<usize>();

fn is_aligned_anyway(layout: Layout) -> bool {
    layout.align() <= WORD || (layout.align() <= ALIGNED && layout.size() >= ALIGNED)
}

impl Allocator {
    /// Gives the system back what is free, at once. What was allocated by other threads may stay.
    pub fn give_back() {
        #[allow(unsafe_code, reason = "mimalloc is a C library")]
        // SAFETY: it has no preconditions.
        unsafe {
            mi::mi_collect(true);
        }
    }
}

#[allow(unsafe_code, reason = "an allocator is an unsafe trait, and mimalloc a C library")]
// SAFETY: each function gives what mimalloc gives for a layout's size, and its alignment where mimalloc does not promise it
// for every block of that size (`MI_MAX_ALIGN_SIZE` is 16). All blocks are freed and resized by the same library.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_aligned_anyway(layout) {
            return unsafe { mi::mi_malloc(layout.size()) }.cast();
        }
        unsafe { mi::mi_malloc_aligned(layout.size(), layout.align()) }.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_aligned_anyway(layout) {
            return unsafe { mi::mi_zalloc(layout.size()) }.cast();
        }
        unsafe { mi::mi_zalloc_aligned(layout.size(), layout.align()) }.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        unsafe { mi::mi_free(block.cast()) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_aligned_anyway(layout) && size >= layout.size().min(ALIGNED) {
            return unsafe { mi::mi_realloc(block.cast(), size) }.cast();
        }
        unsafe { mi::mi_realloc_aligned(block.cast(), size, layout.align()) }.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "it is tried as it is used")]
    fn blocks_are_aligned_and_keep_their_contents() {
        for align in [1, 2, 8, 16, 32, 64, 4096] {
            for size in (1..200).chain([1000, 100_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the size is not zero, and each block is used within its size and freed once.
                unsafe {
                    let block = Allocator.alloc(layout);
                    assert_eq!(block.addr() % align, 0, "{layout:?}");
                    block.write_bytes(7, size);
                    let block = Allocator.realloc(block, layout, size * 3);
                    assert_eq!(block.addr() % align, 0, "{layout:?} grown");
                    assert!((0..size).all(|index| *block.add(index) == 7));
                    let grown = Layout::from_size_align(size * 3, align).unwrap();
                    Allocator.dealloc(block, grown);
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert_eq!(zeroed.addr() % align, 0);
                    assert!((0..size).all(|index| *zeroed.add(index) == 0));
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }
}
