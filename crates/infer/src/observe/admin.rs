//! The pages of the admin's port and socket, below `/debug`.
//!
//! They answer whatever the server is busy with: what is long to write is written by a thread outside the pool that
//! evaluates models. On the ports of predictions these paths do not exist.
//!
//! Not here: load, unload and reload calls (`control`), what the pages show (`flight`, `profile`, `heap`, `logs`).

use std::sync::Arc;
use std::time::Duration;

use codecs::v1::write_error;
use serde_json::{Value, json};

use super::flight::KEPT;
use super::profile::{Stacks, Taking};
use super::{allocations, heap, logs, symbols};
use crate::exchange::{JSON, Reply};
use crate::http::Verb;
use crate::refusal::{Reason, Refusal};
use crate::routes::percent_decoded;
use crate::shared::Shared;

/// A profile takes so many seconds, at most.
const SECONDS_MAX: u64 = 60;
const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "\
/debug/requests        slow and failed calls, the newest first; ?limit=100 &model=NAME &reason=WORD
/debug/log_level       the level of the log; POST with ?level=warn,infer=debug changes it
/debug/config          what the server was told to do, without secrets
/debug/shadow          what comparing with shadows found
/debug/pprof/profile   where CPU time goes; ?seconds=10, and &format=folded for lines of a flame graph
/debug/pprof/heap      what memory there is; with ?seconds=10 who takes it meanwhile, and &format=folded
";

/// A page that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Page {
    Index,
    Requests { limit: usize, model: Option<String>, reason: Option<String> },
    Level(Option<String>),
    Config,
    Shadow,
    Profile { seconds: u64, is_folded: bool },
    Heap,
    Allocations { seconds: u64, is_folded: bool },
}

/// Which page a path means; `None` where it is none of ours.
pub(crate) fn page(verb: Verb, path: &str, query: &str) -> Option<Result<Page, Refusal>> {
    let rest = path.strip_prefix("/debug")?;
    let asked = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(own, _)| *own == name).map(|(_, value)| percent_decoded(value).into_owned()).next()
    };
    let number = |name: &str, usual: u64| match asked(name) {
        None => Ok(usual),
        Some(text) => text.parse().map_err(|_| malformed(format!("{name} is {text:?}, expected a number"))),
    };
    Some(match (rest, verb) {
        ("/log_level", Verb::Get | Verb::Post) => {
            Ok(Page::Level(asked("level").filter(|_| verb == Verb::Post)))
        }
        (_, Verb::Post | Verb::Options | Verb::Other) => {
            Err(Refusal::new(Reason::Unsupported, "this page can only be read"))
        }
        ("" | "/" | "/pprof" | "/pprof/", _) => Ok(Page::Index),
        ("/requests", _) => number("limit", 100).map(|limit| Page::Requests {
            limit: usize::try_from(limit).unwrap_or(KEPT).min(KEPT),
            model: asked("model"),
            reason: asked("reason"),
        }),
        ("/config", _) => Ok(Page::Config),
        ("/shadow", _) => Ok(Page::Shadow),
        ("/pprof/heap", _) if asked("seconds").is_none() => Ok(Page::Heap),
        ("/pprof/heap", _) => number("seconds", 10)
            .and_then(|seconds| lasting(seconds, asked("format").as_deref()))
            .map(|(seconds, is_folded)| Page::Allocations { seconds, is_folded }),
        ("/pprof/profile", _) => number("seconds", 10)
            .and_then(|seconds| lasting(seconds, asked("format").as_deref()))
            .map(|(seconds, is_folded)| Page::Profile { seconds, is_folded }),
        _ => Err(Refusal::new(Reason::NotFound, "there is no such page; /debug lists all")),
    })
}

/// How long a profile is taken, and whether its form is lines of a flame graph.
fn lasting(seconds: u64, format: Option<&str>) -> Result<(u64, bool), Refusal> {
    match format {
        _ if !(1..=SECONDS_MAX).contains(&seconds) => {
            Err(malformed(format!("seconds is {seconds}, expected 1 to {SECONDS_MAX}")))
        }
        Some("folded") => Ok((seconds, true)),
        None | Some("pprof") => Ok((seconds, false)),
        Some(other) => Err(malformed(format!("format is {other:?}, expected pprof or folded"))),
    }
}

fn malformed(text: String) -> Refusal {
    Refusal::new(Reason::Malformed, text)
}

/// Writes a page. The reply comes cleared.
pub(crate) async fn show(page: Result<Page, Refusal>, shared: &Arc<Shared>, reply: &mut Reply) {
    let shown = match page {
        Ok(page) => write(page, shared).await,
        Err(refusal) => Err(refusal),
    };
    match shown {
        Ok((kind, body)) => (reply.kind, reply.body) = (kind, body),
        Err(refusal) => {
            reply.status = refusal.http();
            write_error(&mut reply.body, &refusal.text);
        }
    }
}

type Written = Result<(&'static str, Vec<u8>), Refusal>;

fn document(value: &Value) -> Written {
    Ok((JSON, value.to_string().into_bytes()))
}

async fn write(page: Page, shared: &Arc<Shared>) -> Written {
    match page {
        Page::Index => Ok((TEXT, INDEX.into())),
        Page::Level(None) => level(),
        Page::Level(Some(text)) => match logs::change(&text) {
            Some(Ok(())) => {
                tracing::warn!(level = %text, "the level of the log was changed");
                level()
            }
            Some(Err(why)) => Err(malformed(why)),
            None => level(),
        },
        Page::Config => Ok((TEXT, configuration(shared).into_bytes())),
        Page::Shadow => {
            let pairs = shared.observe.shadows.iter().flat_map(|shadows| &shadows.pairs);
            document(&pairs.map(|pair| pair.report()).collect::<Vec<_>>().into())
        }
        Page::Heap => {
            let repository = shared.repository.clone();
            aside(move || document(&heap::report(&repository))).await
        }
        Page::Requests { limit, model, reason } => {
            let shared = shared.clone();
            aside(move || Ok((JSON, requests(&shared, limit, model.as_deref(), reason.as_deref())))).await
        }
        Page::Profile { seconds, is_folded } => profile(seconds, is_folded).await,
        Page::Allocations { seconds, is_folded } => allocated(seconds, is_folded).await,
    }
}

/// Runs on a thread that no evaluation can keep busy.
async fn aside(work: impl FnOnce() -> Written + Send + 'static) -> Written {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Refusal::new(Reason::Internal, "the page cannot be written")))
}

fn level() -> Written {
    let text = "the log of this process is not the server's own, and its level cannot be changed here";
    let level = logs::level().ok_or_else(|| Refusal::new(Reason::Unsupported, text))?;
    document(&json!({"level": level}))
}

fn configuration(shared: &Shared) -> String {
    let arguments: Vec<String> = std::env::args().map(|argument| redacted(&argument)).collect();
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    format!("version: {version}\nprocess: {pid}\narguments: {arguments:?}\n{:#?}\n", shared.config)
}

/// An argument without what is secret in it: the passwords of URLs, and the values of headers.
fn redacted(argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, _)) if name.ends_with("_headers") && !name.contains("metadata") => {
            format!("{name}=(redacted)")
        }
        Some((name, value)) => format!("{name}={}", super::without_password(value)),
        None => super::without_password(argument),
    }
}

fn requests(shared: &Shared, limit: usize, model: Option<&str>, reason: Option<&str>) -> Vec<u8> {
    let flight = &shared.observe.flight;
    let records = flight.last(limit, |record| {
        let is_model = |wanted: &str| record.called.as_ref().is_some_and(|called| *called.model == *wanted);
        let is_reason = |wanted: &str| record.reason.is_some_and(|reason| reason.word() == wanted);
        model.is_none_or(is_model) && reason.is_none_or(is_reason)
    });
    let slow = shared.observe.slow.as_secs_f64() * 1e3;
    let mut out = format!("{{\"slow_ms\":{slow},\"seen\":{},\"requests\":[", flight.seen()).into_bytes();
    for (index, record) in records.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        record.write(&mut out);
    }
    out.extend_from_slice(b"\n]}\n");
    out
}

async fn profile(seconds: u64, is_folded: bool) -> Written {
    let failed =
        |error: std::io::Error| Refusal::new(Reason::Internal, format!("cannot take a profile: {error}"));
    let busy = || Refusal::new(Reason::QueueFull, "another profile is being taken");
    let taking = Taking::start().map_err(failed)?.ok_or_else(busy)?;
    // A client that leaves drops this future, and with it the timer.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let stacks: Stacks = taking.stop();
    aside(move || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Ok(match is_folded {
            true => (TEXT, symbols::folded(&stacks, &maps).into_bytes()),
            false => ("application/octet-stream", stacks.to_pprof(&maps)),
        })
    })
    .await
}

async fn allocated(seconds: u64, is_folded: bool) -> Written {
    use allocations::{NotTaken, Taking};
    let taking = Taking::start().map_err(|why| match why {
        NotTaken::Busy => Refusal::new(Reason::QueueFull, "another heap profile is being taken"),
        NotTaken::Unknown => Refusal::new(Reason::Unsupported, "this process's allocator knows no profiles"),
    })?;
    // A client that leaves drops this future, and with it the profile.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let seen = taking.stop();
    if seen.missed > 0 {
        tracing::warn!(missed = seen.missed, "a heap profile has not all samples");
    }
    aside(move || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Ok(match is_folded {
            true => (TEXT, symbols::folded(&seen.held(), &maps).into_bytes()),
            false => ("application/octet-stream", seen.to_pprof(&maps)),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_mean_pages() {
        let get = |path, query| page(Verb::Get, path, query);
        assert_eq!(get("/v1/models", ""), None);
        let requests = Page::Requests { limit: 5, model: Some("a b".into()), reason: None };
        assert_eq!(get("/debug/requests", "limit=5&model=a%20b"), Some(Ok(requests)));
        let profile = Page::Profile { seconds: 3, is_folded: true };
        assert_eq!(get("/debug/pprof/profile", "seconds=3&format=folded"), Some(Ok(profile)));
        let level = page(Verb::Post, "/debug/log_level", "level=debug");
        assert_eq!(level, Some(Ok(Page::Level(Some("debug".into())))));
        for (path, query, word) in [
            ("/debug/pprof/profile", "seconds=61", "1 to 60"),
            ("/debug/pprof/profile", "seconds=x", "number"),
            ("/debug/pprof/profile", "format=svg", "svg"),
            ("/debug/pprof/heap", "seconds=61", "1 to 60"),
            ("/debug/nothing", "", "no such page"),
        ] {
            let refusal = get(path, query).expect("ours").expect_err("refused");
            assert!(refusal.text.contains(word), "{}", refusal.text);
        }
        assert!(page(Verb::Post, "/debug/config", "").is_some_and(|page| page.is_err()));
    }

    #[test]
    fn secrets_in_arguments_are_not_shown() {
        for (argument, shown) in [
            ("--otlp_headers=api-key=x", "--otlp_headers=(redacted)"),
            ("--metadata_headers=x-a", "--metadata_headers=x-a"),
            ("--log_url=http://a:b@h/x", "--log_url=http://(redacted)@h/x"),
            ("--server_timing", "--server_timing"),
        ] {
            assert_eq!(redacted(argument), shown);
        }
    }
}
