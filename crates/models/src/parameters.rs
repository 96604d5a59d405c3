//! The settings that an estimator was made with, as its library's `get_params` names them.
//!
//! By scikit-learn's rule a public attribute without an underscore at its end is a setting, and one with it was
//! learned. Settings of estimators within have their names before theirs: `clf__max_depth`. Values are texts, for
//! people and for comparing.
//!
//! Not here: what settings mean (`sklearn`).

use crate::error::Result;
use crate::graph::{Node, View};
use crate::inspect::open_chosen;
use crate::limits::Limits;
use crate::source::Folder;

/// Settings that are listed, at most.
const COUNT_MAX: usize = 10_000;
/// How deep estimators are followed.
const DEPTH_MAX: usize = 16;
/// Characters of a value.
const LENGTH_MAX: usize = 120;

/// The settings of the model of a folder, in the file's order. Files of other libraries than scikit-learn keep none
/// that are settings and nothing else; they are refused.
pub fn parameters(folder: &dyn Folder, limits: &Limits) -> Result<Vec<(String, String)>> {
    let (_, graph) = open_chosen(folder, limits)?;
    let mut found = Vec::new();
    walk(graph.root(), "", 0, &mut found);
    Ok(found)
}

fn walk(view: View<'_>, prefix: &str, depth: usize, found: &mut Vec<(String, String)>) {
    for (name, value) in attributes(view) {
        let is_setting = !name.starts_with('_') && !name.ends_with('_');
        if !is_setting || found.len() >= COUNT_MAX {
            continue;
        }
        let path = format!("{prefix}{name}");
        if depth < DEPTH_MAX && follow(value, prefix, &path, depth, found) {
            continue;
        }
        found.push((path, shown(value, 0)));
    }
}

/// Goes into estimators and lists of named ones; false for plain values.
fn follow(
    value: View<'_>,
    prefix: &str,
    path: &str,
    depth: usize,
    found: &mut Vec<(String, String)>,
) -> bool {
    if value.object().is_some() && attributes(value).next().is_some() {
        found.push((path.to_owned(), value.class_name()));
        walk(value, &format!("{path}__"), depth + 1, found);
        return true;
    }
    let Some(items) = value.items().filter(|items| !items.is_empty()) else { return false };
    let Some(steps) = items.into_iter().map(named).collect::<Option<Vec<_>>>() else { return false };
    // Steps are called by their own names, without the name of the list.
    for (name, member) in steps {
        found.push((format!("{prefix}{name}"), member.class_name()));
        walk(member, &format!("{prefix}{name}__"), depth + 1, found);
    }
    true
}

/// A step: its name and its estimator.
fn named(item: View<'_>) -> Option<(String, View<'_>)> {
    let parts = item.items()?;
    let (name, member) = (parts.first()?.text()?.to_owned(), *parts.get(1)?);
    member.object().is_some().then_some((name, member))
}

fn attributes(view: View<'_>) -> impl Iterator<Item = (&str, View<'_>)> {
    let pairs = view.state().into_iter().flat_map(View::pairs);
    pairs.filter_map(|(name, value)| Some((name.text()?, value)))
}

fn shown(value: View<'_>, depth: usize) -> String {
    let text = match value.node() {
        Node::None => "None".into(),
        Node::Bool(true) => "True".into(),
        Node::Bool(false) => "False".into(),
        Node::Int(int) => int.to_string(),
        Node::Float(float) => float.to_string(),
        Node::Text(text) => format!("{text:?}"),
        Node::Array(_) if value.float().is_some() => value.float().unwrap_or_default().to_string(),
        Node::List(_) | Node::Tuple(_) | Node::Set(_) if depth < 3 => {
            let items = value.items().unwrap_or_default();
            let few: Vec<String> = items.iter().take(20).map(|item| shown(*item, depth + 1)).collect();
            let more = if items.len() > few.len() { ", …" } else { "" };
            format!("[{}{more}]", few.join(", "))
        }
        Node::Dict(_) if depth < 3 => {
            let few: Vec<String> = value
                .pairs()
                .take(20)
                .map(|(key, value)| format!("{}: {}", shown(key, depth + 1), shown(value, depth + 1)))
                .collect();
            format!("{{{}}}", few.join(", "))
        }
        _ => value.class_name(),
    };
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
