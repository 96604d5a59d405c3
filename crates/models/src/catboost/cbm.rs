//! `.cbm` files: four letters, a length, the model as a FlatBuffer, and after it the tables of statistics.
//!
//! Field numbers are those of the library's published schemas (`model.fbs`, `features.fbs`, `ctr_data.fbs`).
//!
//! Not here: FlatBuffers (`flat`), checks of what refers to what (`model`).

use super::ctr::{Ctr, Element, Kind, Table};
use super::flat::{self, Flat};
use super::parts::{Cat, Float, Node, Parts, Tree, error, labels_of, loss_of};
use crate::document;
use crate::error::{LoadError, Result};
use crate::limits::Limits;
use crate::sklearn::Labels;

/// Values further in the file than any table may claim to lie.
const HEAD: usize = 8;

/// Reads a file.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Parts> {
    let (core, at) = sized(bytes, 4)?;
    let root = Flat::new(core, HEAD).root()?;
    let format = root.text(0)?;
    if format != "FlabuffersModel_v1" {
        return Err(LoadError::unsupported(format!("CatBoost's format {format:?}")));
    }
    let trees = root.inner(1)?.ok_or_else(|| error("the file has no trees"))?;
    for (slot, what) in [(12, "texts"), (18, "embeddings")] {
        if !trees.tables(slot)?.is_empty() {
            return Err(LoadError::unsupported(format!("CatBoost's features of {what}")));
        }
    }
    let (loss, labels) = info(&root, limits)?;
    let mut names = Vec::new();
    let mut parts = Parts {
        dimension: index(trees.int(0, 0)?, "ApproxDimension")?,
        floats: floats(&trees, &mut names)?,
        cats: cats(&trees, &mut names)?,
        one_hot: one_hot(&trees)?,
        ctrs: ctrs(&trees)?,
        tables: Vec::new(),
        trees: Vec::new(),
        values: trees.doubles(8)?,
        scale: trees.double(14, 1.0)?,
        bias: trees.doubles(16)?,
        names,
        loss,
        labels,
        form: "cbm",
    };
    if parts.bias.is_empty() {
        parts.bias = vec![trees.double(15, 0.0)?];
    }
    parts.trees = trees_of(&trees, parts.dimension)?;
    let model_parts = root.texts(3)?;
    match model_parts.as_slice() {
        [] => {}
        ["static_provider_v1"] => tables(bytes, at, &mut parts)?,
        other => return Err(LoadError::unsupported(format!("CatBoost's model part {:?}", other[0]))),
    }
    Ok(parts)
}

/// Bytes with their length before them, and where they end.
fn sized(bytes: &[u8], at: usize) -> Result<(&[u8], usize)> {
    let (len, start) = size(bytes, at)?;
    let left = bytes.len() - start;
    if len > left {
        let needed = len as u64;
        return Err(LoadError::Truncated { what: "a part of the model", offset: start, needed, left });
    }
    Ok((&bytes[start..start + len], start + len))
}

fn size(bytes: &[u8], at: usize) -> Result<(usize, usize)> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(&[255, 255, 255, 255]) => Err(LoadError::unsupported("a part of a model of 4 GB and more")),
        Some(word) => Ok((u32::from_le_bytes(*word) as usize, at + 4)),
        None => {
            let left = bytes.len().saturating_sub(at);
            Err(LoadError::Truncated { what: "a length", offset: at, needed: 4, left })
        }
    }
}

fn index(int: i32, what: &str) -> Result<usize> {
    usize::try_from(int).map_err(|_| error(format!("{what} is {int}")))
}

/// The loss and the labels of classes.
fn info(root: &flat::Table<'_>, limits: &Limits) -> Result<(String, Option<Labels>)> {
    let (mut loss, mut labels) = (String::new(), None);
    for entry in root.tables(2)? {
        let name = entry.text(0)?;
        if matches!(name, "params" | "class_params" | "multiclass_params") {
            let value = document::json(entry.text(1)?.as_bytes(), limits)?;
            match name {
                "params" => loss = loss_of(&value).unwrap_or_default(),
                _ => labels = labels_of(&value),
            }
        }
    }
    Ok((loss, labels))
}

fn floats(trees: &flat::Table<'_>, names: &mut Vec<(usize, String)>) -> Result<Vec<Float>> {
    let one = |float: flat::Table<'_>| {
        let column = index(float.int(2, -1)?, "FlatIndex")?;
        names.push((column, float.text(4)?.to_owned()));
        Ok(Float {
            index: index(float.int(1, -1)?, "Index")?,
            column,
            borders: float.floats(3)?,
            missing_right: float.byte(5)? == 2,
        })
    };
    trees.tables(5)?.into_iter().map(one).collect()
}

fn cats(trees: &flat::Table<'_>, names: &mut Vec<(usize, String)>) -> Result<Vec<Cat>> {
    let one = |cat: flat::Table<'_>| {
        let column = index(cat.int(1, -1)?, "FlatIndex")?;
        names.push((column, cat.text(2)?.to_owned()));
        Ok(Cat { index: index(cat.int(0, -1)?, "Index")?, column })
    };
    trees.tables(4)?.into_iter().map(one).collect()
}

fn one_hot(trees: &flat::Table<'_>) -> Result<Vec<(usize, Vec<i32>)>> {
    let one = |feature: flat::Table<'_>| Ok((index(feature.int(0, -1)?, "Index")?, feature.ints(1)?));
    trees.tables(6)?.into_iter().map(one).collect()
}

/// The kind of a statistic and what it is about.
fn base(table: &flat::Table<'_>) -> Result<(Kind, u8, Vec<Element>)> {
    let number = table.byte(1)?;
    let kind = Kind::at(number).ok_or_else(|| error(format!("a statistic of the unknown type {number}")))?;
    let mut elements = Vec::new();
    if let Some(combination) = table.inner(0)? {
        for cat in combination.ints(0)? {
            elements.push(Element::Cat(index(cat, "CatFeatures")?));
        }
        let pair = |bytes: [u8; 8]| {
            let [a, b, c, d, rest @ ..] = bytes;
            (i32::from_le_bytes([a, b, c, d]), rest)
        };
        for (float, border) in combination.elements(1, pair)? {
            elements.push(Element::Above(index(float, "FloatSplits")?, f32::from_le_bytes(border)));
        }
        for (cat, value) in combination.elements(2, pair)? {
            elements.push(Element::Is(index(cat, "OneHotSplits")?, i32::from_le_bytes(value)));
        }
    }
    Ok((kind, number, elements))
}

fn base_of(table: &flat::Table<'_>) -> Result<(Kind, u8, Vec<Element>)> {
    base(&table.inner(0)?.ok_or_else(|| error("a statistic without its base"))?)
}

fn ctrs(trees: &flat::Table<'_>) -> Result<Vec<Ctr>> {
    let one = |feature: flat::Table<'_>| {
        let ctr = feature.inner(0)?.ok_or_else(|| error("a statistic without its values"))?;
        let (kind, number, elements) = base_of(&ctr)?;
        Ok(Ctr {
            elements,
            kind,
            // Until the tables are read, the type.
            table: usize::from(number),
            target_border: index(ctr.int(1, 0)?, "TargetBorderIdx")?,
            prior: (ctr.float(2, 0.0)?, ctr.float(3, 1.0)?),
            shift: ctr.float(4, 0.0)?,
            scale: ctr.float(5, 1.0)?,
            borders: feature.floats(1)?,
        })
    };
    trees.tables(7)?.into_iter().map(one).collect()
}

/// The tables after the model, and which of them each statistic reads.
fn tables(bytes: &[u8], at: usize, parts: &mut Parts) -> Result<()> {
    let (count, mut at) = size(bytes, at)?;
    let mut bases = Vec::new();
    for _ in 0..count {
        let (inner, end) = sized(bytes, at)?;
        let table = Flat::new(inner, end - inner.len()).root()?;
        let (kind, number, elements) = base_of(&table)?;
        parts.tables.push(values(&table, kind)?);
        bases.push((number, elements));
        at = end;
    }
    for ctr in &mut parts.ctrs {
        let found = bases
            .iter()
            .position(|(kind, elements)| usize::from(*kind) == ctr.table && *elements == ctr.elements);
        ctr.table =
            found.ok_or_else(|| error(format!("no table for the statistic of {:?}", ctr.elements)))?;
    }
    Ok(())
}

fn values(table: &flat::Table<'_>, kind: Kind) -> Result<Table> {
    let mut made = Table { denominator: table.int(3, 0)?, ..Table::default() };
    made.classes = index(table.int(4, 0)?, "TargetClassesCount")?;
    made.places = raw_buckets(table)?.into_iter().filter(|(hash, _)| *hash != u64::MAX).collect();
    let blob = table.bytes(2)?;
    if kind == Kind::Mean {
        let (pairs, _) = blob.as_chunks::<8>();
        let pair = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            (f32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
        };
        made.means = pairs.iter().map(pair).collect();
    } else {
        made.counts = blob.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
    }
    Ok(made)
}

/// Buckets of twelve bytes in a vector that counts bytes.
fn raw_buckets(table: &flat::Table<'_>) -> Result<Vec<(u64, u32)>> {
    let (whole, _) = table.bytes(1)?.as_chunks::<12>();
    let one = |&[a, b, c, d, e, f, g, h, i, j, k, l]: &[u8; 12]| {
        (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]))
    };
    Ok(whole.iter().map(one).collect())
}

fn trees_of(trees: &flat::Table<'_>, dimension: usize) -> Result<Vec<Tree>> {
    let splits = trees.ints(1)?;
    let sizes = trees.ints(2)?;
    let steps: Vec<(usize, usize)> = trees.elements(10, |[a, b, c, d]: [u8; 4]| {
        (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])))
    })?;
    let leaves = trees.elements(11, u32::from_le_bytes)?;
    let is_oblivious = steps.is_empty();
    if !is_oblivious && (steps.len() != splits.len() || leaves.len() != splits.len()) {
        return Err(error("NonSymmetricStepNodes are not as many as TreeSplits"));
    }
    let (mut start, mut first, mut all) = (0_usize, 0_usize, Vec::new());
    for (tree, size) in sizes.iter().enumerate() {
        let end = start.saturating_add(index(*size, "TreeSizes")?);
        let inner = splits.get(start..end).ok_or_else(|| error(format!("tree {tree}: no such splits")))?;
        let inner: Vec<usize> = inner.iter().map(|split| *split as u32 as usize).collect();
        if is_oblivious {
            let depth = inner.len() as u32;
            all.push(Tree::Oblivious(inner, first));
            let count = 1_usize.checked_shl(depth).and_then(|leaves| leaves.checked_mul(dimension));
            first = first.saturating_add(count.unwrap_or(usize::MAX));
        } else {
            all.push(Tree::Nodes(nodes(&inner, &steps[start..end], &leaves[start..end])));
        }
        start = end;
    }
    Ok(all)
}

/// A step of zero ends at the node's own leaf.
fn nodes(splits: &[usize], steps: &[(usize, usize)], leaves: &[u32]) -> Vec<Node> {
    let mut made = Vec::with_capacity(splits.len());
    let mut ends = Vec::new();
    for (at, ((split, (left, right)), leaf)) in splits.iter().zip(steps).zip(leaves).enumerate() {
        let leaf = Node::Leaf(*leaf as usize);
        if *left == 0 && *right == 0 {
            made.push(leaf);
            continue;
        }
        let mut to = |step: usize| {
            if step > 0 {
                return at + step;
            }
            ends.push(leaf);
            splits.len() + ends.len() - 1
        };
        made.push(Node::Split(*split, to(*left), to(*right)));
    }
    made.extend(ends);
    made
}
