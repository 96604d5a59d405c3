//! Events go after an hour, as upstream's default, so that a long-lived cluster does not fill with them.
//!
//! Expiry is a matter of time alone, so this one task sleeps and looks; nothing would wake it otherwise.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::object;
use crate::server::ApiServer;
use crate::storage::{self, Write, WriteError};

/// Seconds that an Event is kept after it was last seen; upstream's `--event-ttl`.
const EVENT_SECONDS: i64 = 3600;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// Starts the task; it ends with the server.
pub fn spawn(server: &Arc<ApiServer>) {
    let server: Weak<ApiServer> = Arc::downgrade(server);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(server) = server.upgrade() else { return };
            sweep(&server, Timestamp::now()).await;
        }
    });
}

/// True when an Event was last seen too long ago.
fn is_expired(event: &Value, now: Timestamp) -> bool {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let seen = times.iter().filter_map(|at| object::text(event, at).parse::<Timestamp>().ok()).max();
    seen.is_some_and(|seen| now.as_second() - seen.as_second() > EVENT_SECONDS)
}

async fn sweep(server: &ApiServer, now: Timestamp) {
    let snapshot = server.store.snapshot();
    for record in snapshot.range("/core/events/", None) {
        let Ok(event) = storage::parse(&record.value) else { continue };
        if !is_expired(&event, now) {
            continue;
        }
        // One that changed in between was seen again and stays.
        if let Err(WriteError::Other(error)) =
            storage::write(&server.store, &record.key, Write::Delete(&event, record.modified)).await
        {
            tracing::warn!(%error, "an old Event could not be removed");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_expires_by_when_it_was_last_seen() {
        let now: Timestamp = "2026-01-01T02:00:00Z".parse().unwrap();
        let old = json!({"lastTimestamp": "2026-01-01T00:30:00Z"});
        let repeated = json!({"lastTimestamp": "2026-01-01T00:30:00Z", "series": {"lastObservedTime": "2026-01-01T01:30:00.000000Z"}});
        assert!(is_expired(&old, now));
        assert!(!is_expired(&repeated, now));
        assert!(!is_expired(&json!({}), now));
    }
}
