//! The two layers of a lightweight Python component: `pip install`, then the component itself.
//!
//! The SDK compiles `["sh", "-c", PIP, "sh", "-ec", RUN, SOURCE]`, where PIP installs packages and
//! execs the rest. Installing costs most of a step, so the packages come from a cache instead and
//! only the inner layer runs. What does not have exactly this shape runs as it is.

/// What the outer layer would install, and the inner command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Arguments of each `pip install`, in order, without the quiet flags.
    pub installs: Vec<Vec<String>>,
    /// The inner command.
    pub inner: Vec<String>,
}

/// Splits a command with the SDK's shape.
pub fn split(command: &[String]) -> Option<Layers> {
    let [shell, flag, script, inner @ ..] = command else { return None };
    let inner_shell = inner.first().map(String::as_str);
    if shell != "sh" || flag != "-c" || !matches!(inner_shell, Some("sh" | "bash")) {
        return None;
    }
    let body = script.trim();
    // The SDK's guard for images without pip stands before the install line.
    let last = body.lines().last()?.trim();
    let guarded = body.lines().count() == 1 || body.starts_with("if ! [ -x \"$(command -v pip)\" ]; then");
    let rest = last.strip_suffix("&& \"$0\" \"$@\"")?;
    if !guarded || rest.contains(['|', ';']) && !only_markers(rest) {
        return None;
    }
    let mut installs = Vec::new();
    for part in rest.split("&&") {
        let words = words(part.trim())?;
        if words.is_empty() {
            continue;
        }
        installs.push(pip_arguments(&words)?);
    }
    (!installs.is_empty()).then(|| Layers { installs, inner: inner.to_vec() })
}

/// `;` may stand inside quotes, as in `'typing-extensions; python_version<"3.9"'`.
fn only_markers(line: &str) -> bool {
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '|' | ';') => return false,
            _ => {}
        }
    }
    true
}

/// Shell words of a line with quotes; `None` when it holds anything a shell would expand.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut begun = false;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                begun = true;
            }
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '$' | '`' | '\\') => return None,
            (Some(_), c) => word.push(c),
            (None, '|' | ';' | '<' | '>' | '&' | '(' | ')' | '*' | '?') => return None,
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

/// Arguments after `python3 -m pip install`, without flags that only change what is printed.
fn pip_arguments(words: &[String]) -> Option<Vec<String>> {
    let mut words = words;
    while let Some((first, rest)) = words.split_first()
        && first.starts_with("PIP_")
        && first.contains('=')
    {
        words = rest;
    }
    let ["python3" | "python", "-m", "pip", "install"] =
        words.get(..4)?.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let silent = ["--quiet", "-q", "--no-warn-script-location", "--disable-pip-version-check"];
    Some(words[4..].iter().filter(|word| !silent.contains(&word.as_str())).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> Vec<String> {
        ["sh", "-c", script, "sh", "-ec", "run", "source"].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_sdks_shape_is_split() {
        let script = "\nif ! [ -x \"$(command -v pip)\" ]; then\n    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip\nfi\n\nPIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location 'pandas==2.0' && PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location 'kfp==2.17.0' '--no-deps' 'typing-extensions>=3.7.4,<5; python_version<\"3.9\"' && \"$0\" \"$@\"\n";
        let layers = split(&command(script)).unwrap();
        assert_eq!(
            layers.installs,
            [
                vec!["pandas==2.0"],
                vec!["kfp==2.17.0", "--no-deps", "typing-extensions>=3.7.4,<5; python_version<\"3.9\""]
            ]
        );
        assert_eq!(layers.inner, ["sh", "-ec", "run", "source"]);
    }

    #[test]
    fn other_shapes_run_as_they_are() {
        for script in [
            "echo hi && \"$0\" \"$@\"",
            "python3 -m pip install a; rm -rf / && \"$0\" \"$@\"",
            "python3 -m pip install $(evil) && \"$0\" \"$@\"",
            "python3 -m pip install a",
            "export X=1\npython3 -m pip install a && \"$0\" \"$@\"",
        ] {
            assert_eq!(split(&command(script)), None, "{script}");
        }
        assert_eq!(split(&["python".into(), "a.py".into()]), None);
    }
}
