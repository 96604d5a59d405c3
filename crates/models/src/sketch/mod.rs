//! A model as a graph of operations on tables: what an estimator computes, for whoever writes it down elsewhere.
//!
//! Estimators draw themselves: each says its own answer in some thirty operations that every tensor language has, and
//! nothing of their insides is public. All numbers are 64-bit; where a library computes in 32 bits, the sketch says so
//! ([`Unary::Single`]). What is checked when rows are evaluated (that no value is missing, that a category is known)
//! is not in a sketch: such rows get an answer there.
//!
//! * [`draw`] makes the sketch of an estimator; what cannot be drawn is refused by its name.
//! * `build` has the words that estimators draw with, `frame` the columns that they draw on.
//!
//! Not here: any format (`onnx` writes ONNX).

mod build;
mod frame;
mod roles;
mod trees;

pub(crate) use frame::Frame;
pub use roles::draw;
pub(crate) use roles::{Classes, labelled};
pub(crate) use trees::{Derived, Plain};

/// A value of the graph: the result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wire(pub(crate) u32);

impl Wire {
    /// The index of its step.
    pub fn step(self) -> usize {
        self.0 as usize
    }
}

/// Why an estimator has no sketch: the class or the setting that has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undrawn(pub(crate) String);

/// The result of drawing.
pub(crate) type Drawn<T> = Result<T, Undrawn>;

pub(crate) fn undrawn<T>(what: impl Into<String>) -> Drawn<T> {
    Err(Undrawn(what.into()))
}

/// What a value's cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit floats.
    Number,
    /// 64-bit integers.
    Whole,
    /// Texts.
    Text,
    /// Truth values.
    Truth,
}

/// Cells of a constant, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Cells {
    /// 64-bit floats.
    Numbers(Vec<f64>),
    /// 64-bit integers.
    Wholes(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
    /// Truth values.
    Truths(Vec<bool>),
}

/// Operations on each cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unary {
    Negative,
    Absolute,
    Exp,
    Log,
    Root,
    Sigmoid,
    Tanh,
    Sine,
    Cosine,
    Floor,
    Sign,
    /// Numbers to truths.
    IsMissing,
    /// Truths to truths.
    Not,
    /// Rounded to 32 bits, as a number of 64.
    Single,
    /// Truths and integers to numbers.
    Number,
    /// Truths and numbers to integers.
    Whole,
}

/// Operations on two values, which are repeated along dimensions of one, as numpy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    /// To truths; nothing compares with what is missing.
    Less,
    Greater,
    AtLeast,
    /// Also of texts and integers.
    Equal,
    And,
    Or,
    /// The matrix product.
    Product,
}

/// How cells along an axis become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fold {
    Sum,
    Max,
}

/// One step; its inputs are in [`Step::inputs`].
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The caller's columns: the place in [`Sketch::inputs`].
    Input(usize),
    /// Dimensions and cells.
    Constant(Vec<usize>, Cells),
    /// On each cell.
    Unary(Unary),
    /// On two values.
    Binary(Binary),
    /// The second where the first is true, else the third.
    Choose,
    /// Along an axis, which stays with size one.
    Fold(Fold, i64),
    /// The place of the first greatest along the last axis, which goes.
    ArgMax,
    /// Exponentials that add up to one, along the last axis.
    Softmax,
    /// The first's parts along an axis that the second's integers name.
    Pick(i64),
    /// One after the other along an axis.
    Join(i64),
    /// The same cells in another shape: -1 is what is left, 0 what it was.
    Shape(Vec<i64>),
    /// The place of a text among these; their number where it is none of them.
    Code(Vec<String>),
    /// The smallest cells along the last axis, ascending.
    Smallest(usize),
    /// Their places; of equals the first.
    SmallestPlaces(usize),
    /// The sum of what trees say about a row, by target.
    Trees(Box<Trees>),
    /// The value after rounds of steps; the first input is the value before them.
    Rounds(Box<Rounds>),
}

/// Steps that are done again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounds {
    /// The most rounds.
    pub most: usize,
    /// One round: its inputs are the step's, the first one as the round before left it. Its outputs are the value for the
    /// next round and whether there is one, a single truth.
    pub body: Sketch,
}

/// A node of a tree. Children are indices in [`Trees::nodes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TreeNode {
    /// Says the weight of this number.
    Leaf(u32),
    /// Values up to the threshold go left.
    Split {
        /// The column of the row.
        column: u32,
        /// The bound, inclusive.
        threshold: f64,
        /// Missing values go left.
        missing_left: bool,
        /// The node for values up to the threshold.
        left: u32,
        /// The node for the others.
        right: u32,
    },
}

/// Trees whose leaves add up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trees {
    /// All nodes; trees share none.
    pub nodes: Vec<TreeNode>,
    /// The first node of each tree.
    pub roots: Vec<u32>,
    /// The target that each tree adds to.
    pub targets: Vec<u32>,
    /// What leaves say, by number.
    pub weights: Vec<f64>,
    /// How many targets there are.
    pub width: usize,
}

/// One operation on earlier values.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// With what.
    pub inputs: Vec<Wire>,
}

/// Columns that the caller gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Their name.
    pub name: String,
    /// Numbers or texts.
    pub kind: Kind,
    /// How many columns.
    pub width: usize,
}

/// A value that the model answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// What its cells are.
    pub kind: Kind,
    /// Its dimensions after the rows.
    pub row: Vec<usize>,
    /// The value.
    pub wire: Wire,
}

/// A model as operations on tables. Every step uses only earlier ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sketch {
    /// What the caller gives.
    pub inputs: Vec<Input>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What comes of it.
    pub outputs: Vec<Output>,
}
