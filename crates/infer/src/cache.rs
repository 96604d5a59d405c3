//! Answers that were given before, for models whose author asked for it.
//!
//! An answer is kept under a keyed hash (SHA-256 with a key that is drawn when the process starts) of the version and
//! of every input with its type and shape: two requests that differ do not meet, and nobody can make them. What is
//! kept are the model's tensors, so that all protocols share them. Failures are never kept.
//!
//! Memory is bounded for the whole process. Each shard has two generations: what was asked for since the young one
//! was begun lies in it, and when it is full the old one goes as a whole. A version takes its answers with it.
//!
//! Not here: which models (`config`), the calls (`drive`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use models::{Outputs, Shape, Tensor};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::evaluate::Call;
use crate::observe::nanos;

/// Tables that are locked apart.
const SHARDS: usize = 8;
/// What an answer takes besides its tensors' bytes: its places in the table, the tensors' heads.
const OVERHEAD: usize = 256;

/// The hash of a call.
pub(crate) type Key = [u8; 32];

struct Kept {
    version: u64,
    tensors: Arc<[Tensor<'static>]>,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Key, Kept>,
    old: HashMap<Key, Kept>,
    young_bytes: usize,
}

/// The process's answers.
pub(crate) struct Cache {
    secret: [u8; 32],
    shards: [Mutex<Shard>; SHARDS],
    /// Of one generation of one shard.
    bytes_max: usize,
    versions: AtomicU64,
    evictions: AtomicU64,
}

impl Cache {
    /// A cache that keeps at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            secret: secret(),
            shards: Default::default(),
            bytes_max: bytes_max / SHARDS / 2,
            versions: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[usize::from(key[0]) % SHARDS]
    }

    fn get(&self, key: &Key) -> Option<Arc<[Tensor<'static>]>> {
        let mut shard = self.shard(key).lock();
        if let Some(kept) = shard.young.get(key) {
            return Some(kept.tensors.clone());
        }
        let kept = shard.old.remove(key)?;
        let tensors = kept.tensors.clone();
        self.put(&mut shard, *key, kept);
        Some(tensors)
    }

    fn put(&self, shard: &mut Shard, key: Key, kept: Kept) {
        let bytes = OVERHEAD + kept.tensors.iter().map(|tensor| tensor.bytes().len()).sum::<usize>();
        if bytes > self.bytes_max {
            return;
        }
        if shard.young_bytes + bytes > self.bytes_max {
            let gone = std::mem::replace(&mut shard.old, std::mem::take(&mut shard.young));
            self.evictions.fetch_add(gone.len() as u64, Relaxed);
            shard.young_bytes = 0;
        }
        if shard.young.insert(key, kept).is_none() {
            shard.young_bytes += bytes;
        }
    }

    /// Answers that went because room was needed.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Answers that are kept.
    pub(crate) fn len(&self) -> usize {
        let of = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(of).sum()
    }

    fn forget(&self, version: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.young.retain(|_, kept| kept.version != version);
            shard.old.retain(|_, kept| kept.version != version);
            let sizes = shard.young.values().flat_map(|kept| kept.tensors.iter());
            let bytes: usize = sizes.map(|tensor| tensor.bytes().len()).sum();
            shard.young_bytes = bytes + shard.young.len() * OVERHEAD;
        }
    }
}

/// Drawn from the system's randomness, as the standard library's own keys are.
fn secret() -> [u8; 32] {
    use std::hash::{BuildHasher, RandomState};
    let mut secret = [0; 32];
    for (place, word) in secret.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&RandomState::new().hash_one(place).to_le_bytes());
    }
    secret
}

/// What one version has in the cache.
pub(crate) struct Cached {
    cache: Arc<Cache>,
    /// Never that of another version.
    version: u64,
    counts: Counts,
}

/// How often a version's calls found their answers, and how long looking and keeping took, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) hit_ns: AtomicU64,
    pub(crate) miss_ns: AtomicU64,
}

impl Cached {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let version = cache.versions.fetch_add(1, Relaxed);
        Self { cache, version, counts: Counts::default() }
    }

    /// What became of the version's calls.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The process's answers.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    fn key(&self, call: &Call<'_>) -> Key {
        let mut hash = Sha256::new_with_prefix(self.cache.secret);
        let mut count = |number: usize| hash.update((number as u64).to_le_bytes());
        count(self.version as usize);
        count(call.rows);
        count(call.inputs.len());
        for input in call.inputs {
            let bytes = input.bytes();
            // With all lengths before what they are of, no two calls are written alike.
            hash.update([input.dtype() as u8, input.dims().len() as u8]);
            input.dims().iter().for_each(|dim| hash.update((*dim as u64).to_le_bytes()));
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }

    /// Puts the answer to the same call into `outputs`; the key to keep it under where there was none.
    pub(crate) fn answer(&self, call: &Call<'_>, outputs: &mut Outputs) -> Option<Key> {
        let start = Instant::now();
        let key = self.key(call);
        let Some(tensors) = self.cache.get(&key) else {
            self.counts.misses.fetch_add(1, Relaxed);
            self.counts.miss_ns.fetch_add(nanos(start.elapsed()), Relaxed);
            return Some(key);
        };
        outputs.clear();
        for tensor in tensors.iter() {
            if let Some(shape) = Shape::new(tensor.dims()) {
                outputs.bytes(tensor.dtype(), shape, tensor.bytes());
            }
        }
        self.counts.hits.fetch_add(1, Relaxed);
        self.counts.hit_ns.fetch_add(nanos(start.elapsed()), Relaxed);
        None
    }

    /// Keeps an answer.
    pub(crate) fn keep(&self, key: Key, outputs: &Outputs) {
        let start = Instant::now();
        let tensors = outputs.tensors().iter().map(Tensor::to_static).collect();
        let kept = Kept { version: self.version, tensors };
        self.cache.put(&mut self.cache.shard(&key).lock(), key, kept);
        self.counts.miss_ns.fetch_add(nanos(start.elapsed()), Relaxed);
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.cache.forget(self.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(version: u64, size: usize) -> Kept {
        let tensor = Tensor::owned(&vec![0_u8; size], &[size]).expect("small");
        Kept { version, tensors: [tensor].into() }
    }

    fn key(first: u8, second: u8) -> Key {
        let mut key = [0; 32];
        (key[0], key[1]) = (first, second);
        key
    }

    #[test]
    fn bytes_are_bounded_and_what_is_asked_for_stays() {
        // A generation of a shard takes four answers.
        let cache = Cache::new(SHARDS * 2 * 4 * (OVERHEAD + 100));
        let put = |second| cache.put(&mut cache.shards[0].lock(), key(0, second), kept(1, 100));
        put(0);
        for second in 1..=200 {
            put(second);
            assert!(cache.get(&key(0, 0)).is_some(), "{second}: it is asked for all the time");
            let shard = cache.shards[0].lock();
            assert!(shard.young.len() <= 4 && shard.old.len() <= 4);
            assert_eq!(shard.young_bytes, shard.young.len() * (OVERHEAD + 100));
        }
        let kept_now = cache.len() as u64;
        assert!(kept_now <= 8 && cache.evictions() >= 150, "{kept_now} kept, {} evicted", cache.evictions());
        assert!(cache.get(&key(0, 1)).is_none() && cache.get(&key(0, 200)).is_some());
        cache.put(&mut cache.shards[0].lock(), key(0, 201), kept(1, 10_000));
        assert!(cache.get(&key(0, 201)).is_none(), "too large to be kept");
    }

    #[test]
    fn a_version_takes_its_answers_with_it() {
        let cache = Arc::new(Cache::new(1 << 20));
        let (one, other) = (Cached::new(cache.clone()), Cached::new(cache.clone()));
        for (place, cached) in [&one, &other].into_iter().enumerate() {
            for first in 0..8 {
                let key = key(first, place as u8);
                cache.put(&mut cache.shard(&key).lock(), key, kept(cached.version, 10));
            }
        }
        drop(one);
        assert!((0..8).all(|first| cache.get(&key(first, 0)).is_none()));
        assert!((0..8).all(|first| cache.get(&key(first, 1)).is_some()));
        drop(other);
        let empty = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.is_empty() && shard.old.is_empty() && shard.young_bytes == 0
        };
        assert!(cache.shards.iter().all(empty));
    }
}
