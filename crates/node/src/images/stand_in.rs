//! The stand-in root: an allow-list of the host's system folders, read-only.
//!
//! Only what is named here is ever visible: no home folders, no data folder, no `/etc/shadow`, no private keys (of
//! `/etc/ssl` only the certificates). `/usr` is bound folder by folder, so that the root can hold files of its own
//! below it.

use std::path::Path;

use pod_protocol::shim::Entry;

/// Of the root folder: bound, or copied as the links they often are.
const SYSTEM: [&str; 7] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr"];
/// Of `/etc`: what programs need to find libraries, certificates, time zones and names of services.
const ETC: [&str; 22] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
];
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

/// Whether `/usr/local` of the host is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// It is: the host's own installations are what stands in.
    Shown,
    /// It is not: the platform's own binary goes there.
    Hidden,
}

/// The system folders and the generated files.
pub fn system(local: Local) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(64);
    for path in SYSTEM {
        if path == "/usr" { push_usr(&mut entries, local) } else { push(&mut entries, path) }
    }
    for path in ETC {
        push(&mut entries, path);
    }
    let folders =
        [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755), ("/root", 0o700), ("/home", 0o755)];
    entries.extend(folders.map(|(target, mode)| Entry::Folder { target: target.into(), mode }));
    entries.push(Entry::Link { text: "../run".into(), target: "/var/run".into() });
    for (target, text) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP)] {
        entries.push(Entry::File { target: target.into(), text: text.into(), mode: 0o644 });
    }
    entries
}

fn push_usr(entries: &mut Vec<Entry>, local: Local) {
    let Ok(items) = std::fs::read_dir("/usr") else {
        return;
    };
    let mut names: Vec<_> = items.flatten().filter_map(|item| item.file_name().into_string().ok()).collect();
    names.sort_unstable();
    for name in names {
        if name == "local" && local == Local::Hidden {
            entries.push(Entry::Folder { target: "/usr/local/bin".into(), mode: 0o755 });
        } else {
            push(entries, &format!("/usr/{name}"));
        }
    }
}

/// A link as a link, all else as a bind; nothing when it is not there.
fn push(entries: &mut Vec<Entry>, path: &str) {
    let Ok(data) = std::fs::symlink_metadata(path) else {
        return;
    };
    let target = path.to_owned();
    if !data.is_symlink() {
        entries.push(Entry::Bind { source: target.clone(), target });
    } else if let Ok(text) = std::fs::read_link(Path::new(path)) {
        entries.push(Entry::Link { text: text.to_string_lossy().into_owned(), target });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_is_in_the_list() {
        for local in [Local::Shown, Local::Hidden] {
            let text = serde_json::to_string(&system(local)).unwrap();
            for word in ["shadow", "/etc/ssl\"", "ssl/private", "/home/", "/root/", "/proc", "/sys"] {
                assert!(!text.contains(word), "{word}");
            }
        }
    }
}
