//! `slipway kubeconfig`: the cluster's own kubeconfig, as YAML or its parts as JSON for clients without kubectl.

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use serde_json::json;
use serde_yaml_ng::Value;

use super::DataFolder;

/// Prints the cluster's kubeconfig.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kubectl --kubeconfig <(slipway kubeconfig) get pods -A")]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// `yaml`: the file; `json`: {server, ca, certificate, key} as PEM texts.
    #[arg(short, long, value_enum, default_value_t = Form::Yaml)]
    output: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

/// Prints it.
pub fn run(args: &Args) -> Result<()> {
    let file = args.data.folder()?.kubeconfig();
    let Ok(text) = std::fs::read_to_string(&file) else {
        bail!("no {}; `slipway up` writes it", file.display());
    };
    match args.output {
        Form::Yaml => print!("{text}"),
        Form::Json => {
            let config: Value = serde_yaml_ng::from_str(&text)?;
            let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
            println!(
                "{}",
                json!({
                    "server": cluster["server"].as_str(),
                    "ca": pem(&cluster["certificate-authority-data"])?,
                    "certificate": pem(&user["client-certificate-data"])?,
                    "key": pem(&user["client-key-data"])?,
                })
            );
        }
    }
    Ok(())
}

fn pem(value: &Value) -> Result<String> {
    let encoded = value.as_str().context("the kubeconfig has no embedded certificates")?;
    Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
}
