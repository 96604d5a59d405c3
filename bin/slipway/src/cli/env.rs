//! `slipway env`: exports for the shell, so that every client finds the cluster.

use anyhow::{Result, bail};

use super::DataFolder;

/// Prints shell exports: KUBECONFIG, MLFLOW_TRACKING_URI, KF_PIPELINES_ENDPOINT.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eval \"$(slipway env)\"")]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
}

/// Prints one `export` a line, quoted for a POSIX shell.
pub fn run(args: &Args) -> Result<()> {
    let folder = args.data.folder()?;
    let Some(state) = folder.running() else {
        bail!(
            "no server runs on {0}; start one with `slipway up --detach --data {0}`",
            folder.path().display()
        );
    };
    println!("export KUBECONFIG={}", quoted(&folder.kubeconfig().to_string_lossy()));
    for (variable, part) in [("MLFLOW_TRACKING_URI", "mlflow"), ("KF_PIPELINES_ENDPOINT", "pipelines")] {
        if let Some(address) = state.addresses.get(part) {
            println!("export {variable}={}", quoted(address));
        }
    }
    println!("export SLIPWAY_DATA={}", quoted(&folder.path().to_string_lossy()));
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_quote_in_a_path_cannot_end_the_word() {
        assert_eq!(super::quoted("/a'; rm -rf /"), r"'/a'\''; rm -rf /'");
    }
}
