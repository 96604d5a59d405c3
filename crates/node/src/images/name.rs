//! Image names: one spelling each, and patterns over them.

/// The name without Docker Hub's defaults and with a tag or digest: `docker.io/library/python` is `python:latest`.
/// `None`: not a reference.
pub fn normalise(image: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
    let (repository, _) = split_tag(image);
    let lower = repository.split_once('/').map_or(repository, |(_, path)| path);
    let is_legal = !image.is_empty()
        && image.len() <= 512
        && image.bytes().all(allowed)
        && !lower.bytes().any(|byte| byte.is_ascii_uppercase())
        && !image.split('/').any(str::is_empty);
    if !is_legal {
        return None;
    }
    let mut short = image;
    for prefix in ["index.docker.io/", "docker.io/", "library/"] {
        short = short.strip_prefix(prefix).unwrap_or(short);
    }
    let (_, tag) = split_tag(short);
    Some(if tag.is_some() { short.to_owned() } else { format!("{short}:latest") })
}

/// A colon after the last slash begins a tag; before it, a port.
fn split_tag(image: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = image.split_once('@') {
        return (repository, Some(digest));
    }
    let start = image.rfind('/').map_or(0, |at| at + 1);
    match image[start..].find(':') {
        Some(at) => (&image[..start + at], Some(&image[start + at + 1..])),
        None => (image, None),
    }
}

/// Whether a pattern (a name, or the beginning of one and `*`) means a normalised name.
pub fn matches(pattern: &str, full: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => {
            let beginning = ["docker.io/", "library/"]
                .iter()
                .fold(beginning, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
            let rest = full.strip_prefix(beginning);
            // `bash*` means bash with any tag or suffix, but never a repository of somebody named `bash…`.
            rest.is_some_and(|rest| beginning.contains('/') || !rest.contains('/'))
        }
        None => normalise(pattern).is_some_and(|name| name == full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_one_spelling() {
        let cases = [
            ("python", Some("python:latest")),
            ("docker.io/library/python:3.11", Some("python:3.11")),
            ("localhost:5000/a", Some("localhost:5000/a:latest")),
            ("a@sha256:00", Some("a@sha256:00")),
            ("UPPER", None),
            ("a b", None),
            ("a//b", None),
            ("", None),
        ];
        for (image, want) in cases {
            assert_eq!(normalise(image).as_deref(), want, "{image}");
        }
    }

    #[test]
    fn patterns_do_not_reach_into_other_repositories() {
        let cases = [
            ("python:*", "python:3.11", true),
            ("bash*", "bash:5", true),
            ("bash*", "bashful/evil:1", false),
            ("kserve/sklearnserver*", "kserve/sklearnserver:v1", true),
            ("docker.io/library/alpine*", "alpine:3", true),
            ("mine", "mine:latest", true),
            ("mine", "mine:2", false),
        ];
        for (pattern, full, want) in cases {
            assert_eq!(matches(pattern, full), want, "{pattern} {full}");
        }
    }
}
