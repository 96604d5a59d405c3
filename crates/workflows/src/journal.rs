//! The journal as `WorkflowJournal` objects: durable before anything is done.
//!
//! Segment 0 is the source of the plan. Events go to the segments after it; the last one is
//! rewritten on an append, so it is sealed while it is small.

use api::workflow::journal::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_SEAL, Segment};
use api::workflow::{WorkflowJournal, label};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use plan::Event;
use serde_json::{Value, json};

use crate::Error;
use crate::build::{Owner, owner_reference};

/// Version of the record format.
const FORMAT: u32 = 1;

/// The open end of a workflow's journal.
pub struct Journal {
    api: Api<WorkflowJournal>,
    owner: Owner,
    /// Index of the last segment.
    index: u32,
    /// Records of the last segment, when it holds events.
    tail: Vec<Value>,
    tail_bytes: usize,
}

/// A journal as it was found.
pub struct Found {
    /// What the plan was compiled from.
    pub source: Value,
    /// Every event.
    pub events: Vec<Event>,
    /// The journal, to go on.
    pub journal: Journal,
}

impl Journal {
    /// Reads a workflow's journal; none when it has not begun.
    pub async fn load(client: &kube::Client, owner: &Owner) -> Result<Option<Found>, Error> {
        let api: Api<WorkflowJournal> = Api::namespaced(client.clone(), &owner.namespace);
        let selector = format!("{}={}", label::WORKFLOW, owner.name);
        let list = api
            .list(&ListParams::default().labels(&selector))
            .await
            .map_err(Error::api("list the journal"))?;
        let mut segments: Vec<Segment> = list.items.into_iter().map(|object| object.spec).collect();
        segments.retain(|segment| segment.workflow_uid == owner.uid);
        segments.sort_by_key(|segment| segment.index);
        let broken = |why: String| Error::Journal { workflow: owner.name.clone(), why };
        let Some(first) = segments.first() else { return Ok(None) };
        let source = first.source.clone().ok_or_else(|| broken("segment 0 is missing".into()))?;
        let mut events = Vec::new();
        for (place, segment) in segments.iter().enumerate() {
            if segment.format != FORMAT {
                return Err(broken(format!("format {} is not known", segment.format)));
            }
            if segment.index as usize != place {
                return Err(broken(format!("segment {place} is missing")));
            }
            for record in &segment.records {
                let event = serde_json::from_value(record.clone());
                events.push(event.map_err(|error| broken(format!("segment {place}: {error}")))?);
            }
        }
        let last = segments.pop().unwrap_or_default();
        let tail_bytes = last.records.iter().map(|record| record.to_string().len()).sum();
        let journal = Self { api, owner: owner.clone(), index: last.index, tail: last.records, tail_bytes };
        Ok(Some(Found { source, events, journal }))
    }

    /// Begins a journal with the source of its plan.
    pub async fn begin(client: &kube::Client, owner: &Owner, source: &Value) -> Result<Self, Error> {
        let api: Api<WorkflowJournal> = Api::namespaced(client.clone(), &owner.namespace);
        let mut journal = Self { api, owner: owner.clone(), index: 0, tail: Vec::new(), tail_bytes: 0 };
        let segment = journal.object(0, Some(source.clone()), Vec::new());
        journal.create(&segment).await?;
        journal.tail_bytes = SEGMENT_BYTES_SEAL;
        Ok(journal)
    }

    /// Makes events durable, in order.
    pub async fn append(&mut self, events: &[Event]) -> Result<(), Error> {
        let mut fresh: Vec<Value> = Vec::new();
        let mut bytes = 0;
        for event in events {
            let record = serde_json::to_value(event).expect("an event is plain data");
            let size = record.to_string().len();
            let full = self.tail_bytes + bytes + size > SEGMENT_BYTES_SEAL;
            if full && bytes + size > SEGMENT_BYTES_MAX / 2 {
                self.write(std::mem::take(&mut fresh), std::mem::take(&mut bytes)).await?;
            }
            bytes += size;
            fresh.push(record);
        }
        self.write(fresh, bytes).await
    }

    async fn write(&mut self, fresh: Vec<Value>, bytes: usize) -> Result<(), Error> {
        if fresh.is_empty() {
            return Ok(());
        }
        if self.index == 0 || self.tail_bytes + bytes > SEGMENT_BYTES_SEAL {
            let segment = self.object(self.index + 1, None, fresh.clone());
            self.create(&segment).await?;
            self.index += 1;
            self.tail = fresh;
            self.tail_bytes = bytes;
            return Ok(());
        }
        self.tail.extend(fresh);
        self.tail_bytes += bytes;
        let patch = Patch::Merge(json!({ "spec": { "records": self.tail } }));
        let name = self.name(self.index);
        self.api
            .patch(&name, &PatchParams::default(), &patch)
            .await
            .map_err(Error::api("append to the journal"))?;
        Ok(())
    }

    async fn create(&self, segment: &WorkflowJournal) -> Result<(), Error> {
        match self.api.create(&PostParams::default(), segment).await {
            Ok(_) => Ok(()),
            // A write whose answer was lost: the object is ours and holds the same or older records.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let name = segment.metadata.name.clone().unwrap_or_default();
                let patch = Patch::Merge(json!({ "spec": segment.spec }));
                let patched = self.api.patch(&name, &PatchParams::default(), &patch).await;
                patched.map(|_| ()).map_err(Error::api("write the journal"))
            }
            Err(error) => Err(Error::api("write the journal")(error)),
        }
    }

    /// Removes the journal: the workflow ended and its status holds everything.
    pub async fn remove(&self) {
        for index in 0..=self.index {
            if let Err(error) = self.api.delete(&self.name(index), &DeleteParams::default()).await {
                tracing::debug!(workflow = %self.owner.name, %error, "journal segment stays");
            }
        }
    }

    fn name(&self, index: u32) -> String {
        let uid: String = self.owner.uid.chars().take(8).collect();
        format!("{}-{uid}-{index}", self.owner.name)
    }

    fn object(&self, index: u32, source: Option<Value>, records: Vec<Value>) -> WorkflowJournal {
        let metadata = json!({
            "name": self.name(index),
            "namespace": self.owner.namespace,
            "labels": { label::WORKFLOW: self.owner.name },
            "ownerReferences": [owner_reference(&self.owner)],
        });
        WorkflowJournal {
            api_version: "slipway.dev/v1alpha1".into(),
            kind: "WorkflowJournal".into(),
            metadata: cluster::read(&metadata).expect("metadata is well formed"),
            spec: Segment { format: FORMAT, index, workflow_uid: self.owner.uid.clone(), source, records },
        }
    }
}
