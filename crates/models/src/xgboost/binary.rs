//! The older binary form: structs as they lay in memory, which XGBoost wrote until 2.x.
//!
//! Every count is checked against the bytes that are left before anything is allocated.
//!
//! Not here: models from before 1.0 whose leaves are vectors.

use super::parts::{Learner, Parts, RawTree, error};
use crate::error::{LoadError, Result};
use crate::limits::Limits;

/// Bytes of the learner's parameters, in front.
const LEARNER: usize = 136;
/// Bytes of the parameters of trees together, of one tree, and of a linear model.
const FOREST: usize = 160;
const TREE: usize = 148;
const LINEAR: usize = 136;
/// Bytes of a node, and of its statistics.
const NODE: usize = 20;
const STATISTICS: usize = 16;

/// Whether bytes look like this form: the objective's name follows the learner's parameters.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"binf").unwrap_or(bytes);
    let Some(head) = bytes.get(LEARNER..LEARNER + 8) else { return false };
    let len = head.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let Some(name) =
        usize::try_from(len).ok().and_then(|len| bytes.get(LEARNER + 8..(LEARNER + 8).checked_add(len)?))
    else {
        return false;
    };
    (3..64).contains(&len) && name.contains(&b':') && name.iter().all(u8::is_ascii_graphic)
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'b [u8]> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(LoadError::Truncated { what, offset: self.at, needed: count as u64, left });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64> {
        let bytes = self.take(8, what)?;
        Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn count(&mut self, what: &'static str) -> Result<usize> {
        let offset = self.at;
        let count = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count).ok().filter(|count| *count <= left) {
            Some(count) => Ok(count),
            None => Err(LoadError::Truncated { what, offset, needed: count, left }),
        }
    }

    fn text(&mut self, what: &'static str) -> Result<String> {
        let len = self.count(what)?;
        let offset = self.at;
        let text = std::str::from_utf8(self.take(len, what)?).map(str::to_owned);
        text.map_err(|_| LoadError::malformed("XGBoost binary", offset, format!("{what} is no text")))
    }

    fn floats(&mut self, what: &'static str) -> Result<Vec<f32>> {
        let count = self.count(what)?;
        Ok(ints(self.take(count.saturating_mul(4), what)?).map(f32::from_bits).collect())
    }
}

fn ints(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn int(bytes: &[u8], index: usize) -> u32 {
    ints(&bytes[index * 4..index * 4 + 4]).next().unwrap_or(0)
}

/// Reads a model.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Parts> {
    let mut cursor = Cursor { bytes: bytes.strip_prefix(b"binf").unwrap_or(bytes), at: 0 };
    let head = cursor.take(LEARNER, "the learner's parameters")?;
    let (major, minor) = (int(head, 5), int(head, 6));
    let objective = cursor.text("the objective's name")?;
    let booster = cursor.text("the booster's name")?;
    let learner = match booster.as_str() {
        "gbtree" | "dart" => trees(&mut cursor, booster == "dart", limits)?,
        "gblinear" => {
            cursor.take(LINEAR, "the linear model's parameters")?;
            Learner::Linear(cursor.floats("the weights")?)
        }
        other => return Err(LoadError::unsupported(format!("XGBoost's booster {other:?}"))),
    };
    // Since 1.0 the version is said, and the base score is what the user gave; before, it was a score already.
    if major == 0 {
        return Err(LoadError::unsupported("XGBoost's binary files from before 1.0"));
    }
    let attributes = if int(head, 3) != 0 { attributes(&mut cursor)? } else { Vec::new() };
    let best = attributes.iter().find(|(name, _)| name == "best_iteration");
    Parts {
        booster,
        learner,
        objective,
        base_score: vec![f32::from_bits(int(head, 0))],
        is_vector: false,
        features: int(head, 1) as usize,
        classes: int(head, 2) as usize,
        targets: int(head, 7) as usize,
        feature_names: Vec::new(),
        version: format!("{major}.{minor}"),
        best_iteration: best.and_then(|(_, text)| text.parse().ok()),
        format: "binary",
    }
    .checked()
}

fn attributes(cursor: &mut Cursor<'_>) -> Result<Vec<(String, String)>> {
    let count = cursor.count("the attributes")?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push((cursor.text("an attribute's name")?, cursor.text("an attribute's value")?));
    }
    Ok(all)
}

fn trees(cursor: &mut Cursor<'_>, is_dart: bool, limits: &Limits) -> Result<Learner> {
    let head = cursor.take(FOREST, "the parameters of the trees")?;
    let (count, parallel) = (int(head, 0) as usize, int(head, 1) as usize);
    if int(head, 7) > 1 {
        return Err(LoadError::unsupported("XGBoost's binary files with vectors in leaves"));
    }
    if count > cursor.bytes.len() / TREE || count > limits.values_max {
        return Err(error(format!("{count} trees, more than the file can hold")));
    }
    let mut trees = Vec::with_capacity(count);
    for _ in 0..count {
        trees.push(tree(cursor)?);
    }
    let groups =
        ints(cursor.take(count * 4, "the outputs of the trees")?).map(|group| group as usize).collect();
    let weights = if is_dart && count > 0 { Some(cursor.floats("the weights of the trees")?) } else { None };
    Ok(Learner::Trees { trees, groups, weights, parallel: parallel.max(1) })
}

fn tree(cursor: &mut Cursor<'_>) -> Result<RawTree> {
    let head = cursor.take(TREE, "a tree's parameters")?;
    let count = int(head, 1) as usize;
    let nodes = cursor.take(count.saturating_mul(NODE), "a tree's nodes")?;
    cursor.take(count.saturating_mul(STATISTICS), "the nodes' statistics")?;
    let mut tree = RawTree { categories: vec![None; count], ..RawTree::default() };
    for node in nodes.chunks_exact(NODE) {
        let split = int(node, 3);
        tree.left.push(int(node, 1) as i32);
        tree.right.push(int(node, 2) as i32);
        tree.column.push(split & (u32::MAX >> 1));
        tree.default_left.push(split >> 31 == 1);
        tree.condition.push(f32::from_bits(int(node, 4)));
    }
    Ok(tree)
}
