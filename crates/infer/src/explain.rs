//! `:explain`: why a model says what it says, as Shapley values.
//!
//! The explainer of a version is made when it is first asked for, from the file that the version was read from, so
//! that servers whose models nobody asks to explain themselves pay nothing. A file that has changed meanwhile is not
//! the model that answers, and is refused. What no exact method knows is explained by asking the model, for which the
//! request brings background rows.
//!
//! Body: V1's, with `"background": [[…], …]` beside the rows where wanted. Answer:
//! `{"explanations": {"method", "base_values", "values", "columns"}}`; values are rows × columns, and × outputs where
//! there are several.
//!
//! Not here: the values themselves (`models::explain`).

use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use codecs::json::{Cursor, JsonError, push_f64, push_text};
use codecs::v1::{self, Expected, write_error};
use models::explain::sampled::{Sampled, Sampling};
use models::explain::{Asked, Background, Explain, Explanation, explainer};
use models::{Backend, Limits};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::bind::wrong;
use crate::compute;
use crate::exchange::Reply;
use crate::files::Disk;
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Rows times background rows, at most, for exact methods.
const PAIRS_MAX: usize = 4_000_000;
/// The same for sampling, which asks the model some 2,000 times for each pair.
const SAMPLED_PAIRS_MAX: usize = 2_000;

/// Explanations that wait for their turn, at most.
const WAITING_MAX: usize = 64;

/// Where a version was read from, and its explainer once it was asked for.
pub struct Origin {
    path: PathBuf,
    limits: Limits,
    stamp: Option<Stamp>,
    explainer: OnceLock<Result<Box<dyn Explain>, String>>,
}

/// Tells one content of a file from another: the file itself, its length, its time.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Origin {
    /// To be made when the file is read.
    pub fn new(path: &Path, file: &str, limits: Limits) -> Self {
        let file = if path.is_file() { path.to_owned() } else { path.join(file) };
        Self { stamp: stamp(&file), path: file, limits, explainer: OnceLock::new() }
    }

    /// The exact explainer; the error says why there is none. Reads the file the first time.
    fn explainer(&self) -> Result<&dyn Explain, Refusal> {
        let made = self.explainer.get_or_init(|| {
            if self.stamp.is_none() || stamp(&self.path) != self.stamp {
                return Err(CHANGED.to_owned());
            }
            explainer(&Disk::new(&self.path), &self.limits).map_err(|error| error.to_string())
        });
        match made {
            Ok(explainer) => Ok(&**explainer),
            Err(why) if why == CHANGED => Err(Refusal::new(Reason::Unsupported, why)),
            Err(why) => Err(Refusal::new(Reason::Unsupported, format!("no exact explainer: {why}"))),
        }
    }
}

const CHANGED: &str =
    "the model's file has changed since it was read; it can be explained once it is loaded again";

/// Lets explanations have half of the compute threads, so that predictions always find one.
async fn turn() -> Result<SemaphorePermit<'static>, Refusal> {
    static TURNS: OnceLock<Semaphore> = OnceLock::new();
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    /// Counts down however the wait ends.
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            WAITING.fetch_sub(1, Relaxed);
        }
    }
    let waiting = WAITING.fetch_add(1, Relaxed);
    let _waits = Waits;
    if waiting >= WAITING_MAX {
        return Err(Refusal::new(Reason::QueueFull, "too many explanations wait; try again later"));
    }
    let turns = TURNS.get_or_init(|| Semaphore::new((compute::threads() / 2).max(1)));
    turns.acquire().await.map_err(|_| Refusal::new(Reason::Internal, "explanations have ended"))
}

async fn in_turn(served: &Arc<Served>, body: Bytes) -> Result<Vec<u8>, Refusal> {
    let _turn = turn().await?;
    let own = served.clone();
    compute::aside(move || explain(&own, &body)).await?
}

/// Answers `:explain`. The reply comes cleared.
pub(crate) async fn answer(served: &Arc<Served>, body: Bytes, reply: &mut Reply) {
    match in_turn(served, body).await {
        Ok(text) => reply.body = text,
        Err(refusal) => {
            reply.status = refusal.http();
            reply.reason = Some(refusal.reason);
            write_error(&mut reply.body, &refusal.text);
        }
    }
}

/// The model of a version, for sampling.
struct Of(Arc<Served>);

impl Deref for Of {
    type Target = dyn Backend;

    fn deref(&self) -> &(dyn Backend + 'static) {
        &*self.0.backend
    }
}

fn explain(served: &Arc<Served>, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let columns = &served.backend.signature().columns;
    if served.width == 0 {
        return Err(Refusal::new(Reason::Unsupported, "only models of one table of numbers are explained"));
    }
    let mut rows = Vec::new();
    let parsed = v1::parse(body, Expected { width: served.width, columns }, &mut rows);
    let count = parsed.map_err(|error| wrong(served, &error.to_string()))?;
    let malformed = |error: JsonError| Refusal::new(Reason::Malformed, error.to_string());
    let background = match background(body).map_err(malformed)? {
        Some(data) => Some(Background::new(data, served.width)?),
        None => None,
    };
    let pairs = count.saturating_mul(background.as_ref().map_or(1, Background::rows));
    let bounded = |max: usize| {
        if pairs <= max {
            return Ok(());
        }
        let text = format!("{pairs} pairs of rows and background rows, at most {max}");
        Err(Refusal::new(Reason::TooLarge, text))
    };
    let exact = match &served.origin {
        Some(origin) => origin.explainer(),
        None => Err(Refusal::new(Reason::Unsupported, "the model was not read from a file")),
    };
    let (method, explanation) = match (exact, &background) {
        (Ok(explainer), _) => {
            bounded(PAIRS_MAX)?;
            (explainer.method(), explainer.explain(&rows, count, background.as_ref())?)
        }
        (Err(_), Some(background)) => {
            bounded(SAMPLED_PAIRS_MAX)?;
            let asked = Asked::new(Of(served.clone()))?;
            let sampled = Sampled::new(asked, Sampling::Kernel(None))?;
            (sampled.method(), sampled.explain(&rows, count, Some(background))?)
        }
        (Err(mut refusal), None) => {
            refusal.text.push_str("; with \"background\" rows any model of numbers is explained");
            return Err(refusal);
        }
    };
    Ok(write(method, &explanation, count, served))
}

/// The numbers of `background`; their rows are checked by their count.
fn background(body: &[u8]) -> Result<Option<Vec<f64>>, JsonError> {
    let mut found = None;
    Cursor::new(body).object(|cursor, key| {
        if key != "background" || cursor.null() {
            return cursor.skip().map(drop);
        }
        let mut numbers = Vec::new();
        cursor.list(|cursor| {
            cursor.list(|cursor| -> Result<(), JsonError> {
                numbers.push(cursor.float()?);
                Ok(())
            })
        })?;
        found = Some(numbers);
        Ok::<_, JsonError>(())
    })?;
    Ok(found)
}

fn write(method: &str, explanation: &Explanation, count: usize, served: &Served) -> Vec<u8> {
    let mut out = Vec::with_capacity(explanation.values.len() * 20 + 100);
    out.extend_from_slice(b"{\"explanations\":{\"method\":");
    push_text(&mut out, method);
    out.extend_from_slice(b",\"base_values\":");
    list(&mut out, &explanation.base);
    out.extend_from_slice(b",\"values\":[");
    let (outputs, width) = (explanation.outputs.max(1), served.width);
    for row in 0..count {
        let values = explanation.values.get(row * width * outputs..).unwrap_or_default();
        out.extend_from_slice(if row == 0 { b"[" } else { b",[" });
        for (column, values) in values.chunks(outputs).take(width).enumerate() {
            if column > 0 {
                out.push(b',');
            }
            match values {
                [only] => push_f64(&mut out, *only),
                several => list(&mut out, several),
            }
        }
        out.push(b']');
    }
    out.push(b']');
    let columns = &served.backend.signature().columns;
    if !columns.is_empty() {
        out.extend_from_slice(b",\"columns\":[");
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_text(&mut out, column);
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}}");
    out
}

fn list(out: &mut Vec<u8>, numbers: &[f64]) {
    out.push(b'[');
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_f64(out, *number);
    }
    out.push(b']');
}
