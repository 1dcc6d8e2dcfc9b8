//! The process's allocator: mimalloc, asked by its short way. Its crate asks for an alignment with every allocation, and
//! then a block whose size is no power of two costs a longer path and room to align in, both ways.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// mimalloc aligns every block to a word.
const WORD: usize = size_of::<*const ()>();

/// To be the global allocator of a program.
pub struct Heap;

// SAFETY: mimalloc's functions return null or a block of at least the wanted size, which no other block overlaps until it
// is freed; each block is aligned to a word, and where more is wanted the alignment is asked for. A block may be resized and
// freed by either family of functions. None of them unwinds.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size is allowed; alignments of layouts are powers of two.
        let block = unsafe { if align <= WORD { mi_malloc(size) } else { mi_malloc_aligned(size, align) } };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        let block = unsafe { if align <= WORD { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller gives back what `alloc` and its like returned.
        unsafe { mi_free(block.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        let block = block.cast::<c_void>();
        // SAFETY: the caller resizes what `alloc` and its like returned; the alignment stays what it was.
        let moved =
            unsafe { if align <= WORD { mi_realloc(block, size) } else { mi_realloc_aligned(block, size, align) } };
        moved.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_keep_their_bytes() {
        for align in [1, 2, 4, 8, 16, 64, 4096] {
            for size in [1, 7, 8, 24, 100, 1000, 1248, 5000, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the size is not zero, no byte is read before it was written, and each block is freed once.
                unsafe {
                    let block = Heap.alloc(layout);
                    assert!(!block.is_null() && (block as usize).is_multiple_of(align));
                    block.write_bytes(7, size);
                    let block = Heap.realloc(block, layout, size * 3);
                    assert!(!block.is_null() && (block as usize).is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 7));
                    Heap.dealloc(block, Layout::from_size_align(size * 3, align).expect("a layout"));
                    let block = Heap.alloc_zeroed(layout);
                    assert!(!block.is_null() && (block as usize).is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0));
                    Heap.dealloc(block, layout);
                }
            }
        }
    }
}
