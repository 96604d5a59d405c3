//! Label selectors: parsed from the text form or built from requirements, and matched against labels.
//!
//! The text form is the API's `labelSelector` (`a=b,c!=d,e in (x,y),!f,g>1`); objects carry the structured form. Both
//! become one list of requirements that must all hold; an empty list selects everything.
//!
//! Not here: field selectors, which depend on the kind (`apiserver`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// How a requirement judges the value of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there with one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is an integer above the one value.
    Gt,
    /// The label is an integer below the one value.
    Lt,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is judged.
    pub operator: Operator,
    /// Values to compare with; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

/// Requirements that must all hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// The selector's text or structure is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text form does not parse.
    #[error("unable to parse requirement: \"{0}\"")]
    Syntax(String),
    /// The structured form has an operator that does not exist.
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
}

impl FromStr for Operator {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        match text {
            "In" => Ok(Self::In),
            "NotIn" => Ok(Self::NotIn),
            "Exists" => Ok(Self::Exists),
            "DoesNotExist" => Ok(Self::DoesNotExist),
            "Gt" => Ok(Self::Gt),
            "Lt" => Ok(Self::Lt),
            other => Err(SelectorError::Operator(other.to_owned())),
        }
    }
}

impl Requirement {
    /// `key` has exactly `value`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), operator: Operator::In, values: vec![value.into()] }
    }

    /// Whether it holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.key).map(String::as_str))
    }

    /// Whether it holds for a label's value, `None` when there is no such label.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|of| of == value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::Lt => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        let bound = self.values.first()?.parse().ok()?;
        Some((value?.parse().ok()?, bound))
    }
}

impl Selector {
    /// From requirements; an empty list selects everything.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// From `matchLabels`, or a Service's or ReplicationController's map.
    pub fn from_labels(labels: &Labels) -> Self {
        Self::new(labels.iter().map(|(key, value)| Requirement::equals(key, value)).collect())
    }

    /// Adds one of `matchExpressions`.
    pub fn with(mut self, requirement: Requirement) -> Self {
        self.requirements.push(requirement);
        self
    }

    /// What must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all requirements hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let parts = split_outside_parens(text);
        let parts = parts.iter().map(|part| part.trim());
        let wanted: Vec<&str> = if text.trim().is_empty() { Vec::new() } else { parts.collect() };
        wanted.into_iter().map(parse_requirement).collect::<Result<_, _>>().map(Self::new)
    }
}

fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0usize, 0u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let syntax = || SelectorError::Syntax(part.to_owned());
    let build = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        if !is_key(key) { Err(syntax()) } else { Ok(Requirement { key: key.to_owned(), operator, values }) }
    };
    if let Some(key) = part.strip_prefix('!') {
        return build(key, Operator::DoesNotExist, Vec::new());
    }
    let comparisons = [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Gt),
        ("<", Operator::Lt),
    ];
    for (sign, operator) in comparisons {
        if let Some((key, value)) = part.split_once(sign) {
            let value = value.trim();
            if !is_value(value) {
                return Err(syntax());
            }
            return build(key, operator, vec![value.to_owned()]);
        }
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(syntax)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        let operator = match (words.next(), words.next(), words.next()) {
            (Some(_), Some("in"), None) => Operator::In,
            (Some(_), Some("notin"), None) => Operator::NotIn,
            _ => return Err(syntax()),
        };
        if !values.iter().all(|value| is_value(value)) {
            return Err(syntax());
        }
        return build(head.split_whitespace().next().unwrap_or_default(), operator, values);
    }
    build(part, Operator::Exists, Vec::new())
}

fn is_key(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    !text.is_empty() && text.len() <= 317 && text.bytes().all(legal)
}

fn is_value(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= 63 && text.bytes().all(legal)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (&self.operator, self.values.as_slice()) {
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (Operator::In, values) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::Gt, values) => write!(f, "{key}>{}", values.join(",")),
            (Operator::Lt, values) => write!(f, "{key}<{}", values.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn a_selector_matches_what_upstreams_does() {
        let cases = [
            ("", "a=b", true),
            ("a=b", "a=b,c=d", true),
            ("a==b", "a=c", false),
            ("a!=b", "", true),
            ("a!=b", "a=b", false),
            ("a", "a=", true),
            ("!a", "a=x", false),
            ("!a", "b=x", true),
            ("a in (x,y)", "a=y", true),
            ("a in (x, y),b", "a=y", false),
            ("a notin (x,y)", "a=z", true),
            ("a notin (x,y)", "", true),
            ("a>5", "a=6", true),
            ("a<5", "a=6", false),
            ("a>5", "a=x", false),
            ("a=", "a=", true),
            ("app.kubernetes.io/name=iris", "app.kubernetes.io/name=iris", true),
        ];
        for (selector, on, want) in cases {
            assert_eq!(
                selector.parse::<Selector>().unwrap().matches(&labels(on)),
                want,
                "{selector} on {on}"
            );
        }
    }

    #[test]
    fn a_broken_selector_is_refused() {
        for text in [",", "a=b,", "a in x", "a in (x", "=b", "a near (x)", "a=b c", "a b"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_selector_prints_as_it_reads() {
        for text in ["a=b,c!=d", "a in (x,y),!f", "k", "a notin (x,y),g>1"] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
    }
}
