//! `/v1/models/…`, which KServe's servers and TensorFlow Serving share.
//!
//! `M`, `M/versions/N`, `M/labels/L`, each with `:predict` and the like or `/metadata` behind it. KServe has only the
//! first form; where both have a path, the model's personality decides, and where only one has it, it is served
//! whatever the personality is.
//!
//! Not here: the bodies (`v1`, `tfs`).

use std::borrow::Cow;

use codecs::v1::write_error;

use super::{Routed, get, method_not_allowed, no_such_model, no_such_path, percent_decoded, tfs};
use crate::exchange::{Kind, Reply, TfsCall};
use crate::http::Verb;
use crate::repository::{NotServed, Which};
use crate::served::Personality;
use crate::shared::Shared;

/// What follows `/v1/models/`.
#[derive(Debug, PartialEq)]
pub(super) struct Path<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) version: Version<'a>,
    pub(super) metadata: bool,
    /// Behind the colon; empty for none.
    pub(super) action: &'a str,
}

/// The version that a path names.
#[derive(Debug, PartialEq)]
pub(super) enum Version<'a> {
    Default,
    Number(u64),
    Label(Cow<'a, str>),
}

impl Version<'_> {
    pub(super) fn which(&self) -> Which<'_> {
        match self {
            Self::Default => Which::Default,
            Self::Number(number) => Which::Version(*number),
            Self::Label(label) => Which::Label(label),
        }
    }
}

/// `None` for what is no such path.
pub(super) fn parse(rest: &str) -> Option<Path<'_>> {
    let (path, action) = rest.rsplit_once(':').unwrap_or((rest, ""));
    // TensorFlow Serving takes its verbs in any case.
    let known = ["predict", "classify", "regress", "explain"];
    let action = known.into_iter().find(|known| known.eq_ignore_ascii_case(action)).unwrap_or(action);
    let mut parts = path.split('/');
    let name = percent_decoded(parts.next()?);
    let (mut version, mut metadata) = (Version::Default, false);
    let mut next = parts.next();
    match next {
        Some("versions") => {
            let number = parts.next()?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            version = Version::Number(number.parse().ok().filter(|_| is_number)?);
            next = parts.next();
        }
        Some("labels") => {
            version = Version::Label(percent_decoded(parts.next().filter(|label| !label.is_empty())?));
            next = parts.next();
        }
        _ => {}
    }
    if next == Some("metadata") && action.is_empty() {
        metadata = true;
        next = parts.next();
    }
    (next.is_none() && !name.is_empty()).then_some(Path { name, version, metadata, action })
}

/// `/v1/models/` and what follows.
pub(super) fn route(verb: Verb, rest: &str, shared: &Shared, reply: &mut Reply) -> Routed {
    let Some(path) = parse(rest) else {
        return match shared.personality {
            Personality::TfServing => tfs::malformed(verb, &format!("/v1/models/{rest}"), reply),
            _ => no_such_path(reply),
        };
    };
    let found = tfs::find(&shared.repository, &path.name, path.version.which());
    let personality = match &found {
        Ok(served) => served.personality,
        Err(_) => shared.repository.status(&path.name).map_or(shared.personality, |model| model.personality),
    };
    let tfs_path = personality == Personality::TfServing;
    let needs_model = path.metadata || (!path.action.is_empty() && verb == Verb::Post);
    if let (true, Err(NotServed::Asleep(name))) = (needs_model, &found) {
        return Routed::Asleep(name.clone());
    }
    match (path.action, verb) {
        ("", _) if path.metadata => tfs::metadata(verb, &path, found, reply),
        ("", _) if tfs_path || path.version != Version::Default => tfs::status(verb, &path, shared, reply),
        ("predict", Verb::Post) => match found {
            Ok(served) if tfs_path => Routed::Call(served, Kind::Tfs(TfsCall::Predict)),
            Ok(served) => Routed::Call(served, Kind::V1),
            Err(error) if tfs_path => tfs::not_served(&error, &path, reply),
            Err(error) => no_such_model(error, personality, reply),
        },
        ("classify" | "regress", Verb::Post) => match found {
            Ok(served) if path.action == "classify" => Routed::Call(served, Kind::Tfs(TfsCall::Classify)),
            Ok(served) => Routed::Call(served, Kind::Tfs(TfsCall::Regress)),
            Err(error) => tfs::not_served(&error, &path, reply),
        },
        (_, _) if tfs_path => tfs::malformed(verb, &format!("/v1/models/{rest}"), reply),
        (action, verb) => kserve(action, verb, found, personality, reply),
    }
}

/// What only KServe has.
fn kserve(
    action: &str,
    verb: Verb,
    found: Result<std::sync::Arc<crate::served::Served>, NotServed>,
    personality: Personality,
    reply: &mut Reply,
) -> Routed {
    let served = match (found, action) {
        (Ok(served), _) => served,
        // It answers whoever calls it, which is what the question is about.
        (Err(NotServed::Asleep(name)), "") => return get(verb, reply, |out| super::ready(out, &name)),
        (Err(error @ NotServed::NotReady { .. }), "") if matches!(verb, Verb::Get | Verb::Head) => {
            reply.status = 503;
            write_error(&mut reply.body, &error.to_string());
            return Routed::Answered;
        }
        (Err(error), _) => return no_such_model(error, personality, reply),
    };
    match (action, verb) {
        ("explain", Verb::Post) => Routed::Call(served, Kind::Explain),
        ("predict" | "explain" | "classify" | "regress", _) => method_not_allowed(reply),
        ("", _) => get(verb, reply, |out| super::ready(out, &served.name)),
        _ => no_such_path(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_a_version_or_a_label() {
        let plain = |name: &'static str, version, metadata, action| Path {
            name: name.into(),
            version,
            metadata,
            action,
        };
        for (text, want) in [
            ("m", Some(plain("m", Version::Default, false, ""))),
            ("m:PREDICT", Some(plain("m", Version::Default, false, "predict"))),
            ("m:predict", Some(plain("m", Version::Default, false, "predict"))),
            ("a%2Fb:predict", Some(plain("a/b", Version::Default, false, "predict"))),
            ("m/versions/12:classify", Some(plain("m", Version::Number(12), false, "classify"))),
            ("m/labels/st%20a/metadata", Some(plain("m", Version::Label("st a".into()), true, ""))),
            ("m/metadata", Some(plain("m", Version::Default, true, ""))),
            ("m/versions/007", Some(plain("m", Version::Number(7), false, ""))),
            ("m/versions/99999999999999999999", None),
            ("m/versions/+1", None),
            ("m/versions", None),
            ("m/labels/", None),
            ("m/x", None),
            ("m/metadata/x", None),
            ("", None),
            (":predict", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
