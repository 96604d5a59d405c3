//! Triton's `config.pbtxt`.
//!
//! What describes how a model is scheduled is taken; inputs and outputs come from the model file itself, where they
//! cannot be wrong. Ensembles and sequences are refused: serving a part of them would be serving something else.
//!
//! Not here: the text format (`codecs::textproto`).

use std::collections::BTreeMap;
use std::time::Duration;

use codecs::textproto::{Field, Message, TextError, parse};

use super::tfs::{child, version_policy};
use super::{Batching, Model, Overdue, QueuePolicy, warmup};
use crate::served::Personality;

type Result<T> = std::result::Result<T, TextError>;

const KNOWN: [&str; 24] = [
    "name",
    "platform",
    "backend",
    "runtime",
    "version_policy",
    "max_batch_size",
    "input",
    "output",
    "batch_input",
    "batch_output",
    "optimization",
    "dynamic_batching",
    "sequence_batching",
    "ensemble_scheduling",
    "instance_group",
    "default_model_filename",
    "cc_model_filenames",
    "metric_tags",
    "parameters",
    "model_warmup",
    "model_operations",
    "model_transaction_policy",
    "model_repository_agents",
    "response_cache",
];
const REFUSED: [&str; 4] = ["ensemble_scheduling", "sequence_batching", "batch_input", "batch_output"];
const WITHOUT_EFFECT: [&str; 4] = ["optimization", "cc_model_filenames", "metric_tags", "model_operations"];

fn wrong<T>(field: &Field, what: impl Into<String>) -> Result<T> {
    Err(TextError { line: field.line, what: what.into() })
}

pub(super) fn size(field: &Field) -> Result<usize> {
    field.count().map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

fn level(field: &Field) -> Result<u32> {
    let count = field.count()?;
    u32::try_from(count).or_else(|_| wrong(field, format!("{} {count} is too large", field.name)))
}

/// Reads a document into the model whose folder it lies in.
pub fn read(text: &str, model: &mut Model) -> Result<()> {
    let all = parse(text)?;
    all.only(&KNOWN)?;
    if let Some(field) = all.fields.iter().find(|field| REFUSED.contains(&field.name.as_str())) {
        return wrong(field, format!("{} is not served", field.name));
    }
    for field in all.fields.iter().filter(|field| WITHOUT_EFFECT.contains(&field.name.as_str())) {
        tracing::warn!(model = %model.name, "{} in config.pbtxt has no effect here", field.name);
    }
    model.personality = Personality::Triton;
    if let Some(field) = all.get("name") {
        let name = field.text()?;
        if name != &*model.name {
            return wrong(field, format!("the name {name:?} is not the folder's, {:?}", model.name));
        }
    }
    if let Some(field) = all.get("version_policy") {
        model.policy = version_policy(field)?;
    }
    if let Some(field) = all.get("default_model_filename") {
        let file = field.text()?;
        if file.is_empty() || file.contains('/') {
            return wrong(field, format!("{file:?} is no file in the version's folder"));
        }
        model.file = Some(file.to_owned());
    }
    let rows_max = all.get("max_batch_size").map_or(Ok(0), size)?;
    model.warmups = warmup::read(&all, rows_max > 0)?;
    parameters(&all, model)?;
    agents(&all, model)?;
    if let Some(cache) = child(&all, "response_cache")? {
        cache.only(&["enable"])?;
        model.cache = Some(cache.get("enable").map_or(Ok(false), Field::truth)?);
    }
    let dynamic = child(&all, "dynamic_batching")?;
    // Triton batches a model that may be batched even where no scheduler is named.
    model.batching = match (rows_max, dynamic) {
        (0, None) | (1, None) => None,
        (0, Some(_)) => {
            let what = "dynamic_batching needs a max_batch_size above 0".to_owned();
            return Err(TextError { line: all.line, what });
        }
        (rows_max, dynamic) => Some(batching(&all, rows_max, dynamic)?),
    };
    Ok(())
}

/// Backends' own parameters, of which those that this server has are taken.
fn parameters(all: &Message, model: &mut Model) -> Result<()> {
    for field in all.all("parameters") {
        let pair = field.message()?;
        pair.only(&["key", "value"])?;
        let (key, value) = (pair.get("key").map_or(Ok(""), Field::text)?, child(pair, "value")?);
        let text = value.and_then(|value| value.get("string_value"));
        match (key, text) {
            ("sha256", Some(text)) => {
                let sha256 = crate::proof::checked(text.text()?);
                model.sha256 = Some(sha256.or_else(|what| wrong(text, what))?);
            }
            ("sha256", None) => return wrong(field, "the parameter sha256 needs a string_value"),
            _ => {
                tracing::warn!(model = %model.name, "the parameter {key:?} in config.pbtxt has no effect here")
            }
        }
    }
    Ok(())
}

/// Agents look at a model before it is loaded. Of those that Triton has, only the one of checksums is known here.
fn agents(all: &Message, model: &mut Model) -> Result<()> {
    model.md5.clear();
    let Some(agents) = child(all, "model_repository_agents")? else { return Ok(()) };
    agents.only(&["agents"])?;
    for field in agents.all("agents") {
        let agent = field.message()?;
        agent.only(&["name", "parameters"])?;
        let name = agent.get("name").map_or(Ok(""), Field::text)?;
        if name != "checksum" {
            return wrong(field, format!("the repository agent {name:?} is not served, only \"checksum\""));
        }
        for pair in agent.all("parameters") {
            let entry = pair.message()?;
            entry.only(&["key", "value"])?;
            let text = |name| entry.get(name).map_or(Ok(""), Field::text);
            let (key, value) = (text("key")?, text("value")?);
            let Some(path) = key.strip_prefix("MD5:") else {
                return wrong(pair, format!("the checksum agent's {key:?} does not begin with MD5:"));
            };
            let is_inside =
                !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !is_inside {
                return wrong(pair, format!("{path:?} is no file in the model's folder"));
            }
            let md5 = crate::proof::checked_md5(value).or_else(|what| wrong(pair, what))?;
            model.md5.insert(path.to_owned(), md5);
        }
    }
    Ok(())
}

fn batching(all: &Message, rows_max: usize, dynamic: Option<&Message>) -> Result<Batching> {
    let mut batching = Batching {
        rows_max,
        threads: instances(all)?,
        // Triton bounds its queue only where a policy does; memory must be bounded all the same.
        queued_batches_max: 1024,
        splits: false,
        ..Batching::default()
    };
    if let Some(dynamic) = dynamic {
        dynamic.only(&[
            "preferred_batch_size",
            "max_queue_delay_microseconds",
            "preserve_ordering",
            "priority_levels",
            "default_priority_level",
            "default_queue_policy",
            "priority_queue_policy",
        ])?;
        batching.preferred = dynamic.all("preferred_batch_size").map(size).collect::<Result<Vec<usize>>>()?;
        batching.preferred.sort_unstable();
        batching.preferred.dedup();
        let micros = dynamic.get("max_queue_delay_microseconds").map_or(Ok(0), Field::count)?;
        batching.wait_max = Duration::from_micros(micros);
        batching.priorities = dynamic.get("priority_levels").map_or(Ok(0), level)?;
        batching.default_priority = dynamic.get("default_priority_level").map_or(Ok(0), level)?;
        if let Some(policy) = child(dynamic, "default_queue_policy")? {
            batching.policy = queue_policy(policy)?;
        }
        batching.policies = policies(dynamic)?;
    }
    batching.check().map_err(|what| TextError { line: dynamic.unwrap_or(all).line, what })?;
    Ok(batching)
}

fn instances(all: &Message) -> Result<usize> {
    let mut threads = 0_usize;
    for group in all.all("instance_group") {
        let message = group.message()?;
        let kind = message.get("kind").map_or(Ok("KIND_CPU"), Field::word)?;
        if kind == "KIND_GPU" {
            return wrong(group, "an instance_group of KIND_GPU: models are evaluated on CPUs here");
        }
        threads = threads.saturating_add(message.get("count").map_or(Ok(1), size)?.max(1));
    }
    // Without a group Triton runs one instance, whose own threads then use the machine; ours has none of its own.
    Ok(if threads == 0 { Batching::default().threads } else { threads })
}

fn policies(dynamic: &Message) -> Result<BTreeMap<u32, QueuePolicy>> {
    let mut policies = BTreeMap::new();
    for entry in dynamic.all("priority_queue_policy") {
        let pair = entry.message()?;
        pair.only(&["key", "value"])?;
        let (Some(key), Some(value)) = (pair.get("key"), pair.get("value")) else {
            return wrong(entry, "priority_queue_policy needs a key and a value");
        };
        policies.insert(level(key)?, queue_policy(value.message()?)?);
    }
    Ok(policies)
}

fn queue_policy(policy: &Message) -> Result<QueuePolicy> {
    policy.only(&[
        "timeout_action",
        "default_timeout_microseconds",
        "allow_timeout_override",
        "max_queue_size",
    ])?;
    let overdue = match policy.get("timeout_action") {
        None => Overdue::Reject,
        Some(field) => match field.word()? {
            "REJECT" | "0" => Overdue::Reject,
            "DELAY" | "1" => Overdue::Delay,
            other => return wrong(field, format!("timeout_action {other} is neither REJECT nor DELAY")),
        },
    };
    let micros = policy.get("default_timeout_microseconds").map_or(Ok(0), Field::count)?;
    let calls = policy.get("max_queue_size").map_or(Ok(0), size)?;
    Ok(QueuePolicy {
        overdue,
        timeout: (micros > 0).then(|| Duration::from_micros(micros)),
        allows_override: policy.get("allow_timeout_override").map_or(Ok(false), Field::truth)?,
        calls_max: (calls > 0).then_some(calls),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VersionPolicy;

    fn read_as(name: &str, text: &str) -> Result<Model> {
        let mut model = Model::new(name, "/m");
        read(text, &mut model).map(|()| model)
    }

    #[test]
    fn scheduling_is_taken_from_the_document() {
        let text = r#"
            name: "m" backend: "onnxruntime" max_batch_size: 8 default_model_filename: "a.onnx"
            input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
            output [ { name: "y" data_type: TYPE_INT64 dims: [ 1 ] } ]
            version_policy: { specific { versions: [1,3] } }
            instance_group [ { count: 2 kind: KIND_CPU } ] response_cache { enable: true }
            dynamic_batching {
              preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100
              priority_levels: 2 default_priority_level: 2
              default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5000 max_queue_size: 7 }
              priority_queue_policy { key: 1 value: { allow_timeout_override: true } }
            }"#;
        let model = read_as("m", text).expect("a document");
        assert_eq!((model.personality, model.file.as_deref()), (Personality::Triton, Some("a.onnx")));
        assert_eq!(model.policy, VersionPolicy::Specific(vec![1, 3]));
        assert_eq!(model.cache, Some(true));
        let batching = model.batching.expect("batching");
        assert_eq!((batching.rows_max, batching.threads, batching.splits), (8, 2, false));
        assert_eq!((batching.preferred, batching.wait_max), (vec![4, 8], Duration::from_micros(100)));
        assert_eq!((batching.priorities, batching.default_priority), (2, 2));
        let policy = batching.policy;
        assert_eq!((policy.overdue, policy.calls_max), (Overdue::Delay, Some(7)));
        assert!(batching.policies[&1].allows_override);
        assert_eq!(read_as("m", "max_batch_size: 0").expect("a document").batching, None);
        assert!(read_as("m", "max_batch_size: 16").expect("a document").batching.is_some());
    }

    #[test]
    fn the_agent_of_checksums_says_what_files_are_meant() {
        let text = r#"model_repository_agents { agents [ { name: "checksum" parameters [
            { key: "MD5:1/m.onnx" value: "900150983CD24FB0D6963F7D28E17F72" },
            { key: "MD5:labels.txt" value: "d41d8cd98f00b204e9800998ecf8427e" } ] } ] }"#;
        let md5 = read_as("m", text).expect("a document").md5;
        let want = [
            ("1/m.onnx".to_owned(), "900150983cd24fb0d6963f7d28e17f72".to_owned()),
            ("labels.txt".to_owned(), "d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        ];
        assert_eq!(md5, want.into());
    }

    #[test]
    fn what_would_be_served_wrongly_is_refused() {
        let agent = |inside: &str| format!("model_repository_agents {{ agents {{ {inside} }} }}");
        for (inside, want) in [
            ("name: 'other'", "\"other\""),
            ("name: 'checksum' parameters { key: 'SHA:1/m' value: '' }", "SHA:1/m"),
            ("name: 'checksum' parameters { key: 'MD5:../m' value: '' }", "../m"),
            ("name: 'checksum' parameters { key: 'MD5:1/m' value: '12' }", "32 hexadecimal digits"),
        ] {
            let error = read_as("m", &agent(inside)).expect_err(inside).to_string();
            assert!(error.contains(want), "{inside}: {error}");
        }
        for (text, want) in [
            ("parameters { key: 'sha256' value { string_value: '12' } }", "64 hexadecimal digits"),
            ("parameters { key: 'sha256' value { } }", "needs a string_value"),
            ("model_warmup { batch_size: 2 }", "max_batch_size is 0"),
            ("name: 'other'", "is not the folder's"),
            ("ensemble_scheduling { }", "is not served"),
            ("max_batch_size: 2 sequence_batching { }", "is not served"),
            ("dynamic_batching { }", "needs a max_batch_size"),
            ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", "preferred_batch_size [8]"),
            ("max_batch_size: 4 dynamic_batching { priority_levels: 2 }", "default_priority_level 0"),
            ("max_batch_size: 4 instance_group { kind: KIND_GPU }", "KIND_GPU"),
            ("default_model_filename: '../x'", "is no file"),
            ("max_batch: 4", "unknown field"),
        ] {
            let error = read_as("m", text).expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
