//! Names, keys and paths of artifacts: nothing may climb out of where it belongs.

/// Why `text` cannot be a path in a container, a key or an artifact name; `None` when it can.
///
/// Tags (`{{...}}`) are looked at again once they are resolved.
pub(crate) fn climbs(text: &str) -> Option<String> {
    let parts = text.split(['/', '\\']);
    let climbs = parts.into_iter().any(|part| part == "..");
    if climbs {
        return Some(format!("{text:?} must not contain '..'"));
    }
    text.contains('\0').then(|| format!("{text:?} must not contain a NUL"))
}

/// Why `name` cannot name an artifact or parameter.
pub(crate) fn bad_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("must have a name".into());
    }
    if name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return Some(format!("name {name:?} must not contain '/', '\\' or be '..'"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parent_parts_climb() {
        for (path, refused) in [
            ("/output/model.pkl", false),
            ("/output/..hidden", false),
            ("/output/../etc/passwd", true),
            ("..", true),
            ("a\\..\\b", true),
            ("a/{{x}}/b", false),
        ] {
            assert_eq!(climbs(path).is_some(), refused, "{path}");
        }
        assert!(bad_name("../model").is_some() && bad_name("model").is_none());
    }
}
