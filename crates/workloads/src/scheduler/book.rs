//! What is placed where: the scheduler's account of every node, kept up to date change by change.
//!
//! A decision counts at once, before its binding is written and long before the watch tells of it; otherwise the next pod
//! would be given the same room.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use super::fit::{Misfit, NodeState, Request, fits};
use super::message::no_node_fits;
use crate::objects::{is_finished, node_of};

/// Nodes and the pods on them.
#[derive(Default)]
pub(super) struct Book {
    nodes: HashMap<String, NodeState>,
    placed: HashMap<String, (String, Request)>,
}

impl Book {
    /// Takes a node in, or its new form.
    pub(super) fn node(&mut self, node: &Node) {
        let mut state = NodeState::of(node);
        let state_name = &state.name.clone();
        for (_, request) in self.placed.values().filter(|(on, _)| on == state_name) {
            state.add(request);
        }
        self.nodes.insert(state.name.clone(), state);
    }

    /// Forgets a node; its pods stay counted in case it comes back.
    pub(super) fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Takes in a pod's newest form. Says whether room became free.
    pub(super) fn pod(&mut self, pod: &Pod) -> bool {
        let uid = pod.uid().unwrap_or_default();
        if is_finished(pod) {
            return self.pod_gone(&uid);
        }
        if let Some(node) = node_of(pod) {
            self.place(&uid, node, Request::of(pod));
        }
        false
    }

    /// A pod is gone. Says whether room became free.
    pub(super) fn pod_gone(&mut self, uid: &str) -> bool {
        let Some((node, request)) = self.placed.remove(uid) else { return false };
        if let Some(state) = self.nodes.get_mut(&node) {
            state.remove(&request);
        }
        true
    }

    /// Counts a pod on a node, wherever it was counted before.
    pub(super) fn place(&mut self, uid: &str, node: &str, request: Request) {
        if self.placed.get(uid).is_some_and(|(on, asks)| on == node && *asks == request) {
            return;
        }
        self.pod_gone(uid);
        if let Some(state) = self.nodes.get_mut(node) {
            state.add(&request);
        }
        self.placed.insert(uid.to_owned(), (node.to_owned(), request));
    }

    /// Whether the pod has its place, written or not.
    pub(super) fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// How many nodes there are.
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The node for a pod: the one with the largest free share, names breaking ties; else the sentence that says why not.
    pub(super) fn choose(&self, pod: &Pod, request: &Request, overcommit: bool) -> Result<String, String> {
        let mut misfits: Vec<Misfit> = Vec::new();
        let mut best: Option<&NodeState> = None;
        for node in self.nodes.values() {
            match fits(pod, request, node, overcommit) {
                Err(misfit) => misfits.push(misfit),
                Ok(()) => best = Some(best.map_or(node, |best| preferred(best, node))),
            }
        }
        best.map(|node| node.name.clone()).ok_or_else(|| no_node_fits(&misfits))
    }
}

fn preferred<'a>(a: &'a NodeState, b: &'a NodeState) -> &'a NodeState {
    let order = a.free_share().total_cmp(&b.free_share()).then_with(|| b.name.cmp(&a.name));
    if order.is_ge() { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, cpu: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu}}}))
            .unwrap()
    }

    fn pod(uid: &str, cpu: &str, on: Option<&str>, phase: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": uid}, "status": {"phase": phase}, "spec": {"nodeName": on,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_decision_takes_its_room_at_once_and_an_end_gives_it_back() {
        let mut book = Book::default();
        book.node(&node("a", "1"));
        let first = pod("1", "600m", None, "Pending");
        let chosen = book.choose(&first, &Request::of(&first), false).unwrap();
        book.place("1", &chosen, Request::of(&first));
        let second = pod("2", "600m", None, "Pending");
        assert!(book.choose(&second, &Request::of(&second), false).is_err());
        assert!(!book.pod(&first), "an older form of the pod does not undo the decision");
        assert!(book.choose(&second, &Request::of(&second), false).is_err());
        assert!(book.pod(&pod("1", "600m", Some("a"), "Succeeded")));
        assert_eq!(book.choose(&second, &Request::of(&second), false).unwrap(), "a");
    }

    #[test]
    fn the_emptiest_node_is_preferred() {
        let mut book = Book::default();
        book.node(&node("a", "4"));
        book.node(&node("b", "4"));
        book.place("1", "a", Request::of(&pod("1", "1", None, "")));
        let next = pod("2", "1", None, "Pending");
        assert_eq!(book.choose(&next, &Request::of(&next), false).unwrap(), "b");
    }

    #[test]
    fn pods_that_were_there_before_their_node_are_counted() {
        let mut book = Book::default();
        book.pod(&pod("1", "1", Some("a"), "Running"));
        book.node(&node("a", "1"));
        let next = pod("2", "1", None, "Pending");
        assert!(book.choose(&next, &Request::of(&next), false).is_err());
    }
}
