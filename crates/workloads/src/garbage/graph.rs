//! Who owns whom, over all objects of the cluster, and what follows for one object: pure.
//!
//! The rules are upstream's garbage collector's. An object whose owners are all gone is deleted. One with an owner left only
//! loses its references to the others. An owner that is deleted in the foreground waits for those dependents that block it;
//! one that is deleted with `orphan` first lets go of them.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use crate::cache::Key;

/// The finalizer of a delete that waits for dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a delete that lets dependents live.
pub const ORPHAN: &str = "orphan";
/// Owners that are known not to exist.
const ABSENT_MAX: usize = 16_384;

/// An object as the graph knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Which resource it is of: the plural with its group, as `jobs.batch`.
    pub resource: String,
    /// Its namespace and name.
    pub key: Key,
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its version, as a precondition of changes.
    pub version: Option<String>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether a delete is under way.
    pub deleting: bool,
}

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Find out whether this owner exists, which the graph does not know.
    LookUp(OwnerReference),
    /// Delete the object of that uid.
    Delete(String, PropagationPolicy),
    /// Take the owners with these uids off the object of that uid.
    Strip(String, Vec<String>),
    /// Take the finalizer off the object of that uid.
    Release(String, &'static str),
}

/// All objects.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, BTreeSet<String>>,
    by_namespace: HashMap<String, HashSet<String>>,
    absent: HashSet<String>,
    absent_order: VecDeque<String>,
}

impl Node {
    /// Reads an object's metadata; `None` without a uid.
    pub fn of(resource: &str, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            resource: resource.to_owned(),
            key: Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone()?),
            uid: meta.uid.clone()?,
            version: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        })
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|has| has == finalizer)
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }
}

enum Owner {
    Alive,
    WaitsForUs,
    Gone,
    Unknown,
}

impl Graph {
    /// Takes an object in, or its new form. Returns the uids to look at.
    pub fn upsert(&mut self, node: Node) -> Vec<String> {
        let uid = node.uid.clone();
        let was = self.nodes.get(&uid);
        if was.is_some_and(|was| same_shape(was, &node)) {
            self.nodes.insert(uid, node);
            return Vec::new();
        }
        let began_deleting = node.deleting && was.is_none_or(|was| !was.deleting);
        let owners_before: Vec<String> = was.into_iter().flat_map(owner_uids).collect();
        for owner in &owners_before {
            self.unlink(owner, &uid);
        }
        for owner in owner_uids(&node) {
            self.dependents.entry(owner).or_default().insert(uid.clone());
        }
        self.by_namespace.entry(node.key.namespace.clone()).or_default().insert(uid.clone());
        self.absent.remove(&uid);
        let mut affected = vec![uid.clone()];
        if began_deleting {
            affected.extend(self.dependents_of(&uid));
        }
        affected.extend(owners_before);
        self.nodes.insert(uid, node);
        affected
    }

    /// An object is gone. Returns the uids to look at: who depended on it, and owners that may have waited for it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let owners: Vec<String> = owner_uids(&node).collect();
        owners.iter().for_each(|owner| self.unlink(owner, uid));
        if let Some(members) = self.by_namespace.get_mut(&node.key.namespace) {
            members.remove(uid);
            if members.is_empty() {
                self.by_namespace.remove(&node.key.namespace);
            }
        }
        self.mark_absent(uid);
        self.dependents_of(uid).into_iter().chain(owners).collect()
    }

    /// Notes that no object has this uid.
    pub fn mark_absent(&mut self, uid: &str) {
        if !self.absent.insert(uid.to_owned()) {
            return;
        }
        self.absent_order.push_back(uid.to_owned());
        if self.absent_order.len() > ABSENT_MAX
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// The object of that uid.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects of a namespace.
    pub fn members(&self, namespace: &str) -> Vec<Node> {
        let uids = self.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid).cloned()).collect()
    }

    /// The uids of all objects of a resource.
    pub fn of_resource(&self, resource: &str) -> Vec<String> {
        let of = self.nodes.values().filter(|node| node.resource == resource);
        of.map(|node| node.uid.clone()).collect()
    }

    /// The steps that the object's state asks for.
    pub fn decide(&self, uid: &str) -> Vec<Step> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        if node.deleting && node.has(ORPHAN) {
            return self.let_go(node);
        }
        if node.waits_for_dependents() {
            return self.wait_for_dependents(node);
        }
        if node.deleting || node.owners.is_empty() {
            return Vec::new();
        }
        self.judge_owners(node)
    }

    fn let_go(&self, node: &Node) -> Vec<Step> {
        let dependents = self.dependents_of(&node.uid);
        if dependents.is_empty() {
            return vec![Step::Release(node.uid.clone(), ORPHAN)];
        }
        dependents.into_iter().map(|of| Step::Strip(of, vec![node.uid.clone()])).collect()
    }

    fn wait_for_dependents(&self, node: &Node) -> Vec<Step> {
        let dependents = self.dependents_of(&node.uid);
        let blocks = |of: &&String| {
            let owners = self.nodes.get(*of).map(|node| node.owners.as_slice()).unwrap_or_default();
            owners.iter().any(|owner| owner.uid == node.uid && owner.block_owner_deletion == Some(true))
        };
        if !dependents.iter().any(|of| blocks(&of)) {
            return vec![Step::Release(node.uid.clone(), FOREGROUND)];
        }
        Vec::new()
    }

    fn judge_owners(&self, node: &Node) -> Vec<Step> {
        let (mut alive, mut waiting, mut gone, mut unknown) = (false, Vec::new(), Vec::new(), Vec::new());
        for owner in &node.owners {
            match self.owner_state(node, owner) {
                Owner::Alive => alive = true,
                Owner::WaitsForUs => waiting.push(owner.uid.clone()),
                Owner::Gone => gone.push(owner.uid.clone()),
                Owner::Unknown => unknown.push(Step::LookUp(owner.clone())),
            }
        }
        if !unknown.is_empty() {
            return unknown;
        }
        if alive {
            gone.extend(waiting);
            return if gone.is_empty() { Vec::new() } else { vec![Step::Strip(node.uid.clone(), gone)] };
        }
        let has_dependents = self.dependents.get(&node.uid).is_some_and(|of| !of.is_empty());
        let policy = match () {
            () if !waiting.is_empty() && has_dependents => PropagationPolicy::Foreground,
            () if node.has(ORPHAN) => PropagationPolicy::Orphan,
            () if node.has(FOREGROUND) => PropagationPolicy::Foreground,
            () => PropagationPolicy::Background,
        };
        vec![Step::Delete(node.uid.clone(), policy)]
    }

    fn owner_state(&self, node: &Node, owner: &OwnerReference) -> Owner {
        match self.nodes.get(&owner.uid) {
            Some(of) => {
                // An owner in another namespace is none, as the API says.
                let reachable = of.key.namespace.is_empty() || of.key.namespace == node.key.namespace;
                match reachable {
                    false => Owner::Gone,
                    true if of.waits_for_dependents() => Owner::WaitsForUs,
                    true => Owner::Alive,
                }
            }
            None if self.absent.contains(&owner.uid) => Owner::Gone,
            None => Owner::Unknown,
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    fn unlink(&mut self, owner: &str, uid: &str) {
        if let Some(of) = self.dependents.get_mut(owner) {
            of.remove(uid);
            if of.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// Whether nothing changed that the collector looks at.
fn same_shape(a: &Node, b: &Node) -> bool {
    a.deleting == b.deleting && a.owners == b.owners && a.finalizers == b.finalizers && a.key == b.key
}

fn owner_uids(node: &Node) -> impl Iterator<Item = String> {
    node.owners.iter().map(|owner| owner.uid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), block_owner_deletion: Some(true), ..OwnerReference::default() }
    }

    fn node(uid: &str, owners: &[&str]) -> Node {
        Node {
            resource: "things".into(),
            key: Key::new("ns", uid),
            uid: uid.into(),
            version: None,
            owners: owners.iter().map(|uid| owner(uid)).collect(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn deleting(mut node: Node, finalizer: &str) -> Node {
        node.deleting = true;
        node.finalizers = vec![finalizer.to_owned()];
        node
    }

    fn graph(nodes: &[Node]) -> Graph {
        let mut graph = Graph::default();
        nodes.iter().for_each(|node| drop(graph.upsert(node.clone())));
        graph
    }

    fn delete(uid: &str, policy: PropagationPolicy) -> Vec<Step> {
        vec![Step::Delete(uid.into(), policy)]
    }

    #[test]
    fn what_lost_all_owners_is_deleted_and_what_lost_one_lives_on() {
        let mut graph = graph(&[node("a", &[]), node("b", &[]), node("x", &["a"]), node("y", &["a", "b"])]);
        assert_eq!(graph.decide("x"), []);
        assert_eq!(graph.remove("a"), ["x", "y"]);
        assert_eq!(graph.decide("x"), delete("x", PropagationPolicy::Background));
        assert_eq!(graph.decide("y"), [Step::Strip("y".into(), vec!["a".into()])]);
    }

    #[test]
    fn an_owner_that_nobody_saw_is_looked_up_before_anything_is_deleted() {
        let mut graph = graph(&[node("x", &["far"])]);
        assert_eq!(graph.decide("x"), [Step::LookUp(owner("far"))]);
        graph.mark_absent("far");
        assert_eq!(graph.decide("x"), delete("x", PropagationPolicy::Background));
    }

    #[test]
    fn an_owner_in_another_namespace_is_none() {
        let mut far = node("far", &[]);
        far.key = Key::new("elsewhere", "far");
        let mut wide = node("wide", &[]);
        wide.key = Key::new("", "wide");
        let graph = graph(&[far, wide, node("x", &["far"]), node("y", &["wide"])]);
        assert_eq!(graph.decide("x"), delete("x", PropagationPolicy::Background));
        assert_eq!(graph.decide("y"), []);
    }

    #[test]
    fn a_foreground_delete_takes_dependents_first() {
        let mut graph = graph(&[node("a", &[]), node("x", &["a"]), node("z", &["x"])]);
        let affected = graph.upsert(deleting(node("a", &[]), FOREGROUND));
        assert_eq!(affected, ["a", "x"]);
        assert_eq!(graph.decide("a"), []);
        assert_eq!(graph.decide("x"), delete("x", PropagationPolicy::Foreground));
        assert_eq!(graph.remove("z"), ["x"]);
        assert_eq!(graph.decide("x"), delete("x", PropagationPolicy::Background));
        assert_eq!(graph.remove("x"), ["a"]);
        assert_eq!(graph.decide("a"), [Step::Release("a".into(), FOREGROUND)]);
    }

    #[test]
    fn a_dependent_that_does_not_block_is_not_waited_for() {
        let mut free = node("x", &["a"]);
        free.owners[0].block_owner_deletion = None;
        let graph = graph(&[deleting(node("a", &[]), FOREGROUND), free]);
        assert_eq!(graph.decide("a"), [Step::Release("a".into(), FOREGROUND)]);
    }

    #[test]
    fn orphans_are_let_go_before_their_owner_goes() {
        let mut graph = graph(&[deleting(node("a", &[]), ORPHAN), node("x", &["a"])]);
        assert_eq!(graph.decide("a"), [Step::Strip("x".into(), vec!["a".into()])]);
        assert_eq!(graph.upsert(node("x", &[])), ["x", "a"]);
        assert_eq!(graph.decide("a"), [Step::Release("a".into(), ORPHAN)]);
    }

    #[test]
    fn a_namespace_knows_its_members() {
        let mut graph = graph(&[node("a", &[]), node("b", &[])]);
        assert_eq!(graph.members("ns").len(), 2);
        graph.remove("a");
        graph.remove("b");
        assert!(graph.members("ns").is_empty());
    }
}
