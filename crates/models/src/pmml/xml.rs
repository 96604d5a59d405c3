//! XML within bounds.
//!
//! Document types are refused, and with them entities of the document's own: nothing expands. Before the parser sees
//! a document its depth and the number of attributes are counted, because a parser's effort may grow with their
//! square.
//!
//! Not here: what elements mean.

use memchr::memmem;
use roxmltree::{Document, Node, ParsingOptions};

use crate::error::{LoadError, Result};
use crate::limits::Limits;

/// Bytes of a document.
const BYTES_MAX: usize = 1 << 30;
/// Elements and texts between them.
const NODES_MAX: usize = 16_000_000;
/// Attributes of an element.
const ATTRIBUTES_MAX: usize = 64;
/// Declarations of namespaces in a document: each element below one carries it.
const NAMESPACES_MAX: usize = 1_000;

/// An element.
#[derive(Clone, Copy)]
pub(super) struct El<'d>(Node<'d, 'd>);

/// The document's text.
pub(super) fn text<'b>(bytes: &'b [u8], limits: &Limits) -> Result<&'b str> {
    let most = limits.bytes_max.min(BYTES_MAX);
    if bytes.len() > most {
        return Err(LoadError::TooLarge { what: "XML in bytes", limit: most });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| LoadError::malformed("XML", error.valid_up_to(), "it is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Parses a document.
pub(super) fn parse<'t>(text: &'t str, limits: &Limits) -> Result<Document<'t>> {
    measure(text.as_bytes(), limits)?;
    let nodes_max = limits.values_max.min(NODES_MAX);
    let options = ParsingOptions { nodes_limit: nodes_max as u32, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::NodesLimitReached => {
            LoadError::TooLarge { what: "number of XML elements", limit: nodes_max }
        }
        roxmltree::Error::DtdDetected => LoadError::unsupported("XML with a document type (DTD)"),
        other => LoadError::malformed("XML", offset(text, other.pos()), other.to_string()),
    })
}

/// Where in the text a line and a column are.
fn offset(text: &str, at: roxmltree::TextPos) -> usize {
    let lines = text.split_inclusive('\n').take(at.row.saturating_sub(1) as usize);
    (lines.map(str::len).sum::<usize>() + at.col.saturating_sub(1) as usize).min(text.len())
}

/// Counts depth, attributes and namespaces. What is no XML is left to the parser.
fn measure(bytes: &[u8], limits: &Limits) -> Result<()> {
    if memmem::find_iter(bytes, b"xmlns").take(NAMESPACES_MAX + 1).count() > NAMESPACES_MAX {
        return Err(LoadError::TooLarge { what: "number of XML namespaces", limit: NAMESPACES_MAX });
    }
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(found) = memchr::memchr(b'<', &bytes[at..]) {
        let start = at + found;
        let rest = &bytes[start..];
        let skip = [(&b"<!--"[..], &b"-->"[..]), (b"<![CDATA[", b"]]>"), (b"<?", b"?>")];
        if let Some((_, end)) = skip.into_iter().find(|(open, _)| rest.starts_with(open)) {
            let Some(end) = memmem::find(rest, end) else { return Ok(()) };
            at = start + end + 1;
            continue;
        }
        let (length, attributes) = tag(rest);
        if attributes > ATTRIBUTES_MAX {
            return Err(LoadError::TooLarge { what: "attributes of an XML element", limit: ATTRIBUTES_MAX });
        }
        match rest.get(1) {
            Some(b'/') => depth = depth.saturating_sub(1),
            _ if rest[..length].ends_with(b"/>") => {}
            _ => depth += 1,
        }
        if depth > limits.depth_max {
            return Err(LoadError::TooLarge { what: "depth of XML", limit: limits.depth_max });
        }
        at = start + length;
    }
    Ok(())
}

/// How long a tag is, and how many attributes it has.
fn tag(bytes: &[u8]) -> (usize, usize) {
    let (mut quote, mut attributes) = (None, 0);
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, *byte) {
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'=') => attributes += 1,
            (None, b'>') => return (at + 1, attributes),
            (None, _) => {}
        }
    }
    (bytes.len(), attributes)
}

/// The element `PMML`.
pub(super) fn root<'d>(document: &'d Document<'d>) -> Result<El<'d>> {
    let root = El(document.root_element());
    if root.name() != "PMML" {
        return Err(LoadError::unsupported(format!("XML whose root is {}, not PMML", root.name())));
    }
    Ok(root)
}

impl<'d> El<'d> {
    pub(super) fn name(self) -> &'d str {
        self.0.tag_name().name()
    }

    pub(super) fn attr(self, name: &str) -> Option<&'d str> {
        self.0.attribute(name)
    }

    pub(super) fn need(self, name: &str) -> Result<&'d str> {
        self.attr(name).ok_or_else(|| self.error(format!("it has no {name}")))
    }

    /// An attribute that is a number, and not NaN.
    pub(super) fn float(self, name: &str) -> Result<Option<f64>> {
        self.attr(name).map(|text| self.number(text)).transpose()
    }

    pub(super) fn number(self, text: &str) -> Result<f64> {
        let number = text.trim().parse::<f64>().ok().filter(|number| !number.is_nan());
        number.ok_or_else(|| self.error(format!("{} is no number", short(text))))
    }

    /// The elements in it; extensions mean nothing to an evaluation.
    pub(super) fn children(self) -> impl Iterator<Item = El<'d>> {
        self.0.children().filter(Node::is_element).map(El).filter(|child| child.name() != "Extension")
    }

    pub(super) fn child(self, name: &str) -> Option<El<'d>> {
        self.children().find(|child| child.name() == name)
    }

    /// All texts directly in it.
    pub(super) fn text(self) -> String {
        self.0.children().filter(|child| child.is_text()).filter_map(|child| child.text()).collect()
    }

    /// What is wrong with it.
    pub(super) fn error(self, what: impl AsRef<str>) -> LoadError {
        LoadError::attribute("PMML", format!("{}: {}", self.place(), what.as_ref()))
    }

    /// The element is not evaluated here.
    pub(super) fn refuse(self) -> LoadError {
        LoadError::unsupported(format!("PMML's {}", self.place()))
    }

    /// This value of an attribute is not evaluated here.
    pub(super) fn refuse_value(self, name: &str, value: &str) -> LoadError {
        LoadError::unsupported(format!("PMML's {name}={:?} of {}", short(value), self.place()))
    }

    fn place(self) -> String {
        let at = self.0.document().text_pos_at(self.0.range().start);
        format!("{} (line {}, column {})", short(self.name()), at.row, at.col)
    }
}

/// The beginning of a text, for errors.
pub(super) fn short(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

/// The values of an `Array`: words, or texts in quotes.
pub(super) fn array(el: El<'_>) -> Result<Vec<String>> {
    let text = el.text();
    let (mut values, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let mut value = String::new();
        let end = if first == '"' {
            let mut is_escaped = false;
            let end = rest[1..].char_indices().find(|(_, letter)| {
                let is_end = *letter == '"' && !is_escaped;
                let is_mark = *letter == '\\' && !is_escaped;
                if !is_end && !is_mark {
                    value.push(*letter);
                }
                is_escaped = is_mark;
                is_end
            });
            let Some((end, _)) = end else { return Err(el.error("a quote without its end")) };
            end + 2
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            value.push_str(&rest[..end]);
            end
        };
        values.push(value);
        rest = rest[end..].trim_start();
    }
    match el.float("n")? {
        Some(count) if count != values.len() as f64 => {
            Err(el.error(format!("n is {count} and it holds {} values", values.len())))
        }
        _ => Ok(values),
    }
}
