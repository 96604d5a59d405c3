//! Every acknowledged write survives a power cut, at 200 random points; and the harness can fail.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "power_cut/vfs.rs"]
mod vfs;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use store::{Change, Durability, Expect, Options, Store, Testing};

fn options(synchronous_off: bool) -> Options {
    let testing = Testing { vfs: Some(vfs::NAME), synchronous_off };
    Options { history_events_max: 40, testing, ..Options::default() }
}

fn open(dir: &Path, synchronous_off: bool) -> Store {
    Store::open(dir, options(synchronous_off)).unwrap()
}

/// Four clients write until the power goes; returns the newest acknowledged revision per key, and the newest seen.
async fn write_until_cut(store: &Store, seed: u64) -> (BTreeMap<String, u64>, u64) {
    let clients: Vec<_> = (0..4u64)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed * 31 + client);
                let mut acknowledged = BTreeMap::new();
                for _ in 0..200 {
                    let key = format!("/k/{client}/{}", random.random_range(0..6));
                    let size = if random.random_ratio(1, 10) { 30_000 } else { random.random_range(1..900) };
                    let byte = random.random::<u8>();
                    let change =
                        Change::put(key.clone(), Expect::Any, move |_| Bytes::from(vec![byte; size]));
                    let exempt = random.random_ratio(1, 8);
                    let durability = if exempt { Durability::Exempt } else { Durability::Synced };
                    match store.commit_with(vec![change], durability).await {
                        Ok(records) if !exempt => drop(acknowledged.insert(key, records[0].modified)),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut all = BTreeMap::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    (all, store.revision())
}

/// How many acknowledged writes are gone after one power cut.
async fn lost_after_cut(seed: u64, synchronous_off: bool) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let disk = vfs::Disk::of(dir.path());
    let store = open(dir.path(), synchronous_off);
    // The point is a number of file operations, so it falls between, before and inside commits and checkpoints.
    disk.cut_after(random.random_range(1..600));
    let (acknowledged, seen) = write_until_cut(&store, seed).await;
    disk.cut_now();
    drop(store);
    disk.restore_power(seed);
    let store = match Store::open(dir.path(), options(synchronous_off)) {
        Ok(store) => store,
        Err(_) if synchronous_off => return acknowledged.len(),
        Err(error) => panic!("seed {seed}: the store does not open: {error}"),
    };
    let after = store.snapshot();
    let is_lost = |key: &str, revision: u64| after.get(key).is_none_or(|record| record.modified < revision);
    let lost = acknowledged.iter().filter(|(key, revision)| is_lost(key, **revision)).count();
    if !synchronous_off {
        let next = store.commit(vec![Change::put("/next", Expect::Any, |_| Bytes::new())]).await.unwrap();
        assert!(next[0].modified > seen, "seed {seed}: revision {} was shown before", next[0].modified);
        let hole = seen > after.range("/k/", None).map(|r| r.modified).max().unwrap_or(0);
        assert!(!hole || store.watch("/k/", seen).is_err() || seen == store.revision() - 1, "seed {seed}");
    }
    drop(store);
    disk.forget();
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_a_power_cut() {
    vfs::register();
    // `make crash` takes other points than the usual 200.
    let first = std::env::var("CRASH_SEED").map_or(0, |text| text.parse::<u64>().unwrap());
    for seed in first..first + 200 {
        assert_eq!(lost_after_cut(seed, false).await, 0, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_the_same_harness_loses_acknowledged_writes() {
    vfs::register();
    let mut lost = 0;
    for seed in 1000..1020 {
        lost += lost_after_cut(seed, true).await;
    }
    assert!(lost > 0, "the harness cannot see a missing sync");
}
