//! Reads pickles (protocols 0 to 5, and joblib's form of them) as data.
//!
//! A pickle is a program for a small stack machine whose `REDUCE` calls functions by name. This machine calls
//! nothing: names come from a closed list (`admit`), and a call makes inert data or an error. What a file can
//! claim is bounded by what it holds; see [`Limits`].
//!
//! * `read` is the cursor, `admit` the list of names, `build` makes values.
//! * joblib writes each array's bytes into the stream behind a marker object; they are read when the marker's
//!   state arrives.
//!
//! Not here: compression (`container`), meaning (`sklearn`).

mod admit;
mod build;
mod opcode;
mod read;

use bytes::Bytes;

use crate::error::{LoadError, Result};
use crate::graph::{Global, Graph, Id, Node, View};
use crate::limits::Limits;
use read::Cursor;

/// What a pickle turned out to be.
#[derive(Debug)]
pub struct Pickled {
    /// Its values.
    pub graph: Graph,
    /// The highest protocol it declares; 0 if it declares none.
    pub protocol: u8,
    /// Whether joblib wrote arrays into the stream.
    pub by_joblib: bool,
}

/// Reads one pickle.
pub fn read(bytes: &Bytes, limits: &Limits) -> Result<Pickled> {
    if bytes.len() > limits.bytes_max {
        return Err(LoadError::TooLarge { what: "file in bytes", limit: limits.bytes_max });
    }
    let mut machine = Machine::new(bytes, limits);
    let root = machine.run(limits.depth_max)?;
    machine.graph.set_root(root);
    Ok(Pickled { graph: machine.graph, protocol: machine.protocol, by_joblib: machine.by_joblib })
}

/// Whether a model file may name this global at all.
pub(crate) fn is_admitted(module: &str, name: &str) -> bool {
    admit::admit(module, name).is_some()
}

struct Machine<'a> {
    cursor: Cursor<'a>,
    graph: Graph,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    protocol: u8,
    by_joblib: bool,
    depth_max: usize,
    values_max: usize,
    /// References copied so far: the one way in which a few bytes of a file become many of ours.
    copied: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a Bytes, limits: &Limits) -> Self {
        Self {
            cursor: Cursor::new(bytes),
            graph: Graph::new(limits.values_max),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            protocol: 0,
            by_joblib: false,
            depth_max: limits.depth_max,
            values_max: limits.values_max,
            copied: 0,
        }
    }

    /// Runs to `STOP` and returns what lies on top. `depth` bounds pickles within a pickle (joblib's object arrays).
    fn run(&mut self, depth: usize) -> Result<Id> {
        let base = self.stack.len();
        loop {
            let offset = self.cursor.offset();
            let code = self.cursor.byte("the next opcode")?;
            if code == opcode::STOP {
                let root = self.pop()?;
                self.stack.truncate(base);
                return Ok(root);
            }
            self.step(code, offset, depth)?;
        }
    }

    fn malformed(&self, what: impl Into<String>) -> LoadError {
        LoadError::malformed("pickle", self.cursor.offset(), what)
    }

    fn view(&self, id: Id) -> View<'_> {
        self.graph.view(id)
    }

    fn push(&mut self, id: Id) -> Result<()> {
        // Pushing costs a file one byte, so the stack needs a bound of its own.
        if self.stack.len() >= self.values_max {
            return Err(LoadError::TooLarge { what: "stack of the pickle", limit: self.values_max });
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<()> {
        let id = self.graph.add(node)?;
        self.push(id)
    }

    /// Accounts for a copy of a list of references.
    fn charge(&mut self, references: usize) -> Result<()> {
        self.copied = self.copied.saturating_add(references);
        if self.copied > self.values_max {
            return Err(LoadError::TooLarge { what: "copies of containers", limit: self.values_max });
        }
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(self.malformed("stack underflow"));
        }
        self.stack.pop().ok_or_else(|| self.malformed("stack underflow"))
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err(self.malformed("stack underflow")),
        }
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= self.depth_max {
            return Err(LoadError::TooLarge { what: "nesting of containers", limit: self.depth_max });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Closes the last mark and returns where it is.
    fn close_mark(&mut self) -> Result<usize> {
        let Some(height) = self.marks.pop() else { return Err(self.malformed("no mark is open")) };
        if height > self.stack.len() {
            return Err(self.malformed("stack underflow"));
        }
        Ok(height)
    }

    /// Everything above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let height = self.close_mark()?;
        Ok(self.stack.split_off(height))
    }

    fn remember(&mut self, index: u64) -> Result<()> {
        let top = self.top()?;
        // Writers number memo entries one by one, so an index far beyond the values made is an attack on memory.
        let index_max = self.graph.len() * 2 + 1024;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index > index_max {
            return Err(LoadError::TooLarge { what: "memo index", limit: index_max });
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<()> {
        let known = usize::try_from(index).ok().and_then(|index| self.memo.get(index).copied().flatten());
        let Some(id) = known else {
            return Err(self.malformed(format!("memo entry {index} does not exist")));
        };
        self.push(id)
    }

    fn global(&mut self, module: &str, name: &str, offset: usize) -> Result<()> {
        if admit::admit(module, name).is_none() {
            return Err(LoadError::Refused {
                global: format!("{module}.{name}"),
                reason: refusal(module),
                offset,
            });
        }
        self.push_node(Node::Global(Global { module: module.into(), name: name.into() }))
    }
}

/// Why a global is refused, as far as its module tells.
fn refusal(module: &str) -> &'static str {
    match module.split('.').next().unwrap_or_default() {
        "cloudpickle" | "dill" => "the file carries Python code of its own",
        "__main__" => "the class was defined in a script, so its code is not known here",
        "xgboost" | "lightgbm" | "catboost" => "save this model in its library's own format",
        "torch" => "this is a PyTorch object",
        _ => "not on the list of names that a model may use",
    }
}

#[cfg(test)]
mod tests;
