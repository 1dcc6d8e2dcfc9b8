//! Per-core pools of read buffers in three sizes. A buffer is zeroed once, when it is made, and then reused.

use std::cell::RefCell;

use monoio::buf::{IoBuf, IoBufMut};

/// The sizes that the pools keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// What an idle connection parks under its posted read: most request heads fit.
    Small,
    /// A head or a part of a body.
    Medium,
    /// Bulk transfer: large reads are what makes it cheap.
    Large,
}

impl Size {
    /// Capacity in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Size::Small => 512,
            // One TLS record of the largest kind.
            Size::Medium => 17 * 1024,
            Size::Large => 256 * 1024,
        }
    }

    /// How many unused ones a core keeps; more are given back to the allocator.
    const fn kept(self) -> usize {
        match self {
            Size::Small => 256,
            Size::Medium => 128,
            Size::Large => 8,
        }
    }
}

/// A pooled buffer: unread bytes between `start` and `end`, room behind them.
pub struct Buf {
    data: Box<[u8]>,
    size: Size,
    start: usize,
    end: usize,
}

struct Pool {
    free: [Vec<Box<[u8]>>; 3],
    out: usize,
    out_bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: [Vec::new(), Vec::new(), Vec::new()], out: 0, out_bytes: 0 }) };
}

/// Buffers in use on this core, and their bytes.
pub fn in_use() -> (usize, usize) {
    POOL.with(|pool| {
        let pool = pool.borrow();
        (pool.out, pool.out_bytes)
    })
}

impl Buf {
    /// Takes one from this core's pool, or makes one.
    pub fn take(size: Size) -> Buf {
        let data = POOL.with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.out += 1;
            pool.out_bytes += size.bytes();
            pool.free[size as usize].pop()
        });
        Buf { data: data.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()), size, start: 0, end: 0 }
    }

    /// Its size class.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The unread bytes.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// Forgets the first `count` unread bytes.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "cannot consume more than is buffered");
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Whether nothing is unread.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room behind the unread bytes, without moving them.
    pub fn room(&self) -> usize {
        self.data.len() - self.end
    }

    /// Moves the unread bytes to the front, so that all free space is room.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Exchanges itself for a larger one with the same unread bytes.
    pub fn grow(&mut self, size: Size) {
        if size <= self.size {
            return;
        }
        let mut larger = Buf::take(size);
        larger.extend(self.data());
        *self = larger;
    }

    /// Appends bytes; the caller has made sure that there is room.
    pub fn extend(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        self.data[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// The unread bytes, to be changed in place.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// The room as a slice, to be filled by a plain call, and then [`Buf::filled`].
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        // Gone only while the thread ends: then the allocator takes the memory.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.out -= 1;
            pool.out_bytes -= self.size.bytes();
            let free = &mut pool.free[self.size as usize];
            if free.len() < self.size.kept() {
                free.push(data);
            }
        });
    }
}

// SAFETY: the bytes are on the heap, so the pointer stays valid when the `Buf` moves, and `end` never exceeds the
// length, all of which was initialised when the buffer was made.
unsafe impl IoBuf for Buf {
    fn read_ptr(&self) -> *const u8 {
        self.data[self.start..].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.end - self.start
    }
}

// SAFETY: `write_ptr` and `bytes_total` describe exactly the room behind the unread bytes, which the `Buf` owns
// alone while the operation holds it; `set_init` is told how many of them the kernel wrote.
unsafe impl IoBufMut for Buf {
    fn write_ptr(&mut self) -> *mut u8 {
        self.data[self.end..].as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.room()
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.filled(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_growth_and_compaction() {
        let mut buf = Buf::take(Size::Small);
        buf.extend(b"hello world");
        buf.consume(6);
        buf.grow(Size::Medium);
        assert_eq!(buf.data(), b"world");
        buf.consume(1);
        buf.compact();
        assert_eq!(buf.data(), b"orld");
        assert_eq!(buf.room(), Size::Medium.bytes() - 4);
    }

    #[test]
    fn the_pool_counts_what_is_out() {
        let before = in_use();
        let buf = Buf::take(Size::Medium);
        assert_eq!(in_use(), (before.0 + 1, before.1 + Size::Medium.bytes()));
        drop(buf);
        assert_eq!(in_use(), before);
    }

    #[test]
    fn the_kernel_is_shown_only_the_room() {
        let mut buf = Buf::take(Size::Small);
        buf.extend(b"abc");
        assert_eq!(buf.bytes_total(), Size::Small.bytes() - 3);
        buf.spare()[..2].copy_from_slice(b"de");
        // SAFETY: two bytes were just written.
        unsafe { buf.set_init(2) };
        assert_eq!(buf.data(), b"abcde");
    }
}
