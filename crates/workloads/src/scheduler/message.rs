//! The sentence that says why a pod waits, in upstream's form, because people and programs search for it. Pure.
//!
//! `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: …`
//! Preemption is not done here; its half of the sentence says what upstream's would when it finds no victim.

use std::collections::BTreeMap;

use super::fit::Misfit;

/// The message when every node was looked at and none fits.
pub fn no_node_fits(misfits: &[Misfit]) -> String {
    if misfits.is_empty() {
        return "no nodes available to schedule pods".to_owned();
    }
    let total = misfits.len();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in misfits.iter().flat_map(|misfit| &misfit.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{total} nodes are available: {}. {}", reasons.join(", "), preemption(misfits))
}

/// The message when the pod itself must wait for something, whatever the node.
pub fn not_yet(reason: &str, nodes: usize) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let hopeless = Misfit { reasons: Vec::new(), unresolvable: true };
    format!("0/{nodes} nodes are available: {reason}. {}", preemption(&vec![hopeless; nodes]))
}

fn preemption(misfits: &[Misfit]) -> String {
    let total = misfits.len();
    let hopeless = misfits.iter().filter(|misfit| misfit.unresolvable).count();
    let parts = [
        (hopeless, "Preemption is not helpful for scheduling"),
        (total - hopeless, "No preemption victims found for incoming pod"),
    ];
    let mut parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, text)| format!("{count} {text}")).collect();
    parts.sort();
    format!("preemption: 0/{total} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misfit(reasons: &[&str], unresolvable: bool) -> Misfit {
        Misfit { reasons: reasons.iter().map(|r| (*r).to_owned()).collect(), unresolvable }
    }

    #[test]
    fn the_sentence_is_upstreams() {
        let cases = [
            (vec![], "no nodes available to schedule pods"),
            (
                vec![misfit(&["Insufficient cpu"], false)],
                "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
            ),
            (
                vec![
                    misfit(&["Insufficient cpu", "Insufficient memory"], false),
                    misfit(&["Insufficient cpu"], true),
                ],
                "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
            ),
        ];
        for (misfits, want) in cases {
            assert_eq!(no_node_fits(&misfits), want);
        }
        assert_eq!(
            not_yet("pod has unbound immediate PersistentVolumeClaims", 1),
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
    }
}
