//! DNS messages, as far as a server of A and CNAME records needs them (RFC 1035, EDNS of RFC 6891). Pure.
//!
//! Input is hostile: every read is checked, a question has one name without compression, and what cannot be read gets
//! FORMERR or, without even a header, no answer.

use std::net::Ipv4Addr;

use super::zone::Answer;

/// What clients keep an answer, in seconds; short, because endpoints come and go.
const TTL_SECONDS: u32 = 5;
/// The size of a UDP answer without EDNS.
const UDP_BYTES: usize = 512;
/// The largest UDP answer, which passes every path unfragmented.
const UDP_BYTES_MAX: usize = 1232;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const NAME_ERROR: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

struct Query<'a> {
    id: [u8; 2],
    recursion_desired: bool,
    /// The question as it came, to be repeated.
    question: &'a [u8],
    name: String,
    kind: u16,
    class: u16,
    /// The client's UDP size, when it speaks EDNS.
    edns_bytes: Option<usize>,
}

enum Parsed<'a> {
    Query(Query<'a>),
    /// A header that asks for an answer which says why not.
    Refuse([u8; 2], u8),
    Nothing,
}

/// The answer to a message; `None` where none is due. `tcp` lifts the size limit.
pub(super) fn respond(message: &[u8], tcp: bool, look_up: impl Fn(&str) -> Answer) -> Option<Vec<u8>> {
    match parse(message) {
        Parsed::Nothing => None,
        Parsed::Refuse(id, code) => Some(header(id, false, code, false, [0; 4])),
        Parsed::Query(query) => Some(answer(&query, tcp, &look_up(&query.name))),
    }
}

fn parse(message: &[u8]) -> Parsed<'_> {
    let Some((header, body)) = message.split_at_checked(12) else { return Parsed::Nothing };
    let id = [header[0], header[1]];
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Parsed::Nothing;
    }
    let opcode = header[2] >> 3 & 0x0f;
    if opcode != 0 {
        return Parsed::Refuse(id, NOT_IMPLEMENTED);
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 {
        return Parsed::Refuse(id, FORMAT_ERROR);
    }
    let Some((name, name_len)) = read_name(body) else { return Parsed::Refuse(id, FORMAT_ERROR) };
    let Some(question) = body.get(..name_len + 4) else { return Parsed::Refuse(id, FORMAT_ERROR) };
    let number = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
    let other_records = count(6) != 0 || count(8) != 0;
    let edns_bytes = if count(10) == 1 && !other_records { read_edns(&body[name_len + 4..]) } else { None };
    Parsed::Query(Query {
        id,
        recursion_desired: header[2] & 1 != 0,
        question,
        name,
        kind: number(name_len),
        class: number(name_len + 2),
        edns_bytes,
    })
}

/// A name in lower case, and how many bytes it took. No compression: a question comes first, so nothing is before it.
fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = 0;
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1;
        if len == 0 {
            return Some((name, at));
        }
        let label = bytes.get(at..at + len).filter(|_| len <= 63)?;
        let legal = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        if !legal || name.len() + len + 1 > 254 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += len;
    }
}

/// The UDP size of an OPT record.
fn read_edns(record: &[u8]) -> Option<usize> {
    let fixed = record.get(..11)?;
    let is_opt = fixed[0] == 0 && u16::from_be_bytes([fixed[1], fixed[2]]) == TYPE_OPT;
    is_opt.then(|| usize::from(u16::from_be_bytes([fixed[3], fixed[4]])))
}

fn answer(query: &Query<'_>, tcp: bool, found: &Answer) -> Vec<u8> {
    let (code, records) = match found {
        Answer::NotOurs => (REFUSED, Vec::new()),
        _ if query.class != CLASS_IN => (REFUSED, Vec::new()),
        Answer::Unknown => (NAME_ERROR, Vec::new()),
        Answer::Alias(target) => (NO_ERROR, alias_record(target).into_iter().collect()),
        Answer::Addresses(ips) if matches!(query.kind, TYPE_A | TYPE_ANY) => {
            (NO_ERROR, ips.iter().map(address_record).collect())
        }
        Answer::Addresses(_) => (NO_ERROR, Vec::new()),
    };
    let edns = query.edns_bytes.map(|_| opt_record());
    let limit = match (tcp, query.edns_bytes) {
        (true, _) => usize::from(u16::MAX),
        (false, Some(bytes)) => bytes.clamp(UDP_BYTES, UDP_BYTES_MAX),
        (false, None) => UDP_BYTES,
    };
    let room = limit - 12 - query.question.len() - edns.as_ref().map_or(0, Vec::len);
    let (mut kept, mut size) = (Vec::new(), 0);
    for record in &records {
        size += record.len();
        if size > room {
            break;
        }
        kept.push(record);
    }
    let truncated = kept.len() < records.len();
    let counts = [1, u16::try_from(kept.len()).unwrap_or(0), 0, u16::from(edns.is_some())];
    let mut out = header(query.id, query.recursion_desired, code, truncated, counts);
    out.extend_from_slice(query.question);
    kept.into_iter().for_each(|record| out.extend_from_slice(record));
    edns.into_iter().for_each(|record| out.extend_from_slice(&record));
    out
}

fn header(id: [u8; 2], recursion_desired: bool, code: u8, truncated: bool, counts: [u16; 4]) -> Vec<u8> {
    // Response, authoritative; recursion is not available.
    let flags = 0x84 | u8::from(truncated) << 1 | u8::from(recursion_desired);
    let mut out = vec![id[0], id[1], flags, code];
    counts.iter().for_each(|count| out.extend_from_slice(&count.to_be_bytes()));
    out
}

/// The fixed part of a record about the question's name, which is at offset 12.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0, 12];
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&TTL_SECONDS.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn address_record(ip: &Ipv4Addr) -> Vec<u8> {
    record(TYPE_A, &ip.octets())
}

/// `None` when the target is no legal name.
fn alias_record(target: &str) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for label in target.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        data.push(len);
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    (data.len() <= 255).then(|| record(TYPE_CNAME, &data))
}

fn opt_record() -> Vec<u8> {
    let size = u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX).to_be_bytes();
    let kind = TYPE_OPT.to_be_bytes();
    vec![0, kind[0], kind[1], size[0], size[1], 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16, edns: bool) -> Vec<u8> {
        let mut out = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        if edns {
            out.extend_from_slice(&opt_record());
        }
        out
    }

    fn ask(kind: u16, edns: bool, tcp: bool, answer: Answer) -> Vec<u8> {
        respond(&query("Web.ns", kind, edns), tcp, |name| {
            assert_eq!(name, "web.ns");
            answer.clone()
        })
        .unwrap()
    }

    /// Response code, answers, whether truncated.
    fn shape(message: &[u8]) -> (u8, u16, bool) {
        (message[3] & 15, u16::from_be_bytes([message[6], message[7]]), message[2] & 2 != 0)
    }

    #[test]
    fn an_address_is_answered_with_the_question_repeated() {
        let out = ask(TYPE_A, false, false, Answer::Addresses(vec![Ipv4Addr::new(10, 0, 0, 7)]));
        assert_eq!(shape(&out), (NO_ERROR, 1, false));
        assert_eq!(&out[..3], [7, 9, 0x85]);
        assert!(out.ends_with(&[0, 4, 10, 0, 0, 7]));
        assert!(out.windows(4).any(|part| part == b"\x03Web"), "the case of the question is kept");
    }

    #[test]
    fn other_types_unknown_and_foreign_names_differ() {
        let some = Answer::Addresses(vec![Ipv4Addr::LOCALHOST]);
        assert_eq!(shape(&ask(28, false, false, some)), (NO_ERROR, 0, false));
        assert_eq!(shape(&ask(TYPE_A, false, false, Answer::Unknown)), (NAME_ERROR, 0, false));
        assert_eq!(shape(&ask(TYPE_A, false, false, Answer::NotOurs)), (REFUSED, 0, false));
        assert_eq!(
            shape(&ask(TYPE_A, false, false, Answer::Alias("example.org".into()))),
            (NO_ERROR, 1, false)
        );
    }

    #[test]
    fn what_does_not_fit_is_truncated_over_udp_only() {
        let many = Answer::Addresses((0..200u8).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect());
        let plain = ask(TYPE_A, false, false, many.clone());
        assert!(plain.len() <= UDP_BYTES && shape(&plain).2);
        let edns = ask(TYPE_A, true, false, many.clone());
        assert!(edns.len() <= UDP_BYTES_MAX && edns.len() > UDP_BYTES && shape(&edns).2);
        assert_eq!(shape(&ask(TYPE_A, false, true, many)), (NO_ERROR, 200, false));
    }

    #[test]
    fn hostile_messages_get_an_error_or_nothing() {
        let never = |_: &str| -> Answer { panic!("nothing was asked") };
        assert_eq!(respond(&[1, 2, 3], false, never), None);
        assert_eq!(respond(&[0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0], false, never), None, "a response");
        let whole = query("web.ns", TYPE_A, false);
        for len in 12..whole.len() {
            let out = respond(&whole[..len], false, never).unwrap();
            assert_eq!(shape(&out).0, FORMAT_ERROR, "cut at {len}");
        }
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(shape(&respond(&pointer, false, never).unwrap()).0, FORMAT_ERROR);
    }
}
