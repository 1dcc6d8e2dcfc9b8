//! Counters with one writer: a relaxed load and a relaxed store, no locked instruction.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Counts up. Only one thread may add.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Replaces the value, for figures that are counted elsewhere on the same core.
    #[inline]
    pub fn set(&self, count: u64) {
        self.0.store(count, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down. Only one thread may change it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds.
    #[inline]
    pub fn add(&self, count: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Subtracts.
    #[inline]
    pub fn sub(&self, count: i64) {
        self.add(-count);
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Two cache lines apart: adjacent lines are fetched in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Padded<T>(T);

/// One block per core, made when its core first writes to it: of thousands of routes on dozens of cores most blocks would
/// never be used.
#[derive(Debug)]
pub struct PerCore<T> {
    blocks: Box<[OnceLock<Box<Padded<T>>>]>,
    make: fn() -> T,
}

impl<T: Default> PerCore<T> {
    /// Blocks for so many cores.
    pub fn new(cores: usize) -> PerCore<T> {
        PerCore::made_by(cores, T::default)
    }
}

impl<T> PerCore<T> {
    /// Blocks for so many cores, begun by a function.
    pub fn made_by(cores: usize, make: fn() -> T) -> PerCore<T> {
        PerCore { blocks: (0..cores.max(1)).map(|_| OnceLock::new()).collect(), make }
    }

    /// The block of one core, which alone may write it.
    #[inline]
    pub fn core(&self, core: usize) -> &T {
        &self.blocks[core].get_or_init(|| Box::new(Padded((self.make)()))).0
    }

    /// The blocks of the cores that have written.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().filter_map(|block| Some(&block.get()?.0))
    }

    /// A figure summed over the cores.
    pub fn sum(&self, figure: impl Fn(&T) -> u64) -> u64 {
        self.all().map(figure).sum()
    }

    /// A gauge summed over the cores.
    pub fn sum_gauge(&self, figure: impl Fn(&T) -> i64) -> i64 {
        self.all().map(figure).sum()
    }
}
