//! LIST: consistent, in pages, from one snapshot.
//!
//! Items go out as the bytes they were stored as, joined by commas, unless a selector, another version or another form
//! makes it necessary to read them.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use store::{Record, Snapshot};

use crate::convert;
use crate::error::{ApiError, Result};
use crate::http::{self as wire, Ctx};
use crate::request::Form;
use crate::resource::{Convert, Resource};
use crate::selectors::Selector;
use crate::{storage, table};

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
                       new list without the continue parameter, or use the continue token in this response to retrieve \
                       the remainder of the results. Continuing with the provided token results in an inconsistent list \
                       - objects that were created, modified, or deleted between the time the first chunk was returned \
                       and now may show up in the list.";

/// A resourceVersion parameter: absent, or a number that the store has reached.
///
/// # Errors
/// `BadRequest` and `Timeout` in upstream's words.
pub fn check_version(text: &str, current: u64) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let version: u64 = text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })?;
    if version > current {
        return Err(ApiError::too_large_resource_version(version, current));
    }
    Ok(Some(version))
}

/// Which state and which part of it a request asks for.
struct Page {
    snapshot: Snapshot,
    /// The revision that the answer carries.
    revision: u64,
    after: Option<String>,
    limit: usize,
}

/// Answers with the objects that match.
///
/// # Errors
/// Bad parameters; `Expired`.
pub fn list(ctx: &Ctx, resource: &Resource) -> Result<Response<Body>> {
    let selector = Selector::parse(ctx.query.get("labelSelector"), ctx.query.get("fieldSelector"), resource)?;
    let prefix = resource.prefix(namespace(ctx, resource));
    let page = page(ctx, &prefix)?;
    let mut records = page.snapshot.range(&prefix, page.after.as_deref());
    let is_untouched = selector.is_empty()
        && resource.convert == Convert::Same
        && ctx.accept.form == Form::Plain
        && !ctx.accept.yaml;
    if is_untouched {
        let taken: Vec<&Record> = records.by_ref().take(page.limit).collect();
        let meta = list_meta(&page, &prefix, taken.last().copied(), Some(records.count()));
        return Ok(wire::json_bytes(StatusCode::OK, joined(resource, &meta, &taken), ctx.accept));
    }
    let mut objects = Vec::new();
    let mut last = None;
    let mut more = false;
    for record in records {
        let mut object = storage::parse(&record.value)?;
        convert::from_storage(resource, &mut object);
        if !selector.matches(resource, &object) {
            continue;
        }
        if objects.len() == page.limit {
            more = true;
            break;
        }
        objects.push(object);
        last = Some(record);
    }
    // With a selector upstream does not count what remains either.
    let remaining = if more { None } else { Some(0) };
    let meta = list_meta(&page, &prefix, last, remaining);
    Ok(wire::encode(StatusCode::OK, &document(ctx, resource, meta, &objects), ctx.accept))
}

/// The namespace of the request where the resource has one.
pub fn namespace<'a>(ctx: &'a Ctx, resource: &Resource) -> &'a str {
    if resource.namespaced { &ctx.info.namespace } else { "" }
}

fn page(ctx: &Ctx, prefix: &str) -> Result<Page> {
    let now = ctx.server.store.snapshot();
    let limit = ctx.query.int("limit")?.filter(|limit| *limit > 0);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let token = ctx.query.get("continue");
    let rule = ctx.query.get("resourceVersionMatch");
    let asked = check_version(ctx.query.get("resourceVersion"), now.revision())?;
    check_match(rule, asked, token)?;
    if !token.is_empty() {
        let (revision, after) = read_token(token, prefix)?;
        let snapshot = match revision {
            None => now,
            Some(revision) => {
                ctx.server.store.snapshot_at(revision).map_err(|_| expired(&now, prefix, &after))?
            }
        };
        return Ok(Page { revision: snapshot.revision(), snapshot, after: Some(after), limit });
    }
    let exact =
        asked.filter(|version| *version > 0 && (rule == "Exact" || (rule.is_empty() && limit < usize::MAX)));
    let snapshot = match exact {
        None => now,
        Some(version) => ctx.server.store.snapshot_at(version).map_err(|_| {
            ApiError::expired(format!("The resourceVersion for the provided list is too old: {version}"))
        })?,
    };
    Ok(Page { revision: snapshot.revision(), snapshot, after: None, limit })
}

fn check_match(rule: &str, asked: Option<u64>, token: &str) -> Result<()> {
    let refuse = |why: &str| {
        let error = crate::field::FieldError::forbidden("resourceVersionMatch", why);
        Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![error]))
    };
    match rule {
        "" => Ok(()),
        "Exact" | "NotOlderThan" if !token.is_empty() => {
            refuse("resourceVersionMatch is forbidden when continue is provided")
        }
        "Exact" | "NotOlderThan" if asked.is_none() => {
            refuse("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        "Exact" if asked == Some(0) => {
            refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        "Exact" | "NotOlderThan" => Ok(()),
        other => {
            let known = ["Exact", "NotOlderThan", ""];
            let error = crate::field::FieldError::not_supported("resourceVersionMatch", other, &known);
            Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![error]))
        }
    }
}

/// A token: the revision of the first page (absent when the rest may be newer) and the last key given.
fn write_token(revision: Option<u64>, prefix: &str, last: &str) -> String {
    let start = last.strip_prefix(prefix).unwrap_or(last);
    let rv = revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(-1));
    URL_SAFE_NO_PAD
        .encode(json!({ "v": "meta.k8s.io/v1", "rv": rv, "start": format!("{start}\u{0}") }).to_string())
}

fn read_token(token: &str, prefix: &str) -> Result<(Option<u64>, String)> {
    let invalid = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
    let bytes =
        URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| invalid(&error.to_string()))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
    if value["v"] != "meta.k8s.io/v1" {
        return Err(invalid("server does not recognize this encoded version"));
    }
    let start =
        value["start"].as_str().filter(|start| !start.is_empty()).ok_or_else(|| invalid("no start key"))?;
    let revision = value["rv"].as_i64().and_then(|rv| u64::try_from(rv).ok());
    let after = format!("{prefix}{}", start.trim_end_matches('\u{0}'));
    Ok((revision, after))
}

/// 410 with a token that goes on inconsistently, as upstream offers.
fn expired(now: &Snapshot, prefix: &str, after: &str) -> ApiError {
    let mut error = ApiError::expired(EXPIRED);
    let token = write_token(None, prefix, after);
    error.metadata = Some(json!({ "resourceVersion": now.revision().to_string(), "continue": token }));
    error
}

fn list_meta(
    page: &Page,
    prefix: &str,
    last: Option<&Record>,
    remaining: Option<usize>,
) -> Map<String, Value> {
    let mut meta = Map::new();
    meta.insert("resourceVersion".into(), page.revision.to_string().into());
    if let (Some(last), false) = (last, remaining == Some(0)) {
        meta.insert("continue".into(), write_token(Some(page.revision), prefix, &last.key).into());
        if let Some(count) = remaining {
            meta.insert("remainingItemCount".into(), count.into());
        }
    }
    meta
}

/// The list's text around the items' own bytes.
fn joined(resource: &Resource, meta: &Map<String, Value>, records: &[&Record]) -> Bytes {
    let head = json!({ "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": meta })
        .to_string();
    let size: usize = records.iter().map(|record| record.value.len() + 1).sum();
    let mut out = Vec::with_capacity(head.len() + size + 16);
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    out.extend_from_slice(b",\"items\":[");
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&record.value);
    }
    out.extend_from_slice(b"]}");
    Bytes::from(out)
}

fn document(ctx: &Ctx, resource: &Resource, meta: Map<String, Value>, objects: &[Value]) -> Value {
    match ctx.accept.form {
        Form::Plain => json!({
            "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": meta, "items": objects,
        }),
        Form::Metadata => {
            let items: Vec<Value> = objects.iter().map(table::partial).collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items,
            })
        }
        Form::Table => {
            let options = table::Options::read(&ctx.query);
            let rows = objects.iter().map(|object| table::row(resource, object, &options)).collect();
            table::document(resource, rows, Value::Object(meta), !options.no_headers)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_survives_the_way_to_the_client_and_back() {
        let token = write_token(Some(7), "/core/pods/ns/", "/core/pods/ns/a");
        assert_eq!(read_token(&token, "/core/pods/ns/").unwrap(), (Some(7), "/core/pods/ns/a".to_owned()));
        let token = write_token(None, "/core/pods/", "/core/pods/ns/a");
        assert_eq!(read_token(&token, "/core/pods/").unwrap(), (None, "/core/pods/ns/a".to_owned()));
        assert!(read_token("!!", "/x/").unwrap_err().message.starts_with("continue key is not valid"));
    }
}
