//! Argo's `when`: a condition over text after substitution, in govaluate's language.
//!
//! Words that are not quoted are strings, numbers compare as numbers, the result must be true or false.

use crate::Error;

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Number(f64),
    Text(String),
    Bool(bool),
    List(Vec<Operand>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Value(Operand),
    Mark(&'static str),
}

/// Longest condition that is read, in bytes.
const LENGTH_MAX: usize = 64 * 1024;
/// Deepest nesting of parentheses and negations.
const DEPTH_MAX: usize = 100;

/// Evaluates a condition whose tags are already substituted.
pub fn evaluate(text: &str) -> Result<bool, Error> {
    let bad = |why: &str| Error::new(format!("invalid 'when' expression '{text}': {why}"));
    if text.len() > LENGTH_MAX {
        return Err(Error::new("invalid 'when' expression: it is too long"));
    }
    let tokens = tokens(text).map_err(|why| bad(&why))?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let value = parser.or().map_err(|why| bad(&why))?;
    if parser.at != tokens.len() {
        return Err(bad("unexpected text after the expression"));
    }
    match value {
        Operand::Bool(value) => Ok(value),
        _ => Err(Error::new(format!("expected boolean evaluation for '{text}'"))),
    }
}

const MARKS: [&str; 18] =
    ["==", "!=", "<=", ">=", "=~", "!~", "&&", "||", "<", ">", "!", "(", ")", ",", "+", "-", "*", "/"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '\'' || first == '"' {
            let (inner, after) = quoted(&rest[1..], first)?;
            found.push(Token::Value(Operand::Text(inner)));
            rest = after;
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            let negative =
                *mark == "-" && !matches!(found.last(), Some(Token::Value(_)) | Some(Token::Mark(")")));
            if negative && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
                let (word, after) = word(rest);
                found.push(Token::Value(classify(word)));
                rest = after;
            } else {
                found.push(Token::Mark(mark));
                rest = &rest[mark.len()..];
            }
        } else {
            let (text, after) = word(rest);
            if text.is_empty() {
                return Err(format!("unexpected character {first:?}"));
            }
            found.push(if text == "in" { Token::Mark("in") } else { Token::Value(classify(text)) });
            rest = after;
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut inner = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (true, c) => {
                inner.push(c);
                escaped = false;
            }
            (false, '\\') => escaped = true,
            (false, c) if c == quote => return Ok((inner, &text[at + c.len_utf8()..])),
            (false, c) => inner.push(c),
        }
    }
    Err("a string is not closed".into())
}

fn word(text: &str) -> (&str, &str) {
    let inside =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '/' | '@' | '%' | '#' | '$');
    let end = text.find(|c: char| !inside(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn classify(word: &str) -> Operand {
    match word {
        "true" => Operand::Bool(true),
        "false" => Operand::Bool(false),
        _ => match word.parse::<f64>() {
            Ok(number) if number.is_finite() => Operand::Number(number),
            _ => Operand::Text(word.to_owned()),
        },
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, mark: &str) -> bool {
        let here = matches!(self.tokens.get(self.at), Some(Token::Mark(found)) if *found == mark);
        self.at += usize::from(here);
        here
    }

    fn or(&mut self) -> Result<Operand, String> {
        let mut left = self.and()?;
        while self.take("||") {
            let right = self.and()?;
            left = Operand::Bool(truth(&left)? | truth(&right)?);
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Operand, String> {
        let mut left = self.comparison()?;
        while self.take("&&") {
            let right = self.comparison()?;
            left = Operand::Bool(truth(&left)? & truth(&right)?);
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Operand, String> {
        let left = self.sum()?;
        for mark in ["==", "!=", "<=", ">=", "=~", "!~", "<", ">", "in"] {
            if self.take(mark) {
                let right = self.sum()?;
                return compare(mark, &left, &right).map(Operand::Bool);
            }
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Operand, String> {
        let mut left = self.product()?;
        loop {
            let (mark, sign) = if self.take("+") {
                ("+", 1.0)
            } else if self.take("-") {
                ("-", -1.0)
            } else {
                return Ok(left);
            };
            let right = self.product()?;
            left = match (&left, &right) {
                (Operand::Number(a), Operand::Number(b)) => Operand::Number(a + sign * b),
                (Operand::Text(a), Operand::Text(b)) if mark == "+" => Operand::Text(format!("{a}{b}")),
                _ => return Err(format!("'{mark}' needs two numbers")),
            };
        }
    }

    fn product(&mut self) -> Result<Operand, String> {
        let mut left = self.unary()?;
        loop {
            let divide = if self.take("*") {
                false
            } else if self.take("/") {
                true
            } else {
                return Ok(left);
            };
            let right = self.unary()?;
            let (Operand::Number(a), Operand::Number(b)) = (&left, &right) else {
                return Err("'*' and '/' need two numbers".into());
            };
            left = Operand::Number(if divide { a / b } else { a * b });
        }
    }

    fn unary(&mut self) -> Result<Operand, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("it is nested too deep".into());
        }
        let value = if self.take("!") {
            let inner = self.unary()?;
            Ok(Operand::Bool(!truth(&inner)?))
        } else {
            self.primary()
        };
        self.depth -= 1;
        value
    }

    fn primary(&mut self) -> Result<Operand, String> {
        if self.take("(") {
            let mut items = vec![self.or()?];
            while self.take(",") {
                items.push(self.or()?);
            }
            if !self.take(")") {
                return Err("a parenthesis is not closed".into());
            }
            return Ok(if items.len() == 1 { items.remove(0) } else { Operand::List(items) });
        }
        match self.tokens.get(self.at) {
            Some(Token::Value(value)) => {
                self.at += 1;
                Ok(value.clone())
            }
            Some(Token::Mark(mark)) => Err(format!("a value was expected before '{mark}'")),
            None => Err("it ends too early".into()),
        }
    }
}

fn truth(value: &Operand) -> Result<bool, String> {
    match value {
        Operand::Bool(value) => Ok(*value),
        _ => Err("'&&', '||' and '!' need true or false".into()),
    }
}

fn compare(mark: &str, left: &Operand, right: &Operand) -> Result<bool, String> {
    use Operand::{List, Number, Text};
    Ok(match (mark, left, right) {
        ("==", a, b) => a == b,
        ("!=", a, b) => a != b,
        ("in", a, List(items)) => items.contains(a),
        ("in", a, b) => a == b,
        ("=~" | "!~", Text(text), Text(pattern)) => {
            let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
            let regex = regex.map_err(|error| error.to_string())?;
            regex.is_match(text) == (mark == "=~")
        }
        ("<", Number(a), Number(b)) => a < b,
        (">", Number(a), Number(b)) => a > b,
        ("<=", Number(a), Number(b)) => a <= b,
        (">=", Number(a), Number(b)) => a >= b,
        ("<", Text(a), Text(b)) => a < b,
        (">", Text(a), Text(b)) => a > b,
        ("<=", Text(a), Text(b)) => a <= b,
        (">=", Text(a), Text(b)) => a >= b,
        _ => return Err(format!("'{mark}' cannot compare these values")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_govaluates() {
        for (text, want) in [
            ("heads == heads", Ok(true)),
            ("heads == tails", Ok(false)),
            ("'a b' != \"a b\"", Ok(false)),
            ("5 > 3 && 2 <= 2", Ok(true)),
            ("(1 == 2) || !(a == b)", Ok(true)),
            ("-1 < 0", Ok(true)),
            ("x in (y, x)", Ok(true)),
            ("true", Ok(true)),
            ("linux =~ '^lin'", Ok(true)),
            ("2 + 3 * 2 == 8", Ok(true)),
        ] {
            assert_eq!(evaluate(text), want, "{text}");
        }
        for text in ["", "heads", "(1 == 1", "1 == ", "'open"] {
            assert!(evaluate(text).is_err(), "{text}");
        }
        assert!(evaluate(&"(".repeat(50_000)).is_err());
    }
}
