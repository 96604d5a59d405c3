//! Descriptors of the services, as reflection hands them out.
//!
//! They are made from a short table of field numbers and types, which are facts of the public protocols; clients such
//! as grpcurl need nothing else. The conformance suite holds them against the descriptors in the clients' packages.

use std::sync::OnceLock;

use crate::wire::{put_bytes, put_int, put_message};

mod table;

/// One `.proto` file.
#[derive(Debug)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Its package.
    pub package: &'static str,
    /// A serialised `FileDescriptorProto`.
    pub bytes: Vec<u8>,
    /// Messages, enums and services, with the package.
    pub symbols: Vec<String>,
    /// Files it imports.
    pub imports: Vec<&'static str>,
}

/// All files.
pub fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| table::FILES.iter().map(|text| file(text.trim())).collect())
}

/// The full names of all services.
pub fn services() -> impl Iterator<Item = &'static str> {
    table::SERVICES.iter().copied()
}

/// The file and what it imports, itself first.
pub fn with_imports(file: &'static File) -> Vec<&'static File> {
    let mut all = vec![file];
    let mut next = 0;
    while let Some(file) = all.get(next) {
        for import in &file.imports {
            if let Some(found) = files().iter().find(|file| file.name == *import)
                && !all.iter().any(|file| file.name == found.name)
            {
                all.push(found);
            }
        }
        next += 1;
    }
    all
}

/// The file with this message, enum, service, method or field.
pub fn file_of(symbol: &str) -> Option<&'static File> {
    files().iter().find(|file| {
        file.symbols.iter().any(|own| {
            symbol.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    })
}

/// Makes a file from its table. See `table` for the notation.
fn file(text: &'static str) -> File {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (name, package) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let imports: Vec<&str> = words.collect();
    let mut file = File { name, package, bytes: Vec::new(), symbols: Vec::new(), imports };
    put_bytes(&mut file.bytes, 1, name.as_bytes());
    put_bytes(&mut file.bytes, 2, package.as_bytes());
    for import in &file.imports {
        put_bytes(&mut file.bytes, 3, import.as_bytes());
    }
    for line in lines {
        let (head, rest) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        let (kind, name) = head.split_once(' ').unwrap_or(("message", head));
        match kind {
            "service" => put_message(&mut file.bytes, 6, |out| service(out, name, rest, package)),
            "enum" => put_message(&mut file.bytes, 5, |out| enumeration(out, name, rest)),
            _ => put_message(&mut file.bytes, 4, |out| message(out, name, rest, package)),
        }
        file.symbols.push(if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") });
    }
    put_bytes(&mut file.bytes, 12, b"proto3");
    file
}

/// `Method(Request)Response`, with `*` before what is a stream.
fn service(out: &mut Vec<u8>, name: &str, methods: &str, package: &str) {
    put_bytes(out, 1, name.as_bytes());
    for method in methods.split(' ').filter(|method| !method.is_empty()) {
        let (name, rest) = method.split_once('(').unwrap_or((method, ""));
        let (request, response) = rest.split_once(')').unwrap_or((rest, ""));
        put_message(out, 2, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_bytes(out, 2, full(package, request.trim_start_matches('*')).as_bytes());
            put_bytes(out, 3, full(package, response.trim_start_matches('*')).as_bytes());
            put_int(out, 5, u64::from(request.starts_with('*')));
            put_int(out, 6, u64::from(response.starts_with('*')));
        });
    }
}

fn enumeration(out: &mut Vec<u8>, name: &str, values: &str) {
    put_bytes(out, 1, name.as_bytes());
    for value in values.split(' ').filter(|value| !value.is_empty()) {
        let (name, number) = value.split_once('=').unwrap_or((value, "0"));
        put_message(out, 2, |out| {
            put_bytes(out, 1, name.as_bytes());
            // Written even where it is zero: compilers do so.
            let number: u64 = number.parse().unwrap_or(0);
            crate::wire::put_varint(out, 2 << 3);
            crate::wire::put_varint(out, number);
        });
    }
}

/// A name with its package: a name with dots has one already.
fn full(package: &str, name: &str) -> String {
    if name.contains('.') { format!(".{name}") } else { format!(".{package}.{name}") }
}

/// `field=number:type`, where a type is a scalar, `[type]` for repeated, `{key,value}` for maps, `Message`, `#Enum`;
/// `name|field` puts a field into the choice `name`. Nested types are flat: on the wire that makes no difference.
fn message(out: &mut Vec<u8>, name: &str, fields: &str, package: &str) {
    put_bytes(out, 1, name.as_bytes());
    let mut choices: Vec<&str> = Vec::new();
    let mut maps: Vec<(String, &str)> = Vec::new();
    for text in fields.split(' ').filter(|field| !field.is_empty()) {
        let (path, kind) = text.split_once(':').unwrap_or((text, "string"));
        let (label, number) = path.split_once('=').unwrap_or((path, "0"));
        let (choice, label) =
            label.split_once('|').map_or((None, label), |(choice, field)| (Some(choice), field));
        let map = kind.strip_prefix('{').and_then(|kind| kind.strip_suffix('}'));
        let inner = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']'));
        let entry = map.map(|map| {
            let entry = entry_name(label);
            maps.push((entry.clone(), map));
            format!("{}.{entry}", full(package, name))
        });
        put_message(out, 2, |out| {
            put_bytes(out, 1, label.as_bytes());
            put_int(out, 3, number.parse().unwrap_or(0));
            put_int(out, 4, if inner.is_some() || map.is_some() { 3 } else { 1 });
            match &entry {
                Some(entry) => {
                    put_int(out, 5, 11);
                    put_bytes(out, 6, entry.as_bytes());
                }
                None => put_kind(out, inner.unwrap_or(kind), package),
            }
            if let Some(choice) = choice {
                let index = choices.iter().position(|known| *known == choice).unwrap_or_else(|| {
                    choices.push(choice);
                    choices.len() - 1
                });
                crate::wire::put_varint(out, 9 << 3);
                crate::wire::put_varint(out, index as u64);
            }
            put_bytes(out, 10, json_name(label).as_bytes());
        });
    }
    for (entry, map) in maps {
        let (key, value) = map.split_once(',').unwrap_or(("string", map));
        put_message(out, 3, |out| {
            put_bytes(out, 1, entry.as_bytes());
            for (label, number, kind) in [("key", 1, key), ("value", 2, value)] {
                put_message(out, 2, |out| {
                    put_bytes(out, 1, label.as_bytes());
                    put_int(out, 3, number);
                    put_int(out, 4, 1);
                    put_kind(out, kind, package);
                    put_bytes(out, 10, label.as_bytes());
                });
            }
            put_message(out, 7, |out| put_int(out, 7, 1));
        });
    }
    for choice in choices {
        put_message(out, 8, |out| put_bytes(out, 1, choice.as_bytes()));
    }
}

fn put_kind(out: &mut Vec<u8>, kind: &str, package: &str) {
    let scalar = match kind {
        "double" => 1,
        "float" => 2,
        "int64" => 3,
        "uint64" => 4,
        "int32" => 5,
        "bool" => 8,
        "string" => 9,
        "bytes" => 12,
        "uint32" => 13,
        _ => 0,
    };
    if scalar > 0 {
        put_int(out, 5, scalar);
    } else if let Some(name) = kind.strip_prefix('#') {
        put_int(out, 5, 14);
        put_bytes(out, 6, full(package, name).as_bytes());
    } else {
        put_int(out, 5, 11);
        put_bytes(out, 6, full(package, kind).as_bytes());
    }
}

/// `model_name` as `modelName`.
fn json_name(label: &str) -> String {
    let mut upper = false;
    let mut name = String::new();
    for letter in label.chars() {
        if letter == '_' {
            upper = true;
        } else {
            name.push(if upper { letter.to_ascii_uppercase() } else { letter });
            upper = false;
        }
    }
    name
}

/// The name of a map's entry: `version_labels` has `VersionLabelsEntry`.
fn entry_name(label: &str) -> String {
    let camel = json_name(label);
    let (first, rest) = camel.split_at(1);
    format!("{}{rest}Entry", first.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_named_is_there() {
        let known: Vec<&str> = files().iter().flat_map(|file| &file.symbols).map(String::as_str).collect();
        for service in services() {
            assert!(known.contains(&service), "{service}");
        }
        for (file, text) in files().iter().zip(table::FILES) {
            let body = text.trim().lines().skip(1);
            let words =
                body.flat_map(|line| line.split([' ', ':', '(', ')', '[', ']', '{', '}', ',', '*', '#']));
            for word in words.filter(|word| word.contains('.') && !word.ends_with(".proto")) {
                assert!(known.contains(&word), "{word} in {}", file.name);
            }
            for import in &file.imports {
                assert!(files().iter().any(|file| file.name == *import), "{import}");
            }
        }
    }

    #[test]
    fn symbols_lead_to_files() {
        let file = file_of("inference.GRPCInferenceService.ModelInfer").expect("known");
        assert_eq!(file.package, "inference");
        assert!(file_of("inference.GRPCInferenceServiceX").is_none());
        let all = with_imports(file_of("tensorflow.serving.PredictionService").expect("known"));
        assert!(all.iter().any(|file| file.package == "tensorflow"));
        assert!(all.iter().any(|file| file.name == "google/protobuf/any.proto"));
    }
}
