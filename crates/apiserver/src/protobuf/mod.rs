//! Reads protobuf bodies of built-in kinds, as Go clients send them, into the same JSON that they would have sent.
//!
//! `kubectl create` and controller-runtime send protobuf and do not fall back, so refusing it is no option. Field numbers,
//! names and what Go leaves out when empty come from a generated table (`cargo xtask protobuf`). Answers are always JSON,
//! which every such client reads too. Not here: the kinds of CustomResourceDefinitions, which have no protobuf form.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value};

/// First bytes of Kubernetes' envelope.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting that is read.
const DEPTH_MAX: usize = 64;

static PACKED: &[u8] = include_bytes!("table.json.gz");

#[derive(Deserialize)]
struct Table {
    /// `apps/v1/Deployment` to its message.
    kinds: HashMap<String, String>,
    messages: HashMap<String, Vec<Field>>,
}

/// Number, JSON name, flags, type. Flags: `o` left out when empty, `i` inline, `p` pointer, `r` list, `m` map.
#[derive(Deserialize)]
struct Field(u64, String, String, String);

impl Field {
    fn is(&self, flag: char) -> bool {
        self.2.contains(flag)
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(PACKED)
        .read_to_end(&mut text)
        .expect("the embedded table is whole: a test reads it");
    serde_json::from_slice(&text).expect("the embedded table has this form: a test reads it")
});

/// Reads an envelope; `Err` names the kind that is not read, or says that the bytes are damaged.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    let damaged = || "a damaged body".to_owned();
    let body = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let envelope = fields_of(body).ok_or_else(damaged)?;
    let part = |number: u64| {
        envelope.iter().find_map(|(own, raw)| match raw {
            Raw::Bytes(bytes) if *own == number => Some(*bytes),
            _ => None,
        })
    };
    let types = fields_of(part(1).unwrap_or_default()).ok_or_else(damaged)?;
    let word = |number: u64| {
        let found = types.iter().find(|(own, _)| *own == number);
        found.and_then(|(_, raw)| raw.text()).unwrap_or_default().to_owned()
    };
    let (api_version, kind) = (word(1), word(2));
    // Delete options travel under the group of what is deleted.
    let path =
        if kind == "DeleteOptions" { "v1/DeleteOptions".into() } else { format!("{api_version}/{kind}") };
    let name = TABLE.kinds.get(&path).ok_or_else(|| format!("{kind} in {api_version}"))?;
    let mut out = message(part(2).unwrap_or_default(), name, 0).ok_or_else(damaged)?;
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    object.append(&mut out);
    Ok(Value::Object(object))
}

enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Raw<'a> {
    fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bytes(_) => None,
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        out |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(out);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn fields_of(mut bytes: &[u8]) -> Option<Vec<(u64, Raw<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Raw::Number(varint(&mut bytes)?),
            1 => Raw::Bytes(take(&mut bytes, 8)?),
            2 => {
                let count = usize::try_from(varint(&mut bytes)?).ok()?;
                Raw::Bytes(take(&mut bytes, count)?)
            }
            5 => Raw::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        out.push((tag >> 3, value));
    }
    Some(out)
}

fn message(bytes: &[u8], name: &str, depth: usize) -> Option<Map<String, Value>> {
    let table = TABLE.messages.get(name).filter(|_| depth < DEPTH_MAX)?;
    let mut out = Map::new();
    for (number, raw) in fields_of(bytes)? {
        // A field of a newer release is dropped, as Go drops it.
        let Some(field) = table.iter().find(|field| field.0 == number) else { continue };
        put(&mut out, field, &raw, depth)?;
    }
    Some(out)
}

fn put(out: &mut Map<String, Value>, field: &Field, raw: &Raw<'_>, depth: usize) -> Option<()> {
    let (name, kind) = (field.1.as_str(), field.3.as_str());
    if field.is('i') {
        out.append(&mut message(raw.bytes()?, kind, depth + 1)?);
    } else if field.is('r') {
        let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()?;
        list.push(value(raw, kind, depth)?);
    } else if field.is('m') {
        let (key, value) = entry(raw.bytes()?, kind, depth)?;
        out.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()?.insert(key, value);
    } else {
        let value = value(raw, kind, depth)?;
        let is_left_out = field.is('o') && !field.is('p') && is_zero(&value);
        if !is_left_out && !value.is_null() {
            out.insert(name.into(), value);
        }
    }
    Some(())
}

/// What Go's encoder leaves out under `omitempty`.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

fn entry(bytes: &[u8], kind: &str, depth: usize) -> Option<(String, Value)> {
    let mut key = String::new();
    let mut out = None;
    for (number, raw) in fields_of(bytes)? {
        match number {
            1 => raw.text()?.clone_into(&mut key),
            2 => out = Some(value(&raw, kind, depth)?),
            _ => {}
        }
    }
    Some((key, out.unwrap_or_else(|| Value::String(String::new()))))
}

fn value(raw: &Raw<'_>, kind: &str, depth: usize) -> Option<Value> {
    let short = kind.rsplit('/').next().unwrap_or(kind);
    Some(match short {
        "string" | "types.UID" => raw.text()?.into(),
        "bool" => (raw.number()? != 0).into(),
        "int32" | "int64" => raw.number()?.cast_signed().into(),
        "bytes" => base64::engine::general_purpose::STANDARD.encode(raw.bytes()?).into(),
        "resource.Quantity" => wrapped(raw)?.as_ref().and_then(Raw::text).unwrap_or("0").into(),
        "intstr.IntOrString" => int_or_string(raw.bytes()?)?,
        "runtime.RawExtension" | "v1.FieldsV1" => {
            let inner = wrapped(raw)?.and_then(|raw| raw.bytes());
            inner.map_or(Some(Value::Null), |bytes| serde_json::from_slice(bytes).ok())?
        }
        "v1.Time" | "v1.MicroTime" if kind.ends_with("meta/v1.Time") || short == "v1.MicroTime" => {
            time(raw.bytes()?, short == "v1.MicroTime")?
        }
        "v1.Duration" => {
            let nanos = wrapped(raw)?.and_then(|raw| raw.number()).unwrap_or(0);
            format!("{}ns", nanos.cast_signed()).into()
        }
        _ => match kind.strip_prefix("[]") {
            Some(item) => {
                let items = fields_of(raw.bytes()?)?;
                items.iter().map(|(_, raw)| value(raw, item, depth + 1)).collect::<Option<Vec<_>>>()?.into()
            }
            None => Value::Object(message(raw.bytes()?, kind, depth + 1)?),
        },
    })
}

/// The first field of a message that wraps a single value.
fn wrapped<'a>(raw: &Raw<'a>) -> Option<Option<Raw<'a>>> {
    let found = fields_of(raw.bytes()?)?.into_iter().find(|(number, _)| *number == 1);
    Some(found.map(|(_, raw)| raw))
}

fn int_or_string(bytes: &[u8]) -> Option<Value> {
    let fields = fields_of(bytes)?;
    let find = |number: u64| fields.iter().find(|(own, _)| *own == number).map(|(_, raw)| raw);
    let is_text = find(1).and_then(Raw::number) == Some(1);
    Some(if is_text {
        find(3).and_then(Raw::text).unwrap_or("").into()
    } else {
        find(2).and_then(Raw::number).unwrap_or(0).cast_signed().into()
    })
}

/// Seconds and nanoseconds; the zero time is `null`.
fn time(bytes: &[u8], with_micros: bool) -> Option<Value> {
    let fields = fields_of(bytes)?;
    let find = |number: u64| {
        fields
            .iter()
            .find(|(own, _)| *own == number)
            .and_then(|(_, raw)| raw.number())
            .unwrap_or(0)
            .cast_signed()
    };
    let (seconds, nanos) = (find(1), i32::try_from(find(2)).ok()?);
    // Go's zero time lies in the year 1.
    if seconds <= -62_135_596_800 || fields.is_empty() {
        return Some(Value::Null);
    }
    let at = jiff::Timestamp::new(seconds, nanos).ok()?;
    let form = if with_micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Some(at.strftime(form).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [part(1, api_version.as_bytes()), part(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), part(1, &types), part(2, raw)].concat()
    }

    #[test]
    fn a_review_is_read_and_an_unknown_kind_is_named() {
        let attributes = [part(1, b"ns"), part(2, b"list"), part(5, b"pods"), part(7, b"")].concat();
        let raw = part(2, &part(1, &attributes));
        let read = decode(&envelope("authorization.k8s.io/v1", "SelfSubjectAccessReview", &raw)).unwrap();
        let want = json!({"namespace": "ns", "verb": "list", "resource": "pods"});
        assert_eq!(read["spec"]["resourceAttributes"], want);
        assert_eq!(decode(&envelope("x/v1", "Y", b"")).unwrap_err(), "Y in x/v1");
        assert!(decode(b"k8s\0\xff").is_err());
    }

    #[test]
    fn inline_parts_maps_and_wrapped_values_become_json() {
        let empty_dir = part(2, &part(2, b""));
        let volume = [part(1, b"v"), empty_dir].concat();
        let limit = [part(1, b"cpu"), part(2, &part(1, b"500m"))].concat();
        let container = [part(1, b"c"), part(8, &part(1, &limit))].concat();
        let spec = [part(1, &volume), part(2, &container)].concat();
        let meta = [part(1, b"p"), part(8, b"")].concat();
        let pod = decode(&envelope("v1", "Pod", &[part(1, &meta), part(2, &spec)].concat())).unwrap();
        assert_eq!(pod["metadata"], json!({"name": "p"}));
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m"}));
    }
}
