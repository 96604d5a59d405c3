//! The next steps of a Deployment's rollout: pure.
//!
//! The rules are upstream's. Never more than `replicas + maxSurge` pods in all, never fewer than `replicas -
//! maxUnavailable` available ones: the new set grows into the first bound, old sets shrink along the second, and those of
//! their pods that never became healthy go first. While nothing is to be rolled out, a change of `replicas` is shared out in proportion.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use types::percent::{IntOrPercent, Round};

/// The annotation on a set that holds the Deployment's size when the set was last sized.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation on a set that holds the most pods the Deployment may have had then.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// The annotation that numbers the templates of a Deployment from 1.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Upstream's default of `revisionHistoryLimit`.
const HISTORY: i32 = 10;

/// One set as the rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// Pods that exist.
    pub exist: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that are available.
    pub available: i32,
    /// Its revision annotation.
    pub revision: i64,
    /// What the `DESIRED` annotation says.
    pub desired: Option<i32>,
    /// What the `MAX` annotation says.
    pub max: Option<i32>,
    /// Whether its controller has seen its spec.
    pub observed: bool,
}

/// What the Deployment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `spec.replicas`.
    pub replicas: i32,
    /// Pods over that during a rollout.
    pub surge: i32,
    /// Pods that may be missing during a rollout.
    pub unavailable: i32,
    /// `Recreate` rather than `RollingUpdate`.
    pub recreate: bool,
    /// `spec.paused`.
    pub paused: bool,
    /// Old sets that are kept.
    pub history: i32,
}

/// One step; all steps of a plan may be taken in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the set of the current template with so many pods.
    Create(i32),
    /// Give the set of that name so many pods.
    Scale(String, i32),
    /// Delete the old set of that name; it has no pods.
    Delete(String),
}

impl Set {
    /// Reads a set.
    pub fn of(set: &ReplicaSet) -> Self {
        let number = |name: &str| set.annotations().get(name).and_then(|text| text.parse::<i64>().ok());
        let small = |name: &str| number(name).and_then(|number| i32::try_from(number).ok());
        let status = set.status.clone().unwrap_or_default();
        Self {
            name: set.name_any(),
            replicas: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            exist: status.replicas,
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            revision: number(REVISION).unwrap_or(0),
            desired: small(DESIRED),
            max: small(MAX),
            observed: status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0),
        }
    }
}

impl Wanted {
    /// Reads a Deployment's wishes, with upstream's defaults.
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let recreate = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
        let (surge, unavailable) = if recreate { (0, replicas) } else { bounds(&spec, replicas) };
        let history = spec.revision_history_limit.unwrap_or(HISTORY).max(0);
        Self { replicas, surge, unavailable, recreate, paused: spec.paused == Some(true), history }
    }

    /// The most pods there may be.
    pub fn max(&self) -> i32 {
        if self.recreate { self.replicas } else { self.replicas + self.surge }
    }
}

fn bounds(spec: &DeploymentSpec, replicas: i32) -> (i32, i32) {
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let resolve = |value: Option<&IntOrString>, round| {
        let value = match value {
            Some(IntOrString::Int(count)) => IntOrPercent::Int(*count),
            Some(IntOrString::String(text)) => text.parse().unwrap_or(IntOrPercent::Int(0)),
            None => IntOrPercent::Percent(25),
        };
        value.of(replicas, round).max(0)
    };
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), Round::Up);
    let unavailable = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), Round::Down);
    // Both zero would never move; upstream then lets one pod be missing.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    (surge, unavailable.min(replicas))
}

/// The steps for a Deployment: `new` is the set of its template, `old` the others.
pub fn decide(wanted: &Wanted, new: Option<&Set>, old: &[Set]) -> Vec<Step> {
    if wanted.paused {
        return share_out(wanted, new, old);
    }
    if is_scaling(wanted, new, old) {
        return share_out(wanted, new, old);
    }
    let mut steps = if wanted.recreate { recreate(wanted, new, old) } else { roll(wanted, new, old) };
    if is_complete(wanted, new, old) {
        steps.extend(clean(wanted, old));
    }
    steps
}

/// Whether all pods are of the current template and available.
pub fn is_complete(wanted: &Wanted, new: Option<&Set>, old: &[Set]) -> bool {
    let old_gone = old.iter().all(|set| set.exist == 0 && set.replicas == 0);
    old_gone && new.is_some_and(|new| new.exist == wanted.replicas && new.available == wanted.replicas)
}

/// Whether the Deployment's size is not what its sets were last sized for.
fn is_scaling(wanted: &Wanted, new: Option<&Set>, old: &[Set]) -> bool {
    let active = new.iter().copied().chain(old).filter(|set| set.replicas > 0);
    active.filter_map(|set| set.desired).any(|desired| desired != wanted.replicas)
}

fn scale(set: &Set, to: i32) -> Option<Step> {
    (set.replicas != to).then(|| Step::Scale(set.name.clone(), to))
}

/// Brings the sets to the Deployment's size without moving the rollout on.
fn share_out(wanted: &Wanted, new: Option<&Set>, old: &[Set]) -> Vec<Step> {
    let active: Vec<&Set> = new.iter().copied().chain(old).filter(|set| set.replicas > 0).collect();
    // One set that matters, or none: it gets all.
    let only = match active.as_slice() {
        [] => new.or_else(|| old.iter().max_by_key(|set| set.revision)),
        [only] => Some(*only),
        _ => None,
    };
    if let Some(only) = only {
        return scale(only, wanted.replicas).into_iter().collect();
    }
    if active.is_empty() {
        return Vec::new();
    }
    if new.is_some_and(|new| new.available >= wanted.replicas && new.replicas >= wanted.replicas) {
        return old.iter().filter_map(|set| scale(set, 0)).collect();
    }
    in_proportion(wanted, active)
}

/// Shares the change among the sets by their sizes; the largest first, and it takes what rounding leaves.
fn in_proportion(wanted: &Wanted, mut active: Vec<&Set>) -> Vec<Step> {
    let all: i32 = active.iter().map(|set| set.replicas).sum();
    let allowed = if wanted.replicas > 0 { wanted.max() } else { 0 };
    let change = allowed - all;
    active.sort_by_key(|set| (std::cmp::Reverse(set.replicas), std::cmp::Reverse(set.revision)));
    let mut sizes: Vec<i32> = Vec::new();
    let mut given = 0;
    for set in &active {
        let base = set.max.filter(|max| *max > 0).unwrap_or(all.max(1));
        let ideal = f64::from(set.replicas) * f64::from(allowed) / f64::from(base);
        let own = ideal.round() as i32 - set.replicas;
        let left = change - given;
        let part = if change > 0 { own.clamp(0, left) } else { own.clamp(left, 0) };
        given += part;
        sizes.push(set.replicas + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    active.iter().zip(sizes).filter_map(|(set, to)| scale(set, to)).collect()
}

fn recreate(wanted: &Wanted, new: Option<&Set>, old: &[Set]) -> Vec<Step> {
    let shrink: Vec<Step> = old.iter().filter_map(|set| scale(set, 0)).collect();
    let old_runs = old.iter().any(|set| set.exist > 0 || !set.observed);
    if !shrink.is_empty() || old_runs {
        return shrink;
    }
    match new {
        None => vec![Step::Create(wanted.replicas)],
        Some(new) => scale(new, wanted.replicas).into_iter().collect(),
    }
}

fn roll(wanted: &Wanted, new: Option<&Set>, old: &[Set]) -> Vec<Step> {
    let old_total: i32 = old.iter().map(|set| set.replicas).sum();
    let mut steps = Vec::new();
    let new_size = new.map_or(0, |new| new.replicas);
    let new_target = grown(wanted, new_size, old_total);
    match new {
        None => steps.push(Step::Create(new_target)),
        Some(new) => steps.extend(scale(new, new_target)),
    }
    // Upstream moves one side a time: old sets shrink once the new size is written and seen.
    if steps.is_empty() {
        steps.extend(new.map(|new| shrunk(wanted, new, old)).unwrap_or_default());
    }
    steps
}

/// The size the new set may have now.
fn grown(wanted: &Wanted, size: i32, old_total: i32) -> i32 {
    if size > wanted.replicas {
        return wanted.replicas;
    }
    let room = wanted.max() - (size + old_total);
    size + room.clamp(0, wanted.replicas - size)
}

fn shrunk(wanted: &Wanted, new: &Set, old: &[Set]) -> Vec<Step> {
    let old_total: i32 = old.iter().map(|set| set.replicas).sum();
    let min_available = wanted.replicas - wanted.unavailable;
    let new_missing = (new.replicas - new.available).max(0);
    let mut budget = new.replicas + old_total - min_available - new_missing;
    if old_total == 0 || budget <= 0 {
        return Vec::new();
    }
    let mut sets: Vec<Set> = old.to_vec();
    sets.sort_by_key(|set| set.revision);
    // Pods that never became healthy cost no availability; they go first.
    for set in sets.iter_mut().filter(|set| set.replicas > set.available) {
        let part = budget.min(set.replicas - set.available);
        set.replicas -= part;
        budget -= part;
    }
    let available: i32 = old.iter().map(|set| set.available.min(set.replicas)).sum::<i32>() + new.available;
    let mut spare = available - min_available;
    for set in sets.iter_mut().filter(|set| set.replicas > 0) {
        let part = spare.clamp(0, set.replicas);
        set.replicas -= part;
        spare -= part;
    }
    let targets =
        sets.iter().filter_map(|set| old.iter().find(|of| of.name == set.name).zip(Some(set.replicas)));
    targets.filter_map(|(set, to)| scale(set, to)).collect()
}

/// Old sets beyond the history that is kept.
fn clean(wanted: &Wanted, old: &[Set]) -> Vec<Step> {
    let mut empty: Vec<&Set> =
        old.iter().filter(|set| set.replicas == 0 && set.exist == 0 && set.observed).collect();
    empty.sort_by_key(|set| set.revision);
    let kept = usize::try_from(wanted.history).unwrap_or(0);
    let surplus = old.len().saturating_sub(kept).min(empty.len());
    empty[..surplus].iter().map(|set| Step::Delete(set.name.clone())).collect()
}
