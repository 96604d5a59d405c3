//! Whether a version's files are those that were meant.
//!
//! A digest comes with the configuration (a flag, `config.pbtxt`, `model-settings.json`: the one of the model's file)
//! or lies beside the file in `slipway-model.json`, as a text for the model's file or as an object of file names and
//! digests. It is held against the very bytes that are then read as a model, before anything in them is believed.
//!
//! Triton's checksum agent announces MD5s of files by their paths in the model's folder, which holds all versions: a
//! version answers for its own files and for those beside the versions.
//!
//! Not here: signatures; whoever can write the folder can write the document in it, but not the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use md5::Md5;
use md5::digest::Digest as _;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The document in a version's folder.
const DOCUMENT: &str = "slipway-model.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    sha256: Option<Wanted>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Wanted {
    Model(String),
    Files(BTreeMap<String, String>),
}

/// The digests that were announced.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Digests {
    /// Of the model's file, each with who says so.
    model: Vec<(&'static str, String)>,
    /// Of all files, by path in the folder.
    files: Option<BTreeMap<String, String>>,
    /// MD5s of files by their whole paths, with what they are called there.
    agents: Vec<(PathBuf, String, String)>,
}

impl Digests {
    /// Reads what is announced for the version in `folder`.
    pub(crate) fn announced(folder: &Path, configured: Option<&str>) -> Result<Self, String> {
        let mut digests = Self::default();
        if let Some(sha256) = configured {
            digests.model.push(("the configuration", checked(sha256)?));
        }
        if let Some(text) = super::read(&folder.join(DOCUMENT))? {
            digests.document(&text).map_err(|why| format!("{DOCUMENT}: {why}"))?;
        }
        Ok(digests)
    }

    /// Adds what Triton's checksum agent announces for the files of the version in `folder` and for those beside it.
    pub(crate) fn with_agents(mut self, model: &Path, folder: &Path, md5: &BTreeMap<String, String>) -> Self {
        let number = |text: &str| text.parse::<u64>().ok();
        let own = folder.file_name().and_then(|name| number(&name.to_string_lossy()));
        for (path, md5) in md5 {
            let first = path.split('/').next().and_then(number);
            let is_another_versions = folder != model && first.is_some() && first != own;
            if !is_another_versions {
                self.agents.push((model.join(path), path.clone(), md5.clone()));
            }
        }
        self
    }

    /// `bytes` are those of the model's file, where there is one.
    fn check_agents(&self, file: Option<(&Path, &[u8])>) -> Result<(), String> {
        for (path, name, wanted) in &self.agents {
            let actual = match file {
                Some((own, bytes)) if own == path => hex(&Md5::digest(bytes)),
                _ => md5_of(path)?,
            };
            if actual != *wanted {
                return Err(format!(
                    "the MD5 of {name} is {actual}, the checksum agent of config.pbtxt says {wanted}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn document(&mut self, text: &[u8]) -> Result<(), String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match document.sha256 {
            Some(Wanted::Model(sha256)) => self.model.push((DOCUMENT, checked(&sha256)?)),
            Some(Wanted::Files(files)) => {
                let is_inside =
                    |path: &str| !path.starts_with('/') && path.split('/').all(|part| part != "..");
                if let Some(path) = files.keys().find(|path| !is_inside(path)) {
                    return Err(format!("{path:?} is no file in the folder"));
                }
                let files = files.into_iter().map(|(path, sha256)| Ok((path, checked(&sha256)?)));
                self.files = Some(files.collect::<Result<_, String>>()?);
            }
            None => {}
        }
        Ok(())
    }

    /// Holds the model's file against them, and the other files that were announced.
    pub(crate) fn check(&self, folder: &Path, file: &str, bytes: &[u8]) -> Result<(), String> {
        if *self == Self::default() {
            return Ok(());
        }
        self.check_agents(Some((&folder.join(file), bytes)))?;
        let actual = sha256(bytes);
        for (who, wanted) in &self.model {
            differ(who, file, wanted, &actual)?;
        }
        let Some(files) = &self.files else { return Ok(()) };
        if !files.contains_key(file) {
            return Err(format!("{DOCUMENT} announces no sha256 for the model's file, {file}"));
        }
        for (path, wanted) in files {
            if path == file {
                differ(DOCUMENT, path, wanted, &actual)?;
            } else {
                let other = super::read(&folder.join(path))?;
                let other =
                    other.ok_or_else(|| format!("{path}, which {DOCUMENT} announces, is not there"))?;
                differ(DOCUMENT, path, wanted, &sha256(&other))?;
            }
        }
        Ok(())
    }
}

impl Digests {
    /// The same where no one file is the model: the announced files, of which there must be a list.
    pub(crate) fn check_others(&self, folder: &Path) -> Result<(), String> {
        if let Some((who, _)) = self.model.first() {
            return Err(format!(
                "{who} announces the sha256 of the model's file, and this model is no single file; {DOCUMENT} can announce one for each"
            ));
        }
        for (path, wanted) in self.files.iter().flatten() {
            let bytes = super::read(&folder.join(path))?;
            let bytes = bytes.ok_or_else(|| format!("{path}, which {DOCUMENT} announces, is not there"))?;
            differ(DOCUMENT, path, wanted, &sha256(&bytes))?;
        }
        self.check_agents(None)
    }
}

/// Hexadecimal digits in lower case, without the name of the hash before them.
pub(crate) fn checked(sha256: &str) -> Result<String, String> {
    let digits = sha256.strip_prefix("sha256:").unwrap_or(sha256).to_ascii_lowercase();
    let is_legal = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_legal {
        Ok(digits)
    } else {
        Err(format!("{sha256:?} is no sha256: expected 64 hexadecimal digits"))
    }
}

/// The same for an MD5.
pub(crate) fn checked_md5(md5: &str) -> Result<String, String> {
    let digits = md5.to_ascii_lowercase();
    let is_legal = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_legal { Ok(digits) } else { Err(format!("{md5:?} is no MD5: expected 32 hexadecimal digits")) }
}

fn differ(who: &str, file: &str, wanted: &str, actual: &str) -> Result<(), String> {
    if wanted == actual {
        return Ok(());
    }
    Err(format!("the sha256 of {file} is {actual}, {who} says {wanted}"))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Read in pieces: variables of a SavedModel may be larger than memory should be.
fn md5_of(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hash = Md5::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(count) => hash.update(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `abc`, as the standard prints it.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn only_the_announced_bytes_pass() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("b"), "abc").expect("written");
        let upper = format!("sha256:{}", ABC.to_ascii_uppercase());
        let zeros = "0".repeat(64);
        let files = |own: &str, other: &str| format!(r#"{{"sha256":{{"m":"{own}","b":"{other}"}}}}"#);
        for (configured, document, want) in [
            (None, String::new(), ""),
            (Some(ABC), String::new(), ""),
            (Some(upper.as_str()), format!(r#"{{"sha256":"{ABC}"}}"#), ""),
            (Some(zeros.as_str()), String::new(), "the configuration says 000"),
            (Some("12"), String::new(), "64 hexadecimal digits"),
            (None, format!(r#"{{"sha256":"{zeros}"}}"#), "of m is ba78"),
            (None, files(ABC, ABC), ""),
            (None, files(ABC, &zeros), "of b is ba78"),
            (None, r#"{"sha256":{"other":"00"}}"#.to_owned(), "64 hexadecimal"),
            (None, format!(r#"{{"sha256":{{"b":"{ABC}"}}}}"#), "no sha256 for the model's file, m"),
            (None, format!(r#"{{"sha256":{{"../m":"{ABC}"}}}}"#), "no file in the folder"),
            (None, format!(r#"{{"sha256":{{"m":"{ABC}","gone":"{ABC}"}}}}"#), "gone, which"),
            (None, r#"{"md5":"00"}"#.to_owned(), "unknown field `md5`"),
        ] {
            let path = folder.path().join(DOCUMENT);
            match document.is_empty() {
                true => drop(std::fs::remove_file(&path)),
                false => std::fs::write(&path, &document).expect("written"),
            }
            let digests = Digests::announced(folder.path(), configured);
            let got = digests.and_then(|digests| digests.check(folder.path(), "m", b"abc"));
            match want {
                "" => assert_eq!(got, Ok(()), "{configured:?} {document}"),
                want => {
                    let error = got.expect_err(want);
                    assert!(error.contains(want), "{want}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_checksum_agent_speaks_for_its_version_and_for_what_lies_beside() {
        // Of `abc` and of nothing, as RFC 1321 prints them.
        let (abc, none) = ("900150983cd24fb0d6963f7d28e17f72", "d41d8cd98f00b204e9800998ecf8427e");
        let model = tempfile::tempdir().expect("a folder");
        let folder = model.path().join("2");
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("m"), "abc").expect("written");
        std::fs::write(model.path().join("labels"), "").expect("written");
        for (files, want) in [
            (&[("2/m", abc), ("labels", none), ("1/m", none), ("3/gone", none)][..], ""),
            (&[("2/m", none)], "the MD5 of 2/m is 9001"),
            (&[("002/m", none)], "002/m"),
            (&[("labels", abc)], "the MD5 of labels"),
            (&[("2/gone", abc)], "cannot read"),
        ] {
            let md5 = files.iter().map(|(path, md5)| ((*path).to_owned(), (*md5).to_owned())).collect();
            let digests = Digests::default().with_agents(model.path(), &folder, &md5);
            for got in [digests.check(&folder, "m", b"abc"), digests.check_others(&folder)] {
                match want {
                    "" => assert_eq!(got, Ok(()), "{files:?}"),
                    want => assert!(got.as_ref().is_err_and(|why| why.contains(want)), "{want}: {got:?}"),
                }
            }
        }
        let md5 = [("2/m".to_owned(), abc.to_owned())].into();
        let digests = Digests::default().with_agents(model.path(), &folder, &md5);
        assert!(digests.check(&folder, "m", b"abd").is_err(), "the very bytes that are read");
    }
}
