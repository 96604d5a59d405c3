//! `slipway predict`: asks a served model over the V1 protocol, through its Service.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use super::{DataFolder, block_on, connect};

/// Asks a served model.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slipway predict iris 5.1,3.5,1.4,0.2\n  slipway predict iris '5.1,3.5,1.4,0.2;6.7,3.0,5.2,2.3'\n  slipway predict iris '[[5.1,3.5,1.4,0.2]]'\n  slipway predict iris @rows.json\n  slipway predict iris --example"
)]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// Name of the InferenceService.
    name: String,
    /// Rows: numbers with commas (rows with semicolons), JSON, or @FILE with JSON.
    #[arg(required_unless_present_any = ["example", "url"], conflicts_with = "example")]
    rows: Option<String>,
    /// Send one row of zeros as wide as the model asks, and show the request.
    #[arg(long)]
    example: bool,
    /// Only print the URL of its Service.
    #[arg(long)]
    url: bool,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// Sends the rows, prints the answer.
pub fn run(args: Args) -> Result<()> {
    let given = args.rows.as_deref().map(instances).transpose()?;
    block_on(async {
        let base = address(&args).await?;
        if args.url {
            println!("{base}");
            return Ok(());
        }
        let http = reqwest::Client::new();
        let instances = match given {
            Some(rows) => rows,
            None => example_row(&http, &base, &args.name).await?,
        };
        let url = format!("{base}/v1/models/{}:predict", args.name);
        let body = json!({ "instances": instances });
        if args.example {
            println!("curl {url} -H 'Content-Type: application/json' -d '{body}'");
        }
        let answer =
            http.post(&url).json(&body).send().await.with_context(|| format!("cannot reach {url}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{} answered {status}: {text}", args.name);
        }
        println!("{text}");
        Ok(())
    })
}

/// `1,2;3,4`, JSON, or `@FILE`.
fn instances(rows: &str) -> Result<Value> {
    if let Some(path) = rows.strip_prefix('@') {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        return instances(text.trim());
    }
    if rows.trim_start().starts_with(['[', '{']) {
        let value: Value = serde_json::from_str(rows).context("rows are no JSON")?;
        return Ok(value.get("instances").cloned().unwrap_or(value));
    }
    let row = |text: &str| text.split(',').map(|cell| number(cell.trim())).collect::<Result<Vec<f64>>>();
    let parsed: Vec<Vec<f64>> = rows.split(';').map(row).collect::<Result<_>>()?;
    Ok(json!(parsed))
}

fn number(cell: &str) -> Result<f64> {
    cell.parse()
        .with_context(|| format!("{cell:?} is no number; rows look like 5.1,3.5,1.4,0.2 or [[5.1, …]]"))
}

/// Base URL of the InferenceService's Service, as reached from this machine.
async fn address(args: &Args) -> Result<String> {
    let cluster = connect::cluster(&args.data).await?;
    let services = cluster.inference_services(&args.namespace);
    let Some(_) = services.get_opt(&args.name).await? else {
        bail!(
            "no InferenceService {:?} in namespace {:?}; `slipway deploy {0} MODEL_URI` makes one",
            args.name,
            args.namespace
        );
    };
    let service = Api::<Service>::namespaced(cluster.client.clone(), &args.namespace).get(&args.name).await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).filter(|ip| ip != "None");
    let ip = ip.with_context(|| format!("Service {:?} has no cluster IP", args.name))?;
    Ok(format!("http://{ip}:8080"))
}

async fn example_row(http: &reqwest::Client, base: &str, name: &str) -> Result<Value> {
    let url = format!("{base}/v2/models/{name}");
    let metadata: Value = http.get(&url).send().await?.error_for_status()?.json().await?;
    let width = metadata["inputs"][0]["shape"].as_array().and_then(|shape| shape.last()?.as_u64());
    let width = width.filter(|width| *width > 0).with_context(|| {
        format!("the model does not say how wide its rows are ({url}: {metadata}); give a row yourself")
    })?;
    Ok(json!([vec![0.0; usize::try_from(width)?]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_as_numbers_or_as_json() {
        assert_eq!(instances("1,2.5; 3,4").unwrap(), json!([[1.0, 2.5], [3.0, 4.0]]));
        assert_eq!(instances("[[1,2]]").unwrap(), json!([[1, 2]]));
        assert_eq!(instances(r#"{"instances":[[1]]}"#).unwrap(), json!([[1]]));
        assert!(instances("1,x").unwrap_err().to_string().contains("\"x\" is no number"));
    }
}
