//! What all connections of a server share.
//!
//! Not here: what one connection has for itself (`connection`, `grpc`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::Config;
use crate::grpc::Loops;
use crate::metrics::{Labels, Metrics, Slot};
use crate::observe::Observe;
use crate::repository::Repository;
use crate::served::{Personality, Served};
use crate::stop::Stop;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) repository: Repository,
    /// What the server was told to do.
    pub(crate) config: Config,
    pub(crate) metrics: Vec<Arc<Metrics>>,
    /// Which models the metrics tell apart.
    pub(crate) labels: Labels,
    /// What becomes of calls besides their answers.
    pub(crate) observe: Observe,
    pub(crate) body_bytes_max: usize,
    /// Whose manners the server has where no model's count.
    pub(crate) personality: Personality,
    /// Load, unload and reload calls are carried out.
    pub(crate) open_repository: bool,
    /// Browsers of other sites may call.
    pub(crate) cors: bool,
    /// A second path of the metrics.
    pub(crate) metrics_path: Option<String>,
    /// How long a request without a deadline of its own may wait for its evaluation.
    pub(crate) timeout: Option<Duration>,
    /// KServe's models answer 500 to inputs that do not fit.
    pub(crate) upstream_codes: bool,
    /// All event loops.
    pub(crate) loops: Loops,
    /// The server is about to end.
    draining: Stop,
    /// How long a connection lives, before jitter.
    age: Option<Duration>,
    ages: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        repository: Repository,
        metrics: Vec<Arc<Metrics>>,
        observe: Observe,
        loops: Loops,
        draining: Stop,
    ) -> Self {
        Self {
            repository,
            config: config.clone(),
            labels: Labels::new(config.observing.models_max, metrics.clone()),
            metrics,
            observe,
            body_bytes_max: config.body_bytes_max,
            personality: config.personality,
            open_repository: config.open_repository,
            cors: config.cors,
            metrics_path: config.metrics_path.clone(),
            timeout: config.timeout,
            upstream_codes: config.upstream_codes,
            loops,
            draining,
            age: config.connection_age,
            ages: AtomicU64::new(0),
        }
    }

    /// Where a version's calls are counted.
    pub(crate) fn slot<'a>(&self, served: &'a Served) -> &'a Slot {
        served.slot.get_or_init(|| {
            let mut slot = self.labels.assign(&served.name, served.version, served.personality);
            slot.shadow = self.observe.shadows.as_ref().and_then(|shadows| shadows.of(served));
            slot.headers = self.observe.headers(served);
            slot
        })
    }

    /// Whether the server is about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_said()
    }

    /// Waits until the server is about to end.
    pub(crate) async fn drains(&self) {
        self.draining.said().await;
    }

    /// Whether all models answer and the server is to stay.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_draining() && self.repository.is_ready()
    }

    /// When a connection that begins now has lived long enough: up to a tenth earlier or later than configured, so
    /// that clients that came together do not come back together.
    pub(crate) fn end_of_life(&self) -> Option<Instant> {
        let age = self.age?;
        // The golden ratio's multiples fill the range evenly, whichever way connections come.
        let count = self.ages.fetch_add(1, Relaxed);
        let share = (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1_u64 << 24) as f64;
        Some(Instant::now() + age.mul_f64(0.9 + 0.2 * share))
    }
}
