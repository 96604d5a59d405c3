//! Every kind of walk finds the leaf that a plain walk finds, on random trees and rows.

use std::convert::Infallible;

use proptest::prelude::*;

use super::blend::Level;
use super::*;

/// A tree as files have it.
#[derive(Debug, Clone)]
enum Plain<X> {
    Leaf(u32),
    Split { column: usize, threshold: X, missing: Missing, sides: Box<[Plain<X>; 2]> },
}

fn forest(left: &[usize], right: &[usize], column: usize) -> Result<Forest<f32>, String> {
    let mut forest = Forest::new(2);
    let missing = Missing { left: false, zero_too: false };
    forest.add(left.len(), |index| {
        Ok(match left[index] {
            0 => Raw::Leaf(index as u32),
            to => Raw::Split { column, test: Test::AtMost(0.5), missing, left: to, right: right[index] },
        })
    })?;
    Ok(forest)
}

#[test]
fn nodes_that_form_no_tree_are_refused() {
    let cases = [
        ("a loop", forest(&[1, 1, 0], &[2, 1, 0], 0)),
        ("a child too far", forest(&[1, 0, 0], &[9, 0, 0], 0)),
        ("a column too far", forest(&[1, 0, 0], &[2, 0, 0], 2)),
        ("shared children", forest(&[1, 2, 0], &[1, 2, 0], 0)),
        ("no nodes", forest(&[], &[], 0)),
    ];
    for (name, tree) in cases {
        assert!(tree.is_err(), "{name}");
    }
}

const COLUMNS: usize = 3;

/// Few values, so that ties, zeros and thresholds meet.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-6_i32..6).prop_map(|value| f64::from(value) / 4.0),
        1 => Just(-0.0),
        1 => any::<f64>().prop_filter("a threshold is a number", |value| !value.is_nan()),
    ]
}

fn tree(zero_too: bool) -> impl Strategy<Value = Plain<f64>> {
    (0_u32..1000).prop_map(Plain::Leaf).prop_recursive(9, 120, 2, move |inner| {
        (0..COLUMNS, value(), any::<bool>(), any::<bool>(), inner.clone(), inner).prop_map(
            move |(column, threshold, left, zero, first, second)| Plain::Split {
                column,
                threshold,
                missing: Missing { left, zero_too: zero_too && zero },
                sides: Box::new([first, second]),
            },
        )
    })
}

fn walked<X: Cell>(tree: &Plain<X>, row: &[X]) -> u32 {
    match tree {
        Plain::Leaf(number) => *number,
        Plain::Split { column, threshold, missing, sides } => {
            let value = row[*column];
            let is_missing = value.is_missing() || (missing.zero_too && value.is_zero());
            let right = if is_missing { !missing.left } else { value > *threshold };
            walked(&sides[usize::from(right)], row)
        }
    }
}

fn flat<'t, X>(tree: &'t Plain<X>, all: &mut Vec<(&'t Plain<X>, usize, usize)>) -> usize {
    let at = all.len();
    all.push((tree, 0, 0));
    if let Plain::Split { sides, .. } = tree {
        (all[at].1, all[at].2) = (flat(&sides[0], all), flat(&sides[1], all));
    }
    at
}

fn compiled<X: Cell>(trees: &[Plain<X>]) -> Forest<X> {
    let mut forest = Forest::new(COLUMNS);
    for tree in trees {
        let mut all = Vec::new();
        flat(tree, &mut all);
        let node = |at: usize| {
            let (node, left, right) = all[at];
            Ok(match node {
                Plain::Leaf(number) => Raw::Leaf(*number),
                Plain::Split { column, threshold, missing, .. } => Raw::Split {
                    column: *column,
                    test: Test::AtMost(*threshold),
                    missing: *missing,
                    left,
                    right,
                },
            })
        };
        forest.add(all.len(), node).expect("a tree");
    }
    forest.finish();
    forest
}

/// The leaves that `walk` visits, by row, and that they come in the order of trees.
fn leaves<X: Cell>(forest: &Forest<X>, rows: &[Vec<X>]) -> Vec<Vec<u32>> {
    let mut found = vec![Vec::new(); rows.len()];
    let fill = |row: usize, cells: &mut [X]| -> Result<(), Infallible> {
        cells.copy_from_slice(&rows[row]);
        Ok(())
    };
    let Ok(()) = forest.walk(rows.len(), fill, |row, tree, leaf| {
        assert_eq!(found[row].len(), tree, "a row's leaves come in the order of the trees");
        found[row].push(leaf);
    });
    found
}

fn check<X: Cell + std::fmt::Debug>(trees: &[Plain<X>], rows: &[Vec<X>], must_blend: bool) {
    let want: Vec<Vec<u32>> =
        rows.iter().map(|row| trees.iter().map(|tree| walked(tree, row)).collect()).collect();
    let mut forest = compiled(trees);
    let is_small = trees.iter().all(|tree| {
        let mut all = Vec::new();
        flat(tree, &mut all);
        all.len() < 256
    });
    assert!(!must_blend || !is_small || forest.blend.is_some(), "no blend of {} trees", trees.len());
    assert_eq!(leaves(&forest, rows), want, "a batch");
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(leaves(&forest, std::slice::from_ref(row))[0], want[index], "row {index} alone");
    }
    if let Some(blend) = forest.blend.take() {
        let stride = COLUMNS + 1;
        let cells: Vec<X> = rows.iter().flat_map(|row| row.iter().copied().chain([X::MISSING])).collect();
        for level in Level::all() {
            let mut found = vec![Vec::new(); rows.len()];
            blend.walk_at(*level, &cells, stride, 0, &mut |some| match some {
                Found::Rows { first, leaves, .. } => {
                    leaves.iter().enumerate().for_each(|(row, leaf)| found[first + row].push(*leaf));
                }
                Found::Trees { .. } => unreachable!("a blend finds leaves of several rows"),
            });
            assert_eq!(found, want, "{level:?}");
        }
    }
    assert_eq!(leaves(&forest, rows), want, "a batch of walks");
    // What does not fit narrow nodes widens them.
    let missing = Missing { left: true, zero_too: false };
    forest
        .add(3, |at| {
            Ok(match at {
                0 => Raw::Split { column: 0, test: Test::MembersLeft(&[1]), missing, left: 1, right: 2 },
                _ => Raw::Leaf(at as u32),
            })
        })
        .expect("a tree");
    assert!(matches!(forest.nodes, Nodes::Wide(_)));
    let found = leaves(&forest, rows);
    for (index, want) in want.iter().enumerate() {
        assert_eq!(found[index][..want.len()], *want, "wide");
    }
}

fn narrowed(tree: &Plain<f64>) -> Plain<f32> {
    match tree {
        Plain::Leaf(number) => Plain::Leaf(*number),
        Plain::Split { column, threshold, missing, sides } => Plain::Split {
            column: *column,
            threshold: *threshold as f32,
            missing: *missing,
            sides: Box::new([narrowed(&sides[0]), narrowed(&sides[1])]),
        },
    }
}

fn cell() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => value(),
        1 => Just(f64::NAN),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_kind_of_walk_finds_the_leaf_of_a_plain_walk(
        trees in any::<bool>().prop_flat_map(|zero_too| prop::collection::vec(tree(zero_too), 1..20)),
        rows in prop::collection::vec(prop::collection::vec(cell(), COLUMNS), 1..150),
    ) {
        check(&trees, &rows, trees.len() > 8);
        let trees: Vec<Plain<f32>> = trees.iter().map(narrowed).collect();
        let rows: Vec<Vec<f32>> =
            rows.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect();
        check(&trees, &rows, trees.len() > 8);
    }
}

#[test]
fn a_column_of_many_thresholds_is_ranked_in_parts() {
    // A thousand thresholds on one column, and the values at, below and above each.
    let missing = Missing { left: true, zero_too: false };
    let split = |threshold: f64, sides| Plain::Split { column: 1, threshold, missing, sides };
    let mut trees = Vec::new();
    for tree in 0..500 {
        let first = f64::from(tree) * 2.0;
        let inner = split(first + 1.0, Box::new([Plain::Leaf(1), Plain::Leaf(2)]));
        trees.push(split(first, Box::new([Plain::Leaf(0), inner])));
    }
    let rows: Vec<Vec<f64>> = (-1..1001)
        .flat_map(|at| [f64::from(at), f64::from(at) + 0.5])
        .chain([f64::NAN])
        .map(|value| vec![0.0, value, 0.0])
        .collect();
    check(&trees, &rows, true);
}

#[test]
fn a_row_that_is_refused_ends_the_walk() {
    let forest = forest(&[1, 0, 0], &[2, 0, 0], 0).expect("a tree");
    let fill = |row: usize, _: &mut [f32]| if row == 70 { Err(row) } else { Ok(()) };
    assert_eq!(forest.walk(100, fill, |_, _, _| {}), Err(70));
    assert_eq!(forest.walk(70, fill, |_, _, _| {}), Ok(()));
}
