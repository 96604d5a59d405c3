//! On which CPUs threads run, where some memory is near them and other memory far.
//!
//! A machine may have several nodes, each with CPUs and memory of its own. A thread that wanders between nodes leaves
//! its buffers behind. So request loops and compute threads are dealt to the nodes in proportion to the CPUs that the
//! process may use there (cpusets and affinity count), and each stays within its node; which of a node's CPUs it runs
//! on is the kernel's business, who knows what else there is to do.
//!
//! Nothing is bound on a machine of one node, nor where all threads fit into one: which node has room, the kernel alone
//! knows, and servers that each chose for themselves would all choose the same.
//!
//! Not here: how many threads there are (`server`, `compute`).

use std::path::Path;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs by node.
type Nodes = Vec<Vec<usize>>;

/// Where the kernel tells.
const NODES: &str = "/sys/devices/system/node";

/// The nodes, as far as this process may use them, and all CPUs that it may use.
struct Machine {
    nodes: Nodes,
    all: CpuSet,
}

fn machine() -> Option<&'static Machine> {
    static MACHINE: OnceLock<Option<Machine>> = OnceLock::new();
    let learn = || {
        let all = sched_getaffinity(None).ok()?;
        Some(Machine { nodes: usable(read(Path::new(NODES)), &all), all })
    };
    MACHINE.get_or_init(learn).as_ref()
}

/// Learns what this process may use. To be called before any thread is bound: threads begin where those are that start
/// them.
pub(crate) fn look() {
    let _ = machine();
}

/// Keeps the calling thread, which is number `index` of `of` of its kind, within its node.
pub(crate) fn bind(index: usize, of: usize) {
    let Some(machine) = machine() else { return };
    let Some(cpus) = choose(&machine.nodes, of).get(index).and_then(|node| machine.nodes.get(*node)) else {
        return;
    };
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::debug!(%error, index, "a thread cannot be kept within its node");
    }
}

/// Lets the calling thread run wherever the process may, whoever started it.
pub(crate) fn free() {
    if let Some(machine) = machine().filter(|machine| machine.nodes.len() > 1) {
        let _ = sched_setaffinity(None, &machine.all);
    }
}

/// The node of each thread; empty where none is to be bound. Each next thread goes to the node where threads then have
/// the most CPUs each, so that as many threads as CPUs are one for each.
fn choose(nodes: &[Vec<usize>], threads: usize) -> Vec<usize> {
    let largest = nodes.iter().map(Vec::len).max().unwrap_or(0);
    if nodes.len() < 2 || threads <= largest {
        return Vec::new();
    }
    let mut counts = vec![0_usize; nodes.len()];
    let mut chosen = Vec::with_capacity(threads);
    for _ in 0..threads {
        // CPUs for each thread of a node, were this one its next: compared crosswise, which has no rounding.
        let roomier = |one: usize, other: usize| {
            nodes[one].len() * (counts[other] + 1) > nodes[other].len() * (counts[one] + 1)
        };
        let best = (1..nodes.len()).fold(0, |best, node| if roomier(node, best) { node } else { best });
        counts[best] += 1;
        chosen.push(best);
    }
    chosen
}

/// Of each node the CPUs in the set; nodes without any are left out.
fn usable(nodes: Nodes, set: &CpuSet) -> Nodes {
    let own = |cpus: Vec<usize>| -> Vec<usize> {
        cpus.into_iter().filter(|cpu| *cpu < CpuSet::MAX_CPU && set.is_set(*cpu)).collect()
    };
    nodes.into_iter().map(own).filter(|cpus| !cpus.is_empty()).collect()
}

/// The nodes in the order of their numbers; none where the kernel tells nothing.
fn read(folder: &Path) -> Nodes {
    let Ok(entries) = std::fs::read_dir(folder) else { return Nodes::new() };
    let mut nodes: Vec<(usize, Vec<usize>)> = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let list = std::fs::read_to_string(entry.path().join("cpulist"));
        if let (Some(number), Ok(list)) = (number, list) {
            nodes.push((number, parse(&list).unwrap_or_default()));
        }
    }
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, cpus)| cpus).collect()
}

/// Reads `0-3,8,10-11`; `None` for anything else.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= CpuSet::MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(sizes: &[usize]) -> Nodes {
        let mut next = 0..;
        sizes.iter().map(|size| next.by_ref().take(*size).collect()).collect()
    }

    #[test]
    fn threads_are_dealt_to_nodes_in_proportion_to_their_cpus() {
        for (sizes, threads, want) in [
            // One node, or room in one for all: nothing is bound.
            (&[][..], 4, &[][..]),
            (&[8], 8, &[]),
            (&[8, 8], 8, &[]),
            (&[2, 2], 4, &[2, 2]),
            (&[2, 2], 3, &[2, 1]),
            (&[1, 3], 4, &[1, 3]),
            (&[4, 4], 16, &[8, 8]),
            (&[6, 2], 16, &[12, 4]),
            (&[1, 1, 1], 2, &[1, 1, 0]),
        ] {
            let chosen = choose(&nodes(sizes), threads);
            let counts: Vec<usize> =
                (0..sizes.len()).map(|node| chosen.iter().filter(|own| **own == node).count()).collect();
            match want {
                [] => assert!(chosen.is_empty(), "{sizes:?} {threads}"),
                want => assert_eq!(counts, want, "{sizes:?} {threads}"),
            }
        }
    }

    #[test]
    fn neighbours_among_threads_are_on_different_nodes_while_there_is_room() {
        assert_eq!(choose(&nodes(&[2, 2]), 4), [0, 1, 0, 1]);
    }

    #[test]
    fn lists_of_cpus_are_read_and_those_of_others_left_out() {
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse("\n"), Some(Vec::new()), "a node of memory alone");
        for wrong in ["a", "3-1", "1-", "0-99999999"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let mut set = CpuSet::new();
        [1, 4, 5].iter().for_each(|cpu| set.set(*cpu));
        assert_eq!(usable(vec![vec![0, 1], vec![2, 3], vec![4, 5]], &set), [vec![1], vec![4, 5]]);
    }

    #[test]
    fn nodes_come_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, list) in [("node10", "3"), ("node2", "1-2"), ("node0", "0"), ("possible", "0-2")] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
            std::fs::write(folder.path().join(name).join("cpulist"), list).expect("written");
        }
        assert_eq!(read(folder.path()), [vec![0], vec![1, 2], vec![3]]);
        assert!(read(&folder.path().join("gone")).is_empty());
    }
}
