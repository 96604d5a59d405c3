//! The entry point of the image `kserve/storage-initializer`: fetches SRC into DEST.

use std::path::PathBuf;

use anyhow::{Context, Result};
use objects::fetch::{Endpoints, storage_initializer};

use super::block_on;

/// Fetches a model to a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the model is.
    source: String,
    /// The folder to put it into.
    destination: PathBuf,
}

/// Fetches; a failure is also the container's termination message, which the InferenceService shows.
pub fn run(args: Args) -> Result<()> {
    let done = block_on(async {
        let fetched = storage_initializer(&args.source, &args.destination, &Endpoints::from_env()).await;
        fetched.with_context(|| format!("cannot fetch {}", args.source))
    });
    match done {
        Ok(fetched) => {
            println!("{} files, {} bytes from {}", fetched.files, fetched.bytes, fetched.source);
            Ok(())
        }
        Err(error) => {
            // Outside a pod there is no such file, and the error is printed anyway.
            let _ = std::fs::write("/dev/termination-log", format!("{error:#}"));
            Err(error)
        }
    }
}
