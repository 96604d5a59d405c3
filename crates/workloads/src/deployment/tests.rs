//! Laws of rollouts: single steps by table, whole rollouts by simulation.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::decide::{Set, Step, Wanted, decide, is_complete};
use super::template::hash;

fn wanted(replicas: i32, surge: i32, unavailable: i32) -> Wanted {
    Wanted { replicas, surge, unavailable, recreate: false, paused: false, history: 10 }
}

fn set(name: &str, revision: i64, replicas: i32, available: i32, of: &Wanted) -> Set {
    let (desired, max) = (Some(of.replicas), Some(of.max()));
    Set {
        name: name.into(),
        replicas,
        exist: replicas,
        ready: available,
        available,
        revision,
        desired,
        max,
        observed: true,
    }
}

fn scale(name: &str, to: i32) -> Step {
    Step::Scale(name.into(), to)
}

#[test]
fn each_case_takes_the_next_safe_step() {
    let three = wanted(3, 1, 0);
    let one = |name, revision, replicas, available| set(name, revision, replicas, available, &three);
    let cases = [
        ("first", None, vec![], vec![Step::Create(3)]),
        ("update begins", None, vec![one("a", 1, 3, 3)], vec![Step::Create(1)]),
        ("new one starts", Some(one("b", 2, 1, 0)), vec![one("a", 1, 3, 3)], vec![]),
        ("new one serves", Some(one("b", 2, 1, 1)), vec![one("a", 1, 3, 3)], vec![scale("a", 2)]),
        ("room for the next", Some(one("b", 2, 1, 1)), vec![one("a", 1, 2, 2)], vec![scale("b", 2)]),
        ("broken old ones go", Some(one("b", 2, 1, 0)), vec![one("a", 1, 3, 1)], vec![]),
        ("done", Some(one("b", 2, 3, 3)), vec![one("a", 1, 0, 0)], vec![]),
    ];
    for (name, new, old, want) in cases {
        assert_eq!(decide(&three, new.as_ref(), &old), want, "{name}");
    }
}

#[test]
fn a_change_of_size_goes_to_the_only_set_or_in_proportion() {
    let (before, after) = (wanted(3, 1, 0), wanted(5, 1, 0));
    assert_eq!(decide(&after, Some(&set("a", 1, 3, 3, &before)), &[]), [scale("a", 5)]);
    assert_eq!(decide(&wanted(0, 0, 0), Some(&set("a", 1, 3, 3, &before)), &[]), [scale("a", 0)]);
    let (ten, twenty) = (wanted(10, 2, 0), wanted(20, 4, 0));
    let steps = decide(&twenty, Some(&set("b", 2, 4, 0, &ten)), &[set("a", 1, 8, 8, &ten)]);
    assert_eq!(steps, [scale("a", 16), scale("b", 8)]);
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut three = wanted(3, 0, 3);
    three.recreate = true;
    let old = |replicas, exist| vec![Set { exist, ..set("a", 1, replicas, exist, &three) }];
    assert_eq!(decide(&three, None, &old(3, 3)), [scale("a", 0)]);
    assert_eq!(decide(&three, None, &old(0, 2)), []);
    assert_eq!(decide(&three, None, &old(0, 0)), [Step::Create(3)]);
}

#[test]
fn a_paused_deployment_does_not_roll() {
    let mut three = wanted(3, 1, 0);
    three.paused = true;
    assert_eq!(decide(&three, None, &[set("a", 1, 3, 3, &three)]), []);
}

#[test]
fn old_sets_beyond_the_history_go_when_the_rollout_is_complete() {
    let mut two = wanted(2, 1, 0);
    two.history = 1;
    let old = [set("a", 1, 0, 0, &two), set("b", 2, 0, 0, &two)];
    assert_eq!(decide(&two, Some(&set("c", 3, 2, 2, &two)), &old), [Step::Delete("a".into())]);
}

/// Applies steps, then lets every pod become available or go, until nothing changes.
#[test]
fn every_rollout_ends_and_never_leaves_its_bounds() {
    for replicas in 1..8 {
        for (surge, unavailable) in [(1, 0), (0, 1), (2, 1), (3, 3), (1, 7)] {
            let wanted = wanted(replicas, surge, unavailable.min(replicas));
            let mut old = vec![set("a", 1, replicas, replicas, &wanted)];
            let mut new: Option<Set> = None;
            for _round in 0..100 {
                let steps = decide(&wanted, new.as_ref(), &old);
                for step in &steps {
                    match step {
                        Step::Create(size) => new = Some(set("b", 2, *size, 0, &wanted)),
                        Step::Scale(name, to) if name == "b" => new.as_mut().unwrap().replicas = *to,
                        Step::Scale(_, to) => old[0].replicas = *to,
                        Step::Delete(_) => {}
                    }
                }
                old[0].available = old[0].available.min(old[0].replicas);
                let live = new.as_ref().map_or(0, |new| new.available) + old[0].available;
                let total = new.as_ref().map_or(0, |new| new.replicas) + old[0].replicas;
                assert!(live >= replicas - wanted.unavailable, "{wanted:?}: {live} available");
                assert!(total <= wanted.max(), "{wanted:?}: {total} pods");
                for set in new.iter_mut().chain(&mut old) {
                    (set.exist, set.available) = (set.replicas, set.replicas);
                }
            }
            assert!(is_complete(&wanted, new.as_ref(), &old), "{wanted:?} never completes");
        }
    }
}

#[test]
fn defaults_and_percentages_are_upstreams() {
    let read = |spec: serde_json::Value| {
        let mut object = json!({"spec": {"selector": {}, "template": {}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        Wanted::of(&serde_json::from_value::<Deployment>(object).unwrap())
    };
    let ten = read(json!({"replicas": 10}));
    assert_eq!((ten.surge, ten.unavailable, ten.max()), (3, 2, 13));
    let one = read(json!({}));
    assert_eq!((one.replicas, one.surge, one.unavailable), (1, 1, 0));
    let both_zero =
        json!({"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}});
    assert_eq!(read(both_zero).unavailable, 1);
}

#[test]
fn the_hash_tells_templates_apart_and_is_a_legal_label() {
    let template =
        |name: &str| serde_json::from_value(json!({"metadata": {"labels": {"app": name}}})).unwrap();
    let (a, b) = (template("a"), template("b"));
    assert_eq!(hash(&a, 0), hash(&a, 0));
    assert_ne!(hash(&a, 0), hash(&b, 0));
    assert_ne!(hash(&a, 0), hash(&a, 1));
    assert!(hash(&a, 0).len() <= 10 && hash(&a, 0).bytes().all(|b| b.is_ascii_alphanumeric()));
}
