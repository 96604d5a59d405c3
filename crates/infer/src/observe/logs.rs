//! The server's own log, and its level while it runs.
//!
//! Lines go to the standard error. Which, is said by `SLIPWAY_LOG` at the start and by the admin's port afterwards:
//! `info`, or `warn,infer=debug`.
//!
//! Not here: the access log (`access`).

use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// How to change the level, and what it is.
static LEVEL: OnceLock<(reload::Handle<Targets, Registry>, Mutex<String>)> = OnceLock::new();
/// What is logged unless somebody says otherwise.
const USUAL: &str = "info,hyper=warn";

/// Starts the log of a process that is a server and nothing else.
///
/// # Errors
/// When `SLIPWAY_LOG` is no level, or something else logs already.
pub fn start() -> Result<(), String> {
    let text = std::env::var("SLIPWAY_LOG").unwrap_or_else(|_| USUAL.to_owned());
    let (filter, handle) = reload::Layer::new(parse(&text)?);
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry().with(lines).try_init().map_err(|error| error.to_string())?;
    let _ = LEVEL.set((handle, Mutex::new(text)));
    Ok(())
}

fn parse(text: &str) -> Result<Targets, String> {
    // A word that is no level would be taken for a part of the program, all of which is to be logged.
    let is_level = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or_default();
        level.trim().parse::<LevelFilter>().is_ok()
    };
    let wrong =
        || format!("{text:?} is no level of the log, expected info, or warn,infer=debug and the like");
    if !text.split(',').all(is_level) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// The level; `None` where the log is not ours.
pub(super) fn level() -> Option<String> {
    LEVEL.get().map(|(_, text)| text.lock().clone())
}

/// Changes the level; `None` where the log is not ours.
pub(super) fn change(text: &str) -> Option<Result<(), String>> {
    let (handle, own) = LEVEL.get()?;
    let changed = parse(text).and_then(|targets| {
        let mut own = own.lock();
        handle.reload(targets).map_err(|error| error.to_string())?;
        text.clone_into(&mut own);
        Ok(())
    });
    Some(changed)
}
