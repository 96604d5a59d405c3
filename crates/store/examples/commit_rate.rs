//! Prints synced commits per second with 1 and 16 clients, and how long opening takes with 100,000 records.
#![allow(clippy::unwrap_used, reason = "a measurement by hand")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Change, Expect, Options, Store};

const SPAN: Duration = Duration::from_secs(3);
const VALUE_BYTES: usize = 1200;

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "/tmp/store-commit-rate".into());
    let dir = Path::new(&folder).join(std::process::id().to_string());
    let store = Store::open(&dir, Options::default()).unwrap();
    for clients in [1, 16] {
        println!("{clients} clients: {:.0} synced commits/s", rate(&store, clients).await);
    }
    for batch in 0..200 {
        store
            .commit((0..500).map(|n| put(format!("/core/pods/ns/load-{batch}-{n}"))).collect())
            .await
            .unwrap();
    }
    drop(store);
    let begin = Instant::now();
    let store = Store::open(&dir, Options::default()).unwrap();
    println!("open with {} records: {:?}", store.snapshot().len(), begin.elapsed());
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn put(key: String) -> Change {
    Change::put(key, Expect::Any, |revision| {
        let mut value = format!("{{\"resourceVersion\":\"{revision}\"").into_bytes();
        value.resize(VALUE_BYTES, b' ');
        Bytes::from(value)
    })
}

async fn rate(store: &Store, clients: usize) -> f64 {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut count = 0u64;
                while begin.elapsed() < SPAN {
                    store.commit(vec![put(format!("/core/pods/ns/{client}-{}", count % 50))]).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    total as f64 / begin.elapsed().as_secs_f64()
}
