//! Other programs' names: what the first argument is called decides what runs.
//!
//! * `kfp`: `kfp submit …` (the article's command) is ours, everything else goes to the real `kfp` on the path.
//! * `tensorflow_model_server`: the model server with that program's flags.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Turns a call under another name into one of ours, or hands it on.
pub fn translate(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or(OsStr::new("slipway"));
    match name.to_str() {
        Some("kfp") => {
            let mut ours: Vec<OsString> = vec!["slipway".into(), "kfp".into()];
            ours.extend(arguments.into_iter().skip(1));
            ours
        }
        Some(name @ "tensorflow_model_server") => {
            let mut ours: Vec<OsString> = vec!["slipway".into(), name.into()];
            ours.extend(arguments.into_iter().skip(1));
            ours
        }
        _ => arguments,
    }
}

/// Becomes the real program of that name: the first on the path that is not this binary.
pub fn become_real(name: &str, arguments: &[OsString]) -> anyhow::Result<()> {
    let own = std::env::current_exe()?.canonicalize()?;
    let Some(program) = find_other(name, &own) else {
        anyhow::bail!(
            "`{name} {}` is the real {name}'s command, and no {name} is on the path; install it with `pip install {name}`",
            arguments.first().map(|first| first.to_string_lossy()).unwrap_or_default()
        );
    };
    Err(Command::new(program).args(arguments).exec().into())
}

fn find_other(name: &str, own: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.canonicalize().is_ok_and(|real| real != own && real.is_file()))
}
