//! `slipway images`: what image names mean on this machine, beside what the node knows itself.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use node::images::store::{self, Copy, Entry, From};

use super::DataFolder;

/// Images that pods can use.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gives an image name a meaning.
    #[command(
        after_help = "Examples:\n  slipway images add python:3.9-slim --from host --copy ./train.py:/app/train.py --path-prepend ~/venv/bin\n  slipway images add my-server:v1 --from /srv/roots/my-server --entrypoint /app/server"
    )]
    Add(Box<Add>),
    /// Lists the names that were given a meaning.
    List(List),
    /// Takes a name's meaning away.
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    data: DataFolder,
    /// The image's name; a `*` at the end matches any rest.
    name: String,
    /// `host` (this machine's system folders) or a folder with a root file system.
    #[arg(long)]
    from: String,
    /// Copies a file or folder into each container (repeatable).
    #[arg(long, value_name = "SRC:DEST")]
    copy: Vec<String>,
    /// A variable (repeatable).
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// A folder in front of PATH, visible inside with the Python it belongs to (repeatable).
    #[arg(long, value_name = "DIR")]
    path_prepend: Vec<PathBuf>,
    /// Working folder.
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it: uid, uid:gid or a name.
    #[arg(long)]
    user: Option<String>,
    /// What runs when a container names no command; words are split at spaces.
    #[arg(long, value_name = "CMD")]
    entrypoint: Option<String>,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    data: DataFolder,
}

#[derive(Debug, clap::Args)]
struct Remove {
    #[command(flatten)]
    data: DataFolder,
    /// The name as it was added.
    name: String,
}

/// Runs the subcommand. A running server sees the change at the next pod.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Add(args) => {
            let folder = args.data.folder()?;
            folder.make()?;
            Ok(store::add(folder.path(), entry(args)?)?)
        }
        Command::List(args) => {
            for entry in store::list(args.data.folder()?.path()) {
                println!("{:<32} {}", entry.name, meaning(&entry));
            }
            Ok(())
        }
        Command::Remove(args) => {
            if !store::remove(args.data.folder()?.path(), &args.name)? {
                bail!("no image {:?} was added; `slipway images list` shows those that were", args.name);
            }
            Ok(())
        }
    }
}

fn entry(args: &Add) -> Result<Entry> {
    let from = if args.from == "host" {
        From::Host
    } else {
        let folder = std::path::absolute(&args.from)?;
        if !folder.is_dir() {
            bail!("--from {}: `host` or a folder with a root file system was expected", args.from);
        }
        From::Folder(folder)
    };
    let pairs = args.env.iter().map(|pair| {
        let (key, value) = pair.split_once('=').with_context(|| format!("--env {pair}: K=V was expected"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    let copies = args.copy.iter().map(|pair| {
        let (src, dest) =
            pair.rsplit_once(':').with_context(|| format!("--copy {pair}: SRC:DEST was expected"))?;
        Ok(Copy { src: std::path::absolute(src)?, dest: dest.to_owned() })
    });
    let prepend =
        args.path_prepend.iter().map(|path| Ok(std::path::absolute(path)?.to_string_lossy().into_owned()));
    Ok(Entry {
        name: args.name.clone(),
        from,
        copy: copies.collect::<Result<_>>()?,
        env: pairs.collect::<Result<_>>()?,
        path_prepend: prepend.collect::<Result<_>>()?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        entrypoint: args.entrypoint.as_ref().map(|line| line.split_whitespace().map(str::to_owned).collect()),
    })
}

fn meaning(entry: &Entry) -> String {
    let from = match &entry.from {
        From::Host => "this machine's system folders".to_owned(),
        From::Folder(folder) => folder.display().to_string(),
    };
    let copies = entry.copy.iter().map(|copy| format!(" + {}", copy.dest)).collect::<String>();
    let path = entry.path_prepend.iter().map(|path| format!(" + PATH {path}")).collect::<String>();
    format!("{from}{copies}{path}")
}
