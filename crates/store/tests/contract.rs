//! The store's contract, as its users rely on it: conflicts, atomicity, history, watches, restarts.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::path::Path;

use bytes::Bytes;
use store::{Change, Durability, Error, Event, EventKind, Expect, Options, Store, Watch};

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default()).unwrap()
}

fn put(key: &str, expect: Expect, text: &str) -> Change {
    let text = text.to_owned();
    Change::put(key, expect, move |revision| Bytes::from(format!("{text}@{revision}")))
}

fn delete(key: &str, expect: Expect) -> Change {
    Change::delete(key, expect, |revision, old| {
        Bytes::from(format!("{}x{revision}", String::from_utf8_lossy(&old.value)))
    })
}

async fn one(store: &Store, change: Change) -> Result<u64, Error> {
    store.commit(vec![change]).await.map(|records| records[0].modified)
}

async fn events(watch: &mut Watch, count: usize) -> Vec<(bool, String)> {
    let mut out = Vec::new();
    for _ in 0..count {
        let event: Event = watch.next().await.unwrap().unwrap();
        out.push((event.kind == EventKind::Delete, String::from_utf8(event.record.value.to_vec()).unwrap()));
    }
    out
}

#[tokio::test]
async fn each_change_gets_its_own_revision_and_its_value_carries_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let records =
        store.commit(vec![put("/a/1", Expect::Absent, "x"), put("/a/2", Expect::Any, "y")]).await.unwrap();
    assert_eq!(records.iter().map(|r| r.modified).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.snapshot().get("/a/2").unwrap().value, "y@2");
    let again = store.commit(vec![put("/a/1", Expect::Revision(1), "z")]).await.unwrap();
    assert_eq!((again[0].created, again[0].modified), (1, 3));
    assert_eq!(store.wait_revision(3).await, 3);
}

#[tokio::test]
async fn expectations_that_fail_say_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    one(&store, put("/a/1", Expect::Any, "x")).await.unwrap();
    let conflict = |found| move |e: &Error| matches!(e, Error::Conflict { found: f, .. } if *f == found);
    type Check = Box<dyn Fn(&Error) -> bool>;
    let cases: [(Change, Check); 6] = [
        (put("/a/1", Expect::Absent, "x"), Box::new(conflict(Some(1)))),
        (put("/a/1", Expect::Revision(9), "x"), Box::new(conflict(Some(1)))),
        (put("/a/2", Expect::Revision(9), "x"), Box::new(|e| matches!(e, Error::NotFound { .. }))),
        (delete("/a/2", Expect::Any), Box::new(|e| matches!(e, Error::NotFound { .. }))),
        (delete("/a/1", Expect::Revision(2)), Box::new(conflict(Some(1)))),
        (
            Change::put("/a/3", Expect::Any, |_| panic!("a bad serialiser")),
            Box::new(|e| matches!(e, Error::Render { .. })),
        ),
    ];
    for (at, (change, is_right)) in cases.into_iter().enumerate() {
        let error = one(&store, change).await.unwrap_err();
        assert!(is_right(&error), "case {at}: {error}");
    }
    assert_eq!(one(&store, delete("/a/1", Expect::Revision(1))).await.unwrap(), 2, "the writer lives on");
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let changes = vec![put("/a/1", Expect::Any, "x"), put("/a/2", Expect::Revision(5), "y")];
    assert!(store.commit(changes).await.is_err());
    assert_eq!((store.revision(), store.snapshot().len()), (0, 0));
    let changes = vec![put("/a/1", Expect::Absent, "x"), delete("/a/1", Expect::Revision(1))];
    store.commit(changes).await.unwrap();
    assert_eq!((store.revision(), store.snapshot().len()), (2, 0));
}

#[tokio::test]
async fn a_snapshot_never_changes_and_old_ones_can_be_had_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..5 {
        one(&store, put(&format!("/p/ns/{n}"), Expect::Any, "x")).await.unwrap();
    }
    one(&store, put("/pq/ns/1", Expect::Any, "x")).await.unwrap();
    let before = store.snapshot();
    one(&store, delete("/p/ns/3", Expect::Any)).await.unwrap();
    one(&store, put("/p/ns/0", Expect::Any, "new")).await.unwrap();
    let names = |s: &store::Snapshot, after: Option<&str>| {
        s.range("/p/ns/", after).map(|r| format!("{}={}", r.key, r.modified)).collect::<Vec<_>>()
    };
    let old = ["/p/ns/0=1", "/p/ns/1=2", "/p/ns/2=3", "/p/ns/3=4", "/p/ns/4=5"];
    assert_eq!(names(&before, None), old);
    assert_eq!(names(&store.snapshot_at(6).unwrap(), None), old);
    assert_eq!(names(&store.snapshot(), Some("/p/ns/1")), ["/p/ns/2=3", "/p/ns/4=5"]);
    assert_eq!(store.snapshot_at(0).unwrap().len(), 0);
    assert!(matches!(store.snapshot_at(99), Err(Error::Future { current: 8, .. })));
}

#[tokio::test]
async fn a_watch_gets_what_it_missed_and_then_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    one(&store, put("/a/x/1", Expect::Any, "a")).await.unwrap();
    one(&store, put("/b/x/1", Expect::Any, "b")).await.unwrap();
    let mut all = store.watch("/a/", 0).unwrap();
    let mut exact = store.watch("/a/x/1", 1).unwrap();
    let mut other = store.watch("/a/y/", 0).unwrap();
    one(&store, put("/a/x/1", Expect::Any, "c")).await.unwrap();
    one(&store, put("/a/x/12", Expect::Any, "n")).await.unwrap();
    one(&store, delete("/a/x/1", Expect::Any)).await.unwrap();
    let want =
        [(false, "a@1"), (false, "c@3"), (false, "n@4"), (true, "c@3x5")].map(|(d, t)| (d, t.to_owned()));
    assert_eq!(events(&mut all, 4).await, want);
    assert_eq!(all.progress(), Some(5));
    assert_eq!(other.progress(), Some(5));
    assert_eq!(exact.progress(), None);
    let first = exact.next().await.unwrap().unwrap();
    assert_eq!(first.previous.unwrap().modified, 1);
    store.close();
    assert!(other.next().await.is_none(), "nothing happened there");
    assert!(matches!(one(&store, put("/a", Expect::Any, "")).await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn watch_resumes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    one(&store, put("/a/1", Expect::Any, "a")).await.unwrap();
    one(&store, put("/a/1", Expect::Any, "b")).await.unwrap();
    one(&store, delete("/a/1", Expect::Any)).await.unwrap();
    one(&store, put("/a/1", Expect::Any, "c")).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.revision(), 4);
    assert_eq!(store.snapshot().get("/a/1").unwrap().created, 4);
    assert_eq!(store.snapshot_at(2).unwrap().get("/a/1").unwrap().value, "b@2");
    let mut watch = store.watch("/a/", 1).unwrap();
    let want = [(false, "b@2"), (true, "b@2x3"), (false, "c@4")].map(|(d, t)| (d, t.to_owned()));
    assert_eq!(events(&mut watch, 3).await, want);
    assert_eq!(one(&store, put("/a/2", Expect::Any, "")).await.unwrap(), 5);
}

#[tokio::test]
async fn history_is_bounded_also_on_disk_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history_events_max: 10, ..Options::default() };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    one(&store, put("/keep/1", Expect::Any, "k")).await.unwrap();
    for _ in 0..150 {
        let churn = (0..10).map(|n| put(&format!("/a/{n}"), Expect::Any, "x")).collect();
        store.commit(churn).await.unwrap();
    }
    assert!(matches!(store.watch("/a/", 5), Err(Error::Compacted { oldest: 1491, .. })));
    assert!(store.watch("/a/", 1491).is_ok());
    assert!(matches!(store.snapshot_at(1490), Err(Error::Compacted { .. })));
    drop(store);
    let rows: i64 = rusqlite::Connection::open(dir.path().join("cluster.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM log", [], |row| row.get(0))
        .unwrap();
    assert!(rows < 1000, "{rows} rows for 11 records");
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!((store.revision(), store.snapshot().len()), (1501, 11));
    assert_eq!(store.snapshot().get("/keep/1").unwrap().value, "k@1");
    assert!(matches!(store.watch("/a/", 5), Err(Error::Compacted { .. })));
    assert!(store.watch("/a/", 1500).is_ok());
}

#[tokio::test]
async fn a_slow_watcher_is_ended_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { watch_queue_max: 4, ..Options::default() }).unwrap();
    let mut slow = store.watch("/a/", 0).unwrap();
    for _ in 0..6 {
        one(&store, put("/a/1", Expect::Any, "x")).await.unwrap();
    }
    assert_eq!(events(&mut slow, 4).await.len(), 4);
    assert!(matches!(slow.next().await, Some(Err(Error::Lagged { bound: 4, .. }))));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn exempt_writes_are_visible_at_once_and_saved_by_a_clean_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("/a/", 0).unwrap();
    for _ in 0..3 {
        store.commit_with(vec![put("/a/1", Expect::Any, "x")], Durability::Exempt).await.unwrap();
    }
    assert_eq!(events(&mut watch, 3).await.len(), 3);
    drop(watch);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.revision(), 3);
    assert_eq!(one(&store, put("/a/1", Expect::Revision(3), "y")).await.unwrap(), 4);
}

#[test]
fn a_folder_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    assert!(matches!(Store::open(dir.path(), Options::default()), Err(Error::InUse { .. })));
}

#[tokio::test]
async fn concurrent_clients_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    one(&store, put("/n", Expect::Absent, "0")).await.unwrap();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut conflicts = 0;
                for _ in 0..20 {
                    loop {
                        let now = store.snapshot().get("/n").unwrap().modified;
                        match one(&store, put("/n", Expect::Revision(now), "")).await {
                            Ok(_) => break,
                            Err(Error::Conflict { .. }) => conflicts += 1,
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                conflicts
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(store.revision(), 161);
}
