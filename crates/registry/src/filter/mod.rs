//! MLflow's search language: `metrics.acc > 0.9 AND tags."a b" LIKE 'x%'`, and the list of `order_by`.
//!
//! Clauses are joined by AND only: upstream has neither OR nor parentheses. The parser knows the language, `sql` knows
//! which keys each kind of thing has; a filter that does not parse is refused with the clause in the text.

mod lex;
pub(crate) mod sql;

use crate::error::{Error, Result};
use lex::Token;

/// What a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entity {
    Attribute,
    Metric,
    Param,
    Tag,
    Dataset,
}

/// How key and value are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Like,
    ILike,
    In,
    NotIn,
    IsNull,
    IsNotNull,
}

/// The right side of a clause.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Text(String),
    Number(f64),
    List(Vec<String>),
    None,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clause {
    pub(crate) entity: Entity,
    pub(crate) key: String,
    pub(crate) op: Op,
    pub(crate) operand: Operand,
}

/// One sort key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) entity: Entity,
    pub(crate) key: String,
    pub(crate) descending: bool,
}

/// All clauses of a filter; none for an empty text.
pub(crate) fn parse(filter: &str) -> Result<Vec<Clause>> {
    let invalid = || Error::Invalid(format!("Invalid clause(s) in filter string: '{filter}'"));
    let tokens = lex::tokens(filter).ok_or_else(invalid)?;
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let mut clauses = Vec::new();
    if tokens.is_empty() {
        return Ok(clauses);
    }
    loop {
        clauses.push(parser.clause().ok_or_else(invalid)?);
        if parser.at == tokens.len() {
            return Ok(clauses);
        }
        if !parser.word("AND") {
            return Err(invalid());
        }
    }
}

/// One entry of `order_by`: a key, then `ASC` or `DESC`; ascending when neither is said.
pub(crate) fn parse_order(order: &str) -> Result<Order> {
    let invalid = || {
        Error::Invalid(format!("Invalid order_by clause '{order}'. Expected 'KEY', 'KEY ASC' or 'KEY DESC'."))
    };
    let tokens = lex::tokens(order).ok_or_else(invalid)?;
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let (entity, key) = parser.key().ok_or_else(invalid)?;
    let descending = if parser.word("DESC") {
        true
    } else {
        parser.word("ASC");
        false
    };
    if parser.at != tokens.len() {
        return Err(invalid());
    }
    Ok(Order { entity, key, descending })
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<&Token> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// Takes the word when it is next, in any case.
    fn word(&mut self, wanted: &str) -> bool {
        let found =
            matches!(self.tokens.get(self.at), Some(Token::Word(word)) if word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(found);
        found
    }

    fn clause(&mut self) -> Option<Clause> {
        let (entity, key) = self.key()?;
        let op = self.op()?;
        let operand = match op {
            Op::IsNull | Op::IsNotNull => Operand::None,
            Op::In | Op::NotIn => Operand::List(self.list()?),
            _ => self.value()?,
        };
        Some(Clause { entity, key, op, operand })
    }

    fn key(&mut self) -> Option<(Entity, String)> {
        let first = match self.next()? {
            Token::Word(word) => word.clone(),
            Token::Quoted(_, text) => return Some((Entity::Attribute, text.clone())),
            _ => return None,
        };
        let Some((prefix, rest)) = first.split_once('.') else {
            return Some((Entity::Attribute, first));
        };
        let entity = entity(prefix)?;
        if !rest.is_empty() {
            return Some((entity, rest.to_owned()));
        }
        match self.next()? {
            Token::Quoted('`' | '"', text) => Some((entity, text.clone())),
            _ => None,
        }
    }

    fn op(&mut self) -> Option<Op> {
        if self.word("LIKE") {
            return Some(Op::Like);
        }
        if self.word("ILIKE") {
            return Some(Op::ILike);
        }
        if self.word("IN") {
            return Some(Op::In);
        }
        if self.word("NOT") {
            return self.word("IN").then_some(Op::NotIn);
        }
        if self.word("IS") {
            let not = self.word("NOT");
            let op = if not { Op::IsNotNull } else { Op::IsNull };
            return self.word("NULL").then_some(op);
        }
        match self.next()? {
            Token::Op(text) => Some(match text.as_str() {
                "=" | "==" => Op::Eq,
                "!=" | "<>" => Op::Ne,
                "<" => Op::Lt,
                "<=" => Op::Le,
                ">" => Op::Gt,
                ">=" => Op::Ge,
                _ => return None,
            }),
            _ => None,
        }
    }

    fn value(&mut self) -> Option<Operand> {
        match self.next()? {
            Token::Quoted('\'' | '"', text) => Some(Operand::Text(text.clone())),
            Token::Word(word) => word.parse().ok().map(Operand::Number),
            _ => None,
        }
    }

    fn list(&mut self) -> Option<Vec<String>> {
        let mut list = Vec::new();
        if !matches!(self.next()?, Token::Punct('(')) {
            return None;
        }
        loop {
            match self.next()? {
                Token::Quoted('\'' | '"', text) => list.push(text.clone()),
                Token::Word(word) if word.parse::<f64>().is_ok() => list.push(word.clone()),
                _ => return None,
            }
            match self.next()? {
                Token::Punct(',') => {}
                Token::Punct(')') => return Some(list),
                _ => return None,
            }
        }
    }
}

fn entity(prefix: &str) -> Option<Entity> {
    Some(match prefix {
        "metric" | "metrics" => Entity::Metric,
        "param" | "params" | "parameter" | "parameters" => Entity::Param,
        "tag" | "tags" => Entity::Tag,
        "attr" | "attribute" | "attributes" | "run" => Entity::Attribute,
        "dataset" | "datasets" => Entity::Dataset,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(filter: &str) -> Clause {
        let mut clauses = parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(clauses.len(), 1, "{filter}");
        clauses.remove(0)
    }

    #[test]
    fn every_form_of_a_key_is_read() {
        let table = [
            ("metrics.acc > 0.5", Entity::Metric, "acc"),
            ("metric.`a b/c`>=1", Entity::Metric, "a b/c"),
            ("params.\"lr rate\" = '1'", Entity::Param, "lr rate"),
            ("tags.mlflow.source.name = 'x'", Entity::Tag, "mlflow.source.name"),
            ("attributes.status = 'FINISHED'", Entity::Attribute, "status"),
            ("run_id = 'x'", Entity::Attribute, "run_id"),
            ("datasets.digest = 'd'", Entity::Dataset, "digest"),
        ];
        for (filter, entity, key) in table {
            let clause = one(filter);
            assert_eq!((clause.entity, clause.key.as_str()), (entity, key), "{filter}");
        }
    }

    #[test]
    fn every_operator_is_read() {
        let text = |s: &str| Operand::Text(s.to_owned());
        let list = |l: &[&str]| Operand::List(l.iter().map(|&s| s.to_owned()).collect());
        let table = [
            ("metrics.m=-1.5e-3", Op::Eq, Operand::Number(-1.5e-3)),
            ("metrics.m != 2", Op::Ne, Operand::Number(2.0)),
            ("params.p like 'a%'", Op::Like, text("a%")),
            ("params.p ILIKE \"A%\"", Op::ILike, text("A%")),
            ("params.p IS NULL", Op::IsNull, Operand::None),
            ("params.p is not null", Op::IsNotNull, Operand::None),
            ("run_id IN ('a','b')", Op::In, list(&["a", "b"])),
            ("run_id not in ( 'a' )", Op::NotIn, list(&["a"])),
            ("tags.t = 'it''s; -- AND x'", Op::Eq, text("it's; -- AND x")),
        ];
        for (filter, op, operand) in table {
            let clause = one(filter);
            assert_eq!((clause.op, clause.operand), (op, operand), "{filter}");
        }
    }

    #[test]
    fn clauses_are_joined_by_and_alone() {
        assert_eq!(parse("a = '1' AND b = '2' and c = '3'").unwrap().len(), 3);
        assert!(parse("  ").unwrap().is_empty());
        for bad in [
            "a = '1' OR b = '2'",
            "(a = '1')",
            "a =",
            "= 'x'",
            "a = b",
            "a = 'x",
            "foo.bar = '1'",
            "a = '1' AND",
            "a NOT '1'",
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.starts_with("Invalid clause(s) in filter string"), "{error}");
        }
    }

    #[test]
    fn order_by_has_a_key_and_a_direction() {
        let order = parse_order("metrics.`val acc` DESC").unwrap();
        assert_eq!(order, Order { entity: Entity::Metric, key: "val acc".into(), descending: true });
        assert!(!parse_order("start_time").unwrap().descending);
        assert!(!parse_order("attributes.start_time asc").unwrap().descending);
        assert!(parse_order("start_time; DROP TABLE x").is_err());
        assert!(parse_order("").is_err());
    }
}
