//! What the controllers know of the cluster: one watch a kind, shared by all of them.
//!
//! A `Cache` answers reads from memory, with indexes by namespace and by owner, so no reconcile lists anything. It is
//! also written through: what a create, patch or delete answered is put in at once, newer versions winning. A controller
//! that runs again before the watch has caught up therefore sees its own writes, and needs no bookkeeping of what it expects.
//!
//! Handlers run on every change, inside the watch's task: they only compute keys and put them in queues.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Namespace (empty for what is cluster-wide) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A change of one object: what it was and what it is.
pub struct Change<'a, K> {
    /// `None`: it is new here.
    pub old: Option<&'a Arc<K>>,
    /// `None`: it is gone.
    pub new: Option<&'a Arc<K>>,
}

impl<K> Change<'_, K> {
    /// The newest form that is known.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.or(self.old)
    }
}

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// Uids whose deletion was seen, so that a late answer to a write does not bring them back.
const TOMBSTONES_MAX: usize = 8192;

struct Inner<K> {
    objects: HashMap<Key, Arc<K>>,
    by_namespace: HashMap<String, BTreeSet<String>>,
    by_owner: HashMap<String, HashSet<Key>>,
    tombstones: HashSet<String>,
    tombstone_order: VecDeque<String>,
    /// Keys of the list in progress, and of writes since it began; `None` outside a list.
    relisting: Option<HashSet<Key>>,
}

/// The objects of one kind. Cheap to clone; all clones are one.
pub struct Cache<K: 'static> {
    inner: Arc<RwLock<Inner<K>>>,
    handlers: Arc<Mutex<Arc<Vec<Handler<K>>>>>,
    synced: Arc<watch::Sender<bool>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), handlers: self.handlers.clone(), synced: self.synced.clone() }
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner {
            objects: HashMap::new(),
            by_namespace: HashMap::new(),
            by_owner: HashMap::new(),
            tombstones: HashSet::new(),
            tombstone_order: VecDeque::new(),
            relisting: None,
        };
        Self {
            inner: Arc::new(RwLock::new(inner)),
            handlers: Arc::new(Mutex::new(Arc::new(Vec::new()))),
            synced: Arc::new(watch::channel(false).0),
        }
    }
}

impl<K: Resource + Clone + Send + Sync + 'static> Cache<K> {
    /// Calls `handler` on every change from now on.
    pub fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock();
        let mut all: Vec<Handler<K>> = Vec::new();
        // Registration happens before the watch runs, so the list is never shared yet.
        if let Some(list) = Arc::get_mut(&mut handlers) {
            all.append(list);
        }
        all.push(Box::new(handler));
        *handlers = Arc::new(all);
    }

    /// The object, if it exists.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let names = inner.by_namespace.get(namespace);
        let keys = names.into_iter().flatten().map(|name| Key::new(namespace, name));
        keys.filter_map(|key| inner.objects.get(&key).cloned()).collect()
    }

    /// The objects that name `uid` among their owners, by name.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let keys = inner.by_owner.get(uid).into_iter().flatten();
        let mut owned: Vec<Arc<K>> = keys.filter_map(|key| inner.objects.get(key).cloned()).collect();
        owned.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        owned
    }

    /// Returns once the first list is in.
    pub async fn wait_synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let mut synced = self.synced.subscribe();
        let _always_ok = synced.wait_for(|synced| *synced).await;
    }

    /// Puts in what a write answered, unless something newer is known or the object is known to be gone.
    pub fn observe(&self, object: K) {
        self.apply(object, true);
    }

    /// Takes out what a delete removed at once.
    pub fn forget(&self, object: &K) {
        self.remove(&Key::of(object), object.meta().uid.as_deref());
    }

    fn apply(&self, object: K, written: bool) {
        let (old, new) = {
            let mut inner = self.inner.write();
            let key = Key::of(&object);
            let buried = object.meta().uid.as_ref().is_some_and(|uid| inner.tombstones.contains(uid));
            if buried && written {
                return;
            }
            let current = inner.objects.get(&key);
            if current.is_some_and(|current| !is_newer(&object, current.as_ref())) {
                if let Some(listed) = &mut inner.relisting {
                    listed.insert(key);
                }
                return;
            }
            let new = Arc::new(object);
            let old = inner.insert(key, new.clone());
            (old, new)
        };
        self.tell(old.as_ref(), Some(&new));
    }

    fn remove(&self, key: &Key, uid: Option<&str>) {
        let removed = {
            let mut inner = self.inner.write();
            let known_uid = inner.objects.get(key).and_then(|known| known.meta().uid.clone());
            if let Some(uid) = uid {
                inner.bury(uid.to_owned());
                // A successor of the same name stays.
                if known_uid.is_some_and(|known| known != uid) {
                    return;
                }
            }
            inner.take(key)
        };
        if let Some(old) = removed {
            self.tell(Some(&old), None);
        }
    }

    fn tell(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let handlers = self.handlers.lock().clone();
        for handler in handlers.iter() {
            handler(Change { old, new });
        }
    }

    fn begin_list(&self) {
        self.inner.write().relisting = Some(HashSet::new());
    }

    /// What the list did not name, and no write since has, is gone.
    fn end_list(&self) {
        let gone: Vec<(Key, Option<String>)> = {
            let mut inner = self.inner.write();
            let listed = inner.relisting.take().unwrap_or_default();
            let unlisted = inner.objects.iter().filter(|(key, _)| !listed.contains(*key));
            unlisted.map(|(key, object)| (key.clone(), object.meta().uid.clone())).collect()
        };
        for (key, uid) in gone {
            self.remove(&key, uid.as_deref());
        }
        self.synced.send_replace(true);
    }

    /// Keeps the cache in step with the cluster until it is dropped. Failures are retried with backoff.
    pub async fn follow(self, api: Api<K>)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let mut events = cluster::watch(api, watcher::Config::default());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take_in(event),
                Err(error) => {
                    let kind = std::any::type_name::<K>();
                    tracing::warn!(kind, error = %chain(&error), "a watch failed; it is retried");
                }
            }
        }
    }

    fn take_in(&self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.begin_list(),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => self.apply(object, false),
            watcher::Event::InitDone => self.end_list(),
            watcher::Event::Delete(object) => self.remove(&Key::of(&object), object.meta().uid.as_deref()),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl<K: Resource> Inner<K> {
    fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            self.unindex_owners(&key, old);
        }
        self.by_namespace.entry(key.namespace.clone()).or_default().insert(key.name.clone());
        for owner in object.owner_references() {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if let Some(listed) = &mut self.relisting {
            listed.insert(key);
        }
        old
    }

    fn take(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        self.unindex_owners(key, &old);
        if let Some(names) = self.by_namespace.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.by_namespace.remove(&key.namespace);
            }
        }
        Some(old)
    }

    fn unindex_owners(&mut self, key: &Key, object: &K) {
        for owner in object.owner_references() {
            let Some(keys) = self.by_owner.get_mut(&owner.uid) else { continue };
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(&owner.uid);
            }
        }
    }

    fn bury(&mut self, uid: String) {
        if !self.tombstones.insert(uid.clone()) {
            return;
        }
        self.tombstone_order.push_back(uid);
        if self.tombstone_order.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.tombstone_order.pop_front()
        {
            self.tombstones.remove(&oldest);
        }
    }
}

/// Versions are comparable integers (KEP-5504). A server whose versions are not gets the last word always.
fn is_newer<K: Resource>(object: &K, than: &K) -> bool {
    if object.meta().uid != than.meta().uid {
        return true;
    }
    let version = |of: &K| of.meta().resource_version.as_ref()?.parse::<u64>().ok();
    match (version(object), version(than)) {
        (Some(new), Some(old)) => new > old,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn object(name: &str, uid: &str, version: u32, owner: Option<&str>) -> ConfigMap {
        let owners =
            owner.map(|uid| serde_json::json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid}));
        let owners: Vec<_> = owners.into_iter().collect();
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": name, "uid": uid,
            "resourceVersion": version.to_string(), "ownerReferences": owners}}))
        .unwrap()
    }

    fn version(cache: &Cache<ConfigMap>, name: &str) -> Option<String> {
        cache.get(&Key::new("ns", name)).and_then(|object| object.resource_version())
    }

    #[test]
    fn an_older_event_does_not_undo_a_write_of_our_own() {
        let cache = Cache::default();
        cache.observe(object("a", "1", 7, None));
        cache.take_in(watcher::Event::Apply(object("a", "1", 5, None)));
        assert_eq!(version(&cache, "a").as_deref(), Some("7"));
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_is_gone() {
        let cache = Cache::default();
        cache.take_in(watcher::Event::Apply(object("a", "1", 5, None)));
        cache.take_in(watcher::Event::Delete(object("a", "1", 6, None)));
        cache.observe(object("a", "1", 5, None));
        assert_eq!(version(&cache, "a"), None);
        cache.observe(object("a", "2", 8, None));
        cache.take_in(watcher::Event::Delete(object("a", "1", 6, None)));
        assert_eq!(version(&cache, "a").as_deref(), Some("8"), "a successor of the same name stays");
    }

    #[test]
    fn a_new_list_removes_what_it_does_not_name_except_what_was_just_written() {
        let cache = Cache::default();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        cache.on_change(move |change| {
            count.fetch_add(usize::from(change.new.is_none()), Ordering::Relaxed);
        });
        for name in ["a", "b"] {
            cache.take_in(watcher::Event::Apply(object(name, name, 5, None)));
        }
        cache.take_in(watcher::Event::Init);
        cache.take_in(watcher::Event::InitApply(object("a", "a", 5, None)));
        cache.observe(object("c", "c", 9, None));
        cache.take_in(watcher::Event::InitDone);
        assert_eq!(
            [version(&cache, "a"), version(&cache, "b"), version(&cache, "c")].map(|v| v.is_some()),
            [true, false, true]
        );
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn owners_are_indexed_and_follow_changes() {
        let cache = Cache::default();
        cache.take_in(watcher::Event::Apply(object("a", "1", 5, Some("o1"))));
        cache.take_in(watcher::Event::Apply(object("b", "2", 5, Some("o1"))));
        cache.take_in(watcher::Event::Apply(object("a", "1", 6, Some("o2"))));
        let names = |uid| cache.owned_by(uid).iter().map(|o| o.name_any()).collect::<Vec<_>>();
        assert_eq!((names("o1"), names("o2")), (vec!["b".to_owned()], vec!["a".to_owned()]));
        cache.take_in(watcher::Event::Delete(object("b", "2", 7, Some("o1"))));
        assert!(names("o1").is_empty());
        assert_eq!(cache.in_namespace("ns").len(), 1);
    }
}
