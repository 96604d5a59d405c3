//! WATCH: a stream of frames, one JSON object a line.
//!
//! With a selector an event's kind depends on both states: what enters the selection is `ADDED`, what leaves it is
//! `DELETED`. The stored bytes go out as they are wherever the client asked for whole objects; of what only labels
//! decide, only the metadata is read. A watcher that falls behind is told 410 and lists again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use store::{Event, EventKind, Record, Snapshot, Watch};
use tokio::time::Instant;

use crate::convert;
use crate::error::{ApiError, Result};
use crate::http::Ctx;
use crate::object;
use crate::request::Form;
use crate::resource::{Convert, Resource};
use crate::selectors::Selector;
use crate::{storage, table};

/// Time between bookmarks; upstream's is about a minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Shortest life of a watch whose client names none; upstream draws between this and its double.
const LIFE_SECONDS_MIN: u64 = 1800;

/// Frames are gathered up to this size while more are at hand.
const CHUNK_BYTES: usize = 64 << 10;

/// Renders the events of one watch.
struct Framer {
    resource: Arc<Resource>,
    selector: Selector,
    form: Form,
    options: table::Options,
    /// Column definitions go out with the first table only.
    told_columns: bool,
}

impl Framer {
    fn is_untouched(&self) -> bool {
        self.selector.is_empty() && self.sends_stored()
    }

    /// Whether the stored bytes are what the client asked for.
    fn sends_stored(&self) -> bool {
        self.resource.convert == Convert::Same && self.form == Form::Plain
    }

    /// As much of an object as selector and form look at.
    fn read(&self, record: &Record) -> Option<Value> {
        let whole = self.form == Form::Table
            || self.resource.convert != Convert::Same
            || !self.selector.reads_metadata_only();
        if !whole {
            return storage::parse_metadata(&record.value);
        }
        let mut value = storage::parse(&record.value).ok()?;
        convert::from_storage(&self.resource, &mut value);
        Some(value)
    }

    /// Appends the frame of an event, or nothing when the selector hides it.
    fn event(&mut self, event: &Event, out: &mut BytesMut) {
        let plain = match event.kind {
            EventKind::Put { created: true } => "ADDED",
            EventKind::Put { created: false } => "MODIFIED",
            EventKind::Delete => "DELETED",
        };
        if self.is_untouched() {
            return raw(plain, &event.record.value, out);
        }
        let Some(now) = self.read(&event.record) else { return };
        if self.selector.is_empty() {
            return self.object(plain, &event.record, &now, out);
        }
        let before = event.previous.as_ref().and_then(|record| self.read(record));
        let matched = before.is_some_and(|value| self.selector.matches(&self.resource, &value));
        let matches = event.kind != EventKind::Delete && self.selector.matches(&self.resource, &now);
        let kind = match (matched, matches) {
            (false, false) => return,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        self.object(kind, &event.record, &now, out);
    }

    /// Appends an existing object as `ADDED`.
    fn existing(&mut self, record: &Record, out: &mut BytesMut) {
        if self.is_untouched() {
            return raw("ADDED", &record.value, out);
        }
        if let Some(value) = self.read(record)
            && self.selector.matches(&self.resource, &value)
        {
            self.object("ADDED", record, &value, out);
        }
    }

    fn object(&mut self, kind: &str, record: &Record, value: &Value, out: &mut BytesMut) {
        let shown = match self.form {
            Form::Plain if self.sends_stored() => return raw(kind, &record.value, out),
            Form::Plain => value.clone(),
            Form::Metadata => table::partial(value),
            Form::Table => {
                let rows = vec![table::row(&self.resource, value, &self.options)];
                let meta = json!({ "resourceVersion": object::resource_version(value) });
                let with_columns = !std::mem::replace(&mut self.told_columns, true);
                table::document(&self.resource, rows, meta, with_columns)
            }
        };
        raw(kind, shown.to_string().as_bytes(), out);
    }

    fn bookmark(&self, revision: u64, ends_initial: bool, out: &mut BytesMut) {
        let mut meta = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if ends_initial {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let value = match self.form {
            Form::Metadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta })
            }
            Form::Plain | Form::Table => {
                let mut value = json!({
                    "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": meta,
                });
                if self.form == Form::Table {
                    let rows = vec![json!({ "cells": [], "object": value })];
                    let meta = json!({ "resourceVersion": revision.to_string() });
                    value = table::document(&self.resource, rows, meta, false);
                }
                value
            }
        };
        raw("BOOKMARK", value.to_string().as_bytes(), out);
    }
}

fn raw(kind: &str, object: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

fn error_frame(error: &ApiError, out: &mut BytesMut) {
    raw("ERROR", error.to_status().to_string().as_bytes(), out);
}

/// Where a watch begins.
struct Start {
    /// Objects that are told first.
    initial: Option<Snapshot>,
    after: u64,
    ends_with_bookmark: bool,
}

fn start(ctx: &Ctx) -> Result<Start> {
    let query = &ctx.query;
    let now = ctx.server.store.snapshot();
    let asked = super::list::check_version(query.get("resourceVersion"), now.revision())?;
    let sends_initial = query.flag("sendInitialEvents");
    if sends_initial && query.get("resourceVersionMatch") != "NotOlderThan" {
        let error = crate::field::FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
        return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![error]));
    }
    let names_flag = !query.get("sendInitialEvents").is_empty();
    let revision = now.revision();
    let shows_state = if names_flag { sends_initial } else { matches!(asked, None | Some(0)) };
    let after = match asked {
        Some(version) if !shows_state && version > 0 => version,
        _ => revision,
    };
    Ok(Start {
        initial: shows_state.then_some(now),
        after,
        ends_with_bookmark: sends_initial && query.flag("allowWatchBookmarks"),
    })
}

/// Everything one open watch holds.
struct Session {
    framer: Framer,
    watch: Watch,
    bookmarks: bool,
    bookmark_at: Instant,
    ends_at: Instant,
    done: bool,
}

impl Session {
    /// The next chunk; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.is_empty() {
            if self.done {
                return None;
            }
            tokio::select! {
                biased;
                event = self.watch.next() => self.take(event, &mut out),
                () = tokio::time::sleep_until(self.bookmark_at), if self.bookmarks => {
                    self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    self.mark(&mut out);
                }
                () = tokio::time::sleep_until(self.ends_at) => {
                    self.done = true;
                    if self.bookmarks {
                        self.mark(&mut out);
                    }
                }
            }
        }
        self.gather(&mut out);
        Some(out.freeze())
    }

    /// Takes what is at hand already, so that a burst costs few writes to the socket.
    fn gather(&mut self, out: &mut BytesMut) {
        while out.len() < CHUNK_BYTES && !self.done {
            match futures::FutureExt::now_or_never(self.watch.next()) {
                Some(event) => self.take(event, out),
                None => return,
            }
        }
    }

    fn take(&mut self, event: Option<Result<Event, store::Error>>, out: &mut BytesMut) {
        match event {
            Some(Ok(event)) => self.framer.event(&event, out),
            Some(Err(error)) => {
                self.done = true;
                error_frame(&ApiError::expired(format!("too old resource version: {error}")), out);
            }
            None => self.done = true,
        }
    }

    fn mark(&mut self, out: &mut BytesMut) {
        if let Some(revision) = self.watch.progress() {
            self.framer.bookmark(revision, false, out);
        }
    }
}

/// Opens a watch.
///
/// # Errors
/// Bad parameters. A version that is too old is told in the stream, as upstream's cache does.
pub fn watch(ctx: &Ctx, resource: &Arc<Resource>) -> Result<Response<Body>> {
    let mut fields = ctx.query.get("fieldSelector").to_owned();
    if !ctx.info.name.is_empty() {
        fields = format!("metadata.name={}", ctx.info.name);
    }
    let selector = Selector::parse(ctx.query.get("labelSelector"), &fields, resource)?;
    let prefix = resource.prefix(super::list::namespace(ctx, resource));
    let start = start(ctx)?;
    let mut framer = Framer {
        resource: resource.clone(),
        selector,
        form: ctx.accept.form,
        options: table::Options::read(&ctx.query),
        told_columns: false,
    };
    let mut first = BytesMut::new();
    if let Some(snapshot) = &start.initial {
        for record in snapshot.range(&prefix, None) {
            framer.existing(record, &mut first);
        }
        if start.ends_with_bookmark {
            framer.bookmark(snapshot.revision(), true, &mut first);
        }
    }
    let life = life(ctx.query.int("timeoutSeconds")?);
    let opened = ctx.server.store.watch(&prefix, start.after);
    let frames: std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>> = match opened {
        Err(store::Error::Compacted { asked, oldest }) => {
            let text = format!("too old resource version: {asked} ({oldest})");
            error_frame(&ApiError::expired(text), &mut first);
            Box::pin(stream::empty())
        }
        Err(error) => return Err(error.into()),
        Ok(watch) => {
            let session = Session {
                framer,
                watch,
                bookmarks: ctx.query.flag("allowWatchBookmarks"),
                bookmark_at: Instant::now() + BOOKMARK_EVERY,
                ends_at: Instant::now() + life,
                done: false,
            };
            Box::pin(stream::unfold(session, |mut session| async move {
                session.next().await.map(|chunk| (chunk, session))
            }))
        }
    };
    let first = (!first.is_empty()).then(|| first.freeze());
    let body = stream::iter(first).chain(frames).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn life(asked: Option<i64>) -> Duration {
    use rand::Rng as _;
    match asked.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::from_secs(rand::rng().random_range(LIFE_SECONDS_MIN..LIFE_SECONDS_MIN * 2)),
    }
}
