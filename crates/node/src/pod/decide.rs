//! What to do next for a pod: pure judgement over what is known of its containers.
//!
//! The rules are the kubelet's: init containers one after the other, restartable ones (sidecars) beside the rest,
//! restarts by policy with a back-off that doubles from 10 s to 5 min, and a pod that ends when its main containers
//! have ended for good. `decide` never waits: what is not due yet comes back as [`Step::Wake`].

use jiff::{SignedDuration, Timestamp};
use pod_protocol::shim::Exit;

/// First restart delay; it doubles with each further restart.
const BACK_OFF_FIRST_S: i64 = 10;
/// The longest restart delay.
const BACK_OFF_MAX_S: i64 = 300;
/// A container that ran this long starts with a fresh back-off.
const BACK_OFF_RESET_S: i64 = 600;

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Also after success.
    Always,
    /// After a failure.
    OnFailure,
    /// Not at all.
    Never,
}

/// What kind of container it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others.
    Sidecar,
    /// Of `spec.containers`.
    Main,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Never attempted.
    New,
    /// Image, volumes and spec are being prepared, or the shim was asked.
    Starting,
    /// The program runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It ended.
    Exited {
        /// How.
        exit: Exit,
        /// When.
        at: Timestamp,
    },
}

/// Why a container waits although it is its turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: String,
    /// In words.
    pub message: String,
    /// Not tried again before.
    pub until: Timestamp,
    /// How often it failed in a row.
    pub failures: u32,
}

/// What is known of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub role: Role,
    /// The number of the current or last attempt.
    pub attempt: u32,
    /// How far it is.
    pub phase: Phase,
    /// How the attempt before ended.
    pub previous: Option<Exit>,
    /// Why it could not be started at the last try.
    pub waiting: Option<Waiting>,
    /// Ends in a row without a long run before, for the back-off.
    pub quick_ends: u32,
    /// The startup probe succeeded, or there is none and it runs.
    pub started: bool,
    /// The readiness probe succeeded, or there is none and it runs.
    pub ready: bool,
    /// A liveness or startup probe gave it up.
    pub condemned: bool,
    /// It was told to stop.
    pub stopping: bool,
    /// What the status calls its image.
    pub image_id: String,
}

impl Container {
    /// Nothing happened yet.
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            attempt: 0,
            phase: Phase::New,
            previous: None,
            waiting: None,
            quick_ends: 0,
            started: false,
            ready: false,
            condemned: false,
            stopping: false,
            image_id: String::new(),
        }
    }

    /// A process of it may exist.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    fn succeeded(&self) -> bool {
        matches!(&self.phase, Phase::Exited { exit, .. } if exit.code == 0)
    }
}

/// What is known of the pod.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// Now.
    pub now: Timestamp,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// Init containers first, in the spec's order.
    pub containers: &'a [Container],
    /// It is to end: deleted or over its deadline.
    pub ending: bool,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Start the attempt of this number.
    Start {
        /// Container.
        container: String,
        /// Attempt.
        attempt: u32,
    },
    /// Stop a container (the pod ends, or a probe gave it up).
    Stop {
        /// Container.
        container: String,
    },
    /// Look again then.
    Wake {
        /// When.
        at: Timestamp,
    },
    /// Nothing of the pod will run again.
    Finish,
}

/// How the pod stands as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Init containers are not through.
    Initializing,
    /// An init container failed for good.
    InitFailed,
    /// Main containers run or will.
    Running,
    /// All main containers ended for good, all with success.
    Succeeded,
    /// All ended for good, one with failure.
    Failed,
}

/// The next steps; empty when only an event can change anything.
pub fn decide(seen: &Seen<'_>) -> Vec<Step> {
    let mut steps = stop_condemned(seen);
    if seen.ending {
        return end(seen);
    }
    match outlook(seen) {
        Outlook::Initializing => steps.extend(initialize(seen)),
        Outlook::Running => {
            let turn = seen.containers.iter().filter(|container| container.role != Role::Init);
            steps.extend(turn.filter_map(|container| start(seen, container)));
        }
        Outlook::InitFailed | Outlook::Succeeded | Outlook::Failed => return end(seen),
    }
    steps
}

/// How the pod stands, were it not ended from outside.
pub fn outlook(seen: &Seen<'_>) -> Outlook {
    let main: Vec<&Container> =
        seen.containers.iter().filter(|container| container.role == Role::Main).collect();
    let begun = main.iter().any(|container| container.phase != Phase::New);
    for container in seen.containers.iter().filter(|container| container.role == Role::Init) {
        if !container.succeeded() && !begun {
            let over = matches!(container.phase, Phase::Exited { .. });
            let for_good = over && seen.restart_policy == RestartPolicy::Never;
            return if for_good { Outlook::InitFailed } else { Outlook::Initializing };
        }
    }
    let sidecars_up = seen
        .containers
        .iter()
        .filter(|container| container.role == Role::Sidecar)
        .all(|container| container.started);
    if !sidecars_up && !begun {
        return Outlook::Initializing;
    }
    if main.iter().any(|container| !is_over(seen.restart_policy, container)) {
        return Outlook::Running;
    }
    if main.iter().all(|container| container.succeeded()) { Outlook::Succeeded } else { Outlook::Failed }
}

fn is_over(policy: RestartPolicy, container: &Container) -> bool {
    matches!(container.phase, Phase::Exited { .. }) && !restarts(policy, container)
}

fn restarts(policy: RestartPolicy, container: &Container) -> bool {
    match (container.role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, RestartPolicy::Never) => false,
        (Role::Init, _) => !container.succeeded(),
        (Role::Main, RestartPolicy::Always) => true,
        (Role::Main, RestartPolicy::OnFailure) => !container.succeeded(),
        (Role::Main, RestartPolicy::Never) => false,
    }
}

fn stop_condemned(seen: &Seen<'_>) -> Vec<Step> {
    let condemned = seen.containers.iter().filter(|container| container.condemned);
    condemned.filter_map(stop).collect()
}

fn stop(container: &Container) -> Option<Step> {
    let due = container.is_running() && !container.stopping;
    due.then(|| Step::Stop { container: container.name.clone() })
}

/// Main containers first, sidecars when these are gone; then the end.
fn end(seen: &Seen<'_>) -> Vec<Step> {
    let alive = |container: &&Container| matches!(container.phase, Phase::Starting | Phase::Running { .. });
    let (sidecars, others): (Vec<_>, Vec<_>) =
        seen.containers.iter().filter(alive).partition(|container| container.role == Role::Sidecar);
    let turn = if others.is_empty() { sidecars } else { others };
    if turn.is_empty() {
        return vec![Step::Finish];
    }
    turn.into_iter().filter_map(stop).collect()
}

/// The init containers up to the first that is not through; sidecars on the way are kept up.
fn initialize(seen: &Seen<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for container in seen.containers.iter().filter(|container| container.role != Role::Main) {
        if container.role == Role::Init && container.succeeded() {
            continue;
        }
        steps.extend(start(seen, container));
        if container.role == Role::Init || !container.started {
            break;
        }
    }
    steps
}

fn start(seen: &Seen<'_>, container: &Container) -> Option<Step> {
    let attempt = match &container.phase {
        Phase::Starting | Phase::Running { .. } => return None,
        Phase::New => container.attempt,
        Phase::Exited { .. } if !restarts(seen.restart_policy, container) => return None,
        Phase::Exited { .. } => container.attempt + 1,
    };
    let due = due(container);
    match due.filter(|due| *due > seen.now) {
        Some(at) => Some(Step::Wake { at }),
        None => Some(Step::Start { container: container.name.clone(), attempt }),
    }
}

/// When a container may be started; none: at once.
pub fn due(container: &Container) -> Option<Timestamp> {
    let waiting = container.waiting.as_ref().map(|waiting| waiting.until);
    let back_off = match &container.phase {
        Phase::Exited { at, .. } => Some(*at + back_off(container.quick_ends)),
        Phase::New | Phase::Starting | Phase::Running { .. } => None,
    };
    waiting.max(back_off)
}

/// The delay before a restart, after so many quick ends: none after the first, then 10 s, 20 s, … 5 min.
pub fn back_off(quick_ends: u32) -> SignedDuration {
    let Some(doublings) = quick_ends.checked_sub(2) else {
        return SignedDuration::ZERO;
    };
    SignedDuration::from_secs((BACK_OFF_FIRST_S << doublings.min(5)).min(BACK_OFF_MAX_S))
}

/// How many quick ends there are once a run of this length has ended.
pub fn quick_ends(before: u32, ran: SignedDuration) -> u32 {
    if ran.as_secs() >= BACK_OFF_RESET_S { 0 } else { before.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn new(name: &str, role: Role) -> Container {
        Container::new(name, role)
    }

    fn running(name: &str, role: Role) -> Container {
        Container { phase: Phase::Running { since: NOW }, started: true, ..new(name, role) }
    }

    fn exited(name: &str, role: Role, code: i32) -> Container {
        Container {
            phase: Phase::Exited { exit: Exit { code, ..Exit::default() }, at: NOW },
            ..new(name, role)
        }
    }

    fn go(container: &str, attempt: u32) -> Step {
        Step::Start { container: container.into(), attempt }
    }

    fn halt(container: &str) -> Step {
        Step::Stop { container: container.into() }
    }

    #[test]
    fn each_case_takes_the_next_safe_steps() {
        use RestartPolicy::{Always, Never, OnFailure};
        use Role::{Init, Main, Sidecar};
        let late = Step::Wake { at: NOW + SignedDuration::from_secs(20) };
        let crashing = Container { quick_ends: 3, attempt: 2, ..exited("a", Main, 1) };
        let condemned = Container { condemned: true, ..running("a", Main) };
        let stopping = Container { stopping: true, ..running("a", Main) };
        let cases = [
            (
                "first start of all",
                Always,
                vec![new("a", Main), new("b", Main)],
                vec![go("a", 0), go("b", 0)],
            ),
            ("init goes first", Always, vec![new("i", Init), new("a", Main)], vec![go("i", 0)]),
            ("init runs", Always, vec![running("i", Init), new("a", Main)], vec![]),
            ("init is through", Never, vec![exited("i", Init, 0), new("a", Main)], vec![go("a", 0)]),
            ("init failed", OnFailure, vec![exited("i", Init, 1), new("a", Main)], vec![go("i", 1)]),
            ("init failed for good", Never, vec![exited("i", Init, 1), new("a", Main)], vec![Step::Finish]),
            ("a sidecar goes first", Never, vec![new("s", Sidecar), new("a", Main)], vec![go("s", 0)]),
            ("a sidecar stays", Never, vec![running("s", Sidecar), new("a", Main)], vec![go("a", 0)]),
            (
                "a sidecar is restarted",
                Never,
                vec![exited("s", Sidecar, 0), running("a", Main)],
                vec![go("s", 1)],
            ),
            (
                "a sidecar ends last",
                Never,
                vec![running("s", Sidecar), exited("a", Main, 0)],
                vec![halt("s")],
            ),
            ("success is not restarted", OnFailure, vec![exited("a", Main, 0)], vec![Step::Finish]),
            ("success is restarted", Always, vec![exited("a", Main, 0)], vec![go("a", 1)]),
            ("a crash loop waits its time", Always, vec![crashing], vec![late.clone()]),
            ("one of two is over", Never, vec![exited("a", Main, 1), running("b", Main)], vec![]),
            ("a condemned one is stopped", Always, vec![condemned], vec![halt("a")]),
            ("but once", Always, vec![stopping], vec![]),
        ];
        for (name, restart_policy, containers, want) in cases {
            let seen = Seen { now: NOW, restart_policy, containers: &containers, ending: false };
            assert_eq!(decide(&seen), want, "{name}");
        }
    }

    #[test]
    fn an_ending_pod_stops_everything_and_starts_nothing() {
        use Role::{Main, Sidecar};
        let cases = [
            (vec![running("s", Sidecar), running("a", Main)], vec![halt("a")]),
            (vec![running("s", Sidecar), exited("a", Main, 0)], vec![halt("s")]),
            (vec![new("a", Main)], vec![Step::Finish]),
            (vec![exited("a", Main, 1)], vec![Step::Finish]),
        ];
        for (containers, want) in cases {
            let restart_policy = RestartPolicy::Always;
            let seen = Seen { now: NOW, restart_policy, containers: &containers, ending: true };
            assert_eq!(decide(&seen), want);
        }
    }

    #[test]
    fn restarts_back_off_from_10_s_to_5_min() {
        let delays: Vec<i64> = (0..9).map(|ends| back_off(ends).as_secs()).collect();
        assert_eq!(delays, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(quick_ends(4, SignedDuration::from_secs(601)), 0);
        assert_eq!(quick_ends(4, SignedDuration::from_secs(5)), 5);
    }
}
