//! The opcodes of the pickle machine and what each does to the stack.
//!
//! Numbers and meanings are those of CPython's `pickletools`; the match is exhaustive over protocols 0 to 5,
//! and what is left out (extension registry, persistent ids, out-of-band buffers) is refused by name.
//!
//! Not here: calls and states (`build`).

use super::Machine;
use crate::error::{LoadError, Result};
use crate::graph::{Graph, Node};

pub(super) const STOP: u8 = b'.';

impl Machine<'_> {
    /// Executes one opcode.
    pub(super) fn step(&mut self, code: u8, offset: usize, depth: usize) -> Result<()> {
        match code {
            0x80 => self.protocol(),
            // A frame announces how much may be read ahead; this reader has everything already.
            0x95 => self.cursor.uint::<8>("a frame's length").map(drop),
            b'(' => self.mark(),
            b'0' => self.pop_or_unmark(),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => self.top().and_then(|id| self.push(id)),
            b'N' => self.push(Graph::NONE),
            0x88 => self.push(Graph::truth(true)),
            0x89 => self.push(Graph::truth(false)),
            b'I' | b'J' | b'K' | b'M' | b'L' | 0x8a | 0x8b | b'F' | b'G' => self.number(code),
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.text(code),
            b'B' | b'C' | 0x8e | 0x96 => self.raw_bytes(code),
            b']' => self.push_node(Node::List(Vec::new())),
            b')' => self.push_node(Node::Tuple(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            0x8f => self.push_node(Node::Set(Vec::new())),
            b'l' | b't' | 0x91 | b'd' | 0x85..=0x87 => self.gather(code),
            b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(code),
            b'p' | b'q' | b'r' | 0x94 => self.memo_put(code),
            b'g' | b'h' | b'j' => self.memo_get(code),
            b'c' | 0x93 => self.name(code, offset),
            b'R' => {
                let args = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, args, offset)
            }
            0x81 => {
                let args = self.pop()?;
                let class = self.pop()?;
                self.instance(class, args, offset)
            }
            0x92 => {
                self.pop()?;
                let args = self.pop()?;
                let class = self.pop()?;
                self.instance(class, args, offset)
            }
            b'i' | b'o' => self.old_instance(code, offset),
            b'b' => self.set_state(depth),
            0x98 => Ok(()),
            b'P' | b'Q' => {
                Err(LoadError::unsupported("persistent ids (the file refers to values outside of it)"))
            }
            0x82..=0x84 => Err(self.malformed("extension registry codes are not used by any model")),
            0x97 => {
                Err(LoadError::unsupported("out-of-band buffers (the file refers to bytes outside of it)"))
            }
            _ => Err(LoadError::malformed("pickle", offset, format!("unknown opcode 0x{code:02x}"))),
        }
    }

    fn protocol(&mut self) -> Result<()> {
        let version = self.cursor.byte("the protocol")?;
        if version > 5 {
            return Err(LoadError::unsupported(format!("pickle protocol {version} (0 to 5 are known)")));
        }
        self.protocol = self.protocol.max(version);
        Ok(())
    }

    fn pop_or_unmark(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn number(&mut self, code: u8) -> Result<()> {
        let node = match code {
            b'I' => match self.cursor.text_line("an integer")? {
                "00" => return self.push(Graph::truth(false)),
                "01" => return self.push(Graph::truth(true)),
                text => self.decimal(text)?,
            },
            b'L' => {
                let text = self.cursor.text_line("an integer")?;
                self.decimal(text.trim_end_matches('L'))?
            }
            b'J' => Node::Int(i64::from(self.cursor.uint::<4>("an integer")? as u32 as i32)),
            b'K' => Node::Int(self.cursor.uint::<1>("an integer")? as i64),
            b'M' => Node::Int(self.cursor.uint::<2>("an integer")? as i64),
            0x8a => {
                let count = self.cursor.uint::<1>("an integer's length")?;
                long(self.cursor.take(count, "an integer")?)
            }
            0x8b => {
                let count = self.cursor.uint::<4>("an integer's length")?;
                long(self.cursor.take(count, "an integer")?)
            }
            b'F' => {
                let text = self.cursor.text_line("a number")?;
                Node::Float(text.trim().parse().map_err(|_| self.malformed("not a number"))?)
            }
            _ => Node::Float(f64::from_bits(self.cursor.uint::<8>("a number")?.swap_bytes())),
        };
        self.push_node(node)
    }

    fn decimal(&self, text: &str) -> Result<Node> {
        let text = text.trim();
        match text.parse() {
            Ok(int) => Ok(Node::Int(int)),
            Err(_) if is_decimal(text) => Ok(Node::BigInt),
            Err(_) => Err(self.malformed("not an integer")),
        }
    }

    fn text(&mut self, code: u8) -> Result<()> {
        let text: Box<str> = match code {
            b'V' => {
                let line = self.cursor.line("a text")?;
                raw_unicode_escape(line).ok_or_else(|| self.malformed("a text with a broken escape"))?
            }
            b'S' => {
                let line = self.cursor.text_line("a text")?.trim();
                let quoted = line.len() >= 2 && (line.starts_with('\'') || line.starts_with('"'));
                if !quoted || line.contains('\\') {
                    return Err(self.malformed("a quoted text with escapes"));
                }
                line[1..line.len() - 1].into()
            }
            b'T' | b'U' => {
                let length = if code == b'T' {
                    self.cursor.uint::<4>("a length")
                } else {
                    self.cursor.uint::<1>("a length")
                }?;
                // Python 2 text: bytes, read as Latin-1 as `encoding="latin1"` does.
                self.cursor.take(length, "a text")?.iter().map(|byte| char::from(*byte)).collect()
            }
            b'X' => {
                let length = self.cursor.uint::<4>("a text's length")?;
                self.cursor.text(length, "a text")?.into()
            }
            0x8c => {
                let length = self.cursor.uint::<1>("a text's length")?;
                self.cursor.text(length, "a text")?.into()
            }
            _ => {
                let length = self.cursor.uint::<8>("a text's length")?;
                self.cursor.text(length, "a text")?.into()
            }
        };
        self.push_node(Node::Text(text))
    }

    fn raw_bytes(&mut self, code: u8) -> Result<()> {
        let length = match code {
            b'C' => self.cursor.uint::<1>("a length")?,
            b'B' => self.cursor.uint::<4>("a length")?,
            _ => self.cursor.uint::<8>("a length")?,
        };
        let bytes = self.cursor.share(length, "bytes")?;
        self.push_node(Node::Bytes(bytes))
    }

    /// Makes one container of what lies on the stack.
    fn gather(&mut self, code: u8) -> Result<()> {
        let items = match code {
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
            _ => self.pop_to_mark()?,
        };
        let node = match code {
            b'l' => Node::List(items),
            0x91 => Node::Set(items),
            b'd' => Node::Dict(self.paired(&items)?),
            _ => Node::Tuple(items),
        };
        self.push_node(node)
    }

    pub(super) fn paired(
        &self,
        items: &[crate::graph::Id],
    ) -> Result<Vec<(crate::graph::Id, crate::graph::Id)>> {
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    /// Adds what lies on the stack to the container below it, from where it lies: files are full of such steps.
    fn extend(&mut self, code: u8) -> Result<()> {
        let start = match code {
            b'a' => self.stack.len().checked_sub(1),
            b's' => self.stack.len().checked_sub(2),
            _ => Some(self.close_mark()?),
        };
        // The container lies below, and above the mark that is open.
        let start = start.filter(|start| *start > self.floor());
        let Some(start) = start else { return Err(self.malformed("stack underflow")) };
        let (target, items) = (self.stack[start - 1], &self.stack[start..]);
        let is_pairs = matches!(code, b's' | b'u');
        if is_pairs && !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match self.graph.get_mut(target) {
            Node::List(list) | Node::Set(list) if !is_pairs => list.extend_from_slice(items),
            Node::Dict(dict) if is_pairs => dict.extend(pairs),
            Node::Object(object) if is_pairs => object.pairs.extend(pairs),
            Node::Object(object) => object.items.extend_from_slice(items),
            _ => {
                let class = self.view(target).class_name();
                return Err(self.malformed(format!("{class} cannot be extended")));
            }
        }
        self.stack.truncate(start);
        Ok(())
    }

    fn memo_put(&mut self, code: u8) -> Result<()> {
        let index = match code {
            b'p' => self.memo_line()?,
            b'q' => self.cursor.uint::<1>("a memo index")?,
            b'r' => self.cursor.uint::<4>("a memo index")?,
            _ => self.memo.len() as u64,
        };
        self.remember(index)
    }

    fn memo_get(&mut self, code: u8) -> Result<()> {
        let index = match code {
            b'g' => self.memo_line()?,
            b'h' => self.cursor.uint::<1>("a memo index")?,
            _ => self.cursor.uint::<4>("a memo index")?,
        };
        self.recall(index)
    }

    fn memo_line(&mut self) -> Result<u64> {
        let line = self.cursor.text_line("a memo index")?;
        line.trim().parse().map_err(|_| self.malformed("a memo index that is no number"))
    }

    fn name(&mut self, code: u8, offset: usize) -> Result<()> {
        if code == b'c' {
            let module = self.cursor.text_line("a module's name")?;
            let name = self.cursor.text_line("a global's name")?;
            return self.global(module, name, offset);
        }
        let name = self.pop()?;
        let module = self.pop()?;
        let (Some(module), Some(name)) = (self.view(module).text(), self.view(name).text()) else {
            return Err(self.malformed("a global's name is not a text"));
        };
        let (module, name) = (module.to_owned(), name.to_owned());
        self.global(&module, &name, offset)
    }

    /// `INST` and `OBJ` of protocols 0 and 1.
    fn old_instance(&mut self, code: u8, offset: usize) -> Result<()> {
        let class = if code == b'i' {
            let module = self.cursor.text_line("a module's name")?;
            let name = self.cursor.text_line("a class's name")?;
            self.global(module, name, offset)?;
            let class = self.stack.pop();
            class.ok_or_else(|| self.malformed("stack underflow"))?
        } else {
            Graph::NONE
        };
        let mut items = self.pop_to_mark()?;
        let class = match code {
            b'i' => class,
            _ if items.is_empty() => return Err(self.malformed("an instance without a class")),
            _ => items.remove(0),
        };
        let args = self.graph.add(Node::Tuple(items))?;
        self.instance(class, args, offset)
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Latin-1 with `\uXXXX` and `\UXXXXXXXX`: how protocol 0 writes texts.
fn raw_unicode_escape(line: &[u8]) -> Option<Box<str>> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let [first, after @ ..] = rest {
        let digits = match (first, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(*first));
                rest = after;
                continue;
            }
        };
        let code = std::str::from_utf8(after.get(1..=digits)?).ok()?;
        text.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = &after[1 + digits..];
    }
    Some(text.into())
}

/// A little-endian two's-complement integer of any length.
fn long(bytes: &[u8]) -> Node {
    if bytes.is_empty() {
        return Node::Int(0);
    }
    if bytes.len() > 8 {
        return Node::BigInt;
    }
    let is_negative = bytes[bytes.len() - 1] & 0x80 != 0;
    let mut eight = if is_negative { [0xff; 8] } else { [0; 8] };
    eight[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(eight))
}
