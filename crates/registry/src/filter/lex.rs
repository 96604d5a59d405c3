//! The words of the search language.
//!
//! A word takes dots, dashes and slashes, so that `tags.mlflow.source.name` and `-1.5e-3` are one token each, as in the
//! SQL parser upstream leans on.

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Key, keyword or number.
    Word(String),
    /// Text in quotes, with the quote.
    Quoted(char, String),
    /// Comparison signs.
    Op(String),
    /// `(`, `)` or `,`.
    Punct(char),
}

/// All tokens, or nothing when a character has no place in the language or a quote stays open.
pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            c if c.is_whitespace() => {
                chars.next();
            }
            '\'' | '"' | '`' => {
                chars.next();
                out.push(Token::Quoted(c, quoted(c, &mut chars)?));
            }
            '(' | ')' | ',' => {
                chars.next();
                out.push(Token::Punct(c));
            }
            '=' | '!' | '<' | '>' => {
                out.push(Token::Op(take(&mut chars, |c| matches!(c, '=' | '!' | '<' | '>'))))
            }
            c if in_word(c) => out.push(Token::Word(take(&mut chars, in_word))),
            _ => return None,
        }
    }
    Some(out)
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '/' | '@' | ':')
}

fn take(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, wanted: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(&c) = chars.peek().filter(|&&c| wanted(c)) {
        text.push(c);
        chars.next();
    }
    text
}

/// A doubled quote stands for itself.
fn quoted(quote: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            c if c == quote && chars.peek() == Some(&quote) => {
                chars.next();
                text.push(quote);
            }
            c if c == quote => return Some(text),
            c => text.push(c),
        }
    }
}
