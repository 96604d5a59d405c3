//! A server of canned answers, and what a watch makes of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// Answers requests in order; after the last answer it stays silent.
fn server(answers: Vec<String>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, log) = (Arc::new(Mutex::new(VecDeque::from(answers))), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().unwrap().push(request.uri().to_string());
        let answer = answers.lock().unwrap().pop_front();
        async move {
            match answer {
                Some(text) => Ok::<_, Infallible>(Response::new(Body::from(text.into_bytes()))),
                None => std::future::pending().await,
            }
        }
    });
    (Client::new(service, "default"), asked)
}

fn map(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string()}, "data": {"a": "b"}})
}

fn list(items: Vec<Value>) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": items})
        .to_string()
}

fn line(kind: &str, object: &Value) -> String {
    format!("{{\"type\":{kind:?},\"object\":{object}}}\n")
}

/// The next event in short.
async fn told(events: &mut Events<ConfigMap>) -> String {
    let named = |what: &str, map: &ConfigMap| {
        let data = map.data.as_ref().map_or(0, |data| data.len());
        format!("{what} {} {data}", map.name_any())
    };
    match events.next().await.expect("a watch does not end") {
        Ok(Event::Init) => "init".into(),
        Ok(Event::InitApply(map)) => named("listed", &map),
        Ok(Event::InitDone) => "done".into(),
        Ok(Event::Apply(map)) => named("applied", &map),
        Ok(Event::Delete(map)) => named("deleted", &map),
        Err(_) => "error".into(),
    }
}

async fn all_told(events: &mut Events<ConfigMap>, expected: &[&str]) {
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(told(events).await, *expected, "event {index}");
    }
}

#[tokio::test]
async fn a_list_and_its_changes_arrive_as_the_type() {
    let bookmark = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "10"}});
    let changes = [
        line("ADDED", &map("c", 8)),
        line("DELETED", &map("a", 9)),
        line("BOOKMARK", &bookmark),
        line("MODIFIED", &map("c", 11)),
    ];
    let (client, asked) = server(vec![list(vec![map("a", 1), map("b", 2)]), changes.concat()]);
    let config = Config::default().labels("app=web");
    let mut events = watch(Api::<ConfigMap>::namespaced(client, "ns"), config);
    all_told(&mut events, &["init", "listed a 1", "listed b 1", "done"]).await;
    all_told(&mut events, &["applied c 1", "deleted a 1", "applied c 1"]).await;
    let asked_again = async {
        while asked.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        event = events.next() => panic!("nothing more happened: {event:?}"),
        () = asked_again => {}
    }
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("/api/v1/namespaces/ns/configmaps?"), "{asked:?}");
    assert!(asked.iter().all(|uri| uri.contains("labelSelector=app%3Dweb")), "{asked:?}");
    assert!(asked[2].contains("resourceVersion=11"), "it goes on where it stopped: {asked:?}");
}

#[tokio::test]
async fn a_list_with_an_unreadable_object_is_never_complete() {
    let mut odd = map("b", 2);
    odd["data"] = json!(["no", "map"]);
    let first = list(vec![map("a", 1), odd, map("c", 3)]);
    let second = list(vec![map("a", 1), map("b", 4)]);
    let (client, _) = server(vec![first, second]);
    let mut events = watch(Api::<ConfigMap>::all(client), Config::default());
    all_told(&mut events, &["init", "listed a 1", "error"]).await;
    all_told(&mut events, &["init", "listed a 1", "listed b 1", "done"]).await;
}

#[tokio::test]
async fn an_unreadable_change_is_told_and_the_watch_goes_on() {
    let mut odd = map("a", 8);
    odd["data"] = json!("text");
    let changes = line("MODIFIED", &odd) + &line("MODIFIED", &map("b", 9));
    let (client, _) = server(vec![list(vec![]), changes]);
    let mut events = watch(Api::<ConfigMap>::all(client), Config::default());
    all_told(&mut events, &["init", "done", "error", "applied b 1"]).await;
}
