//! From a pod's container and its image to what the shim is told.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use pod_protocol::shim::{ContainerSpec, Mount, User, VERSION};

use super::env::expand;
use crate::images::Image;
use crate::volumes::Source;

/// Capabilities that containers keep when nothing is said: the usual ones of container runtimes, less those that are
/// of no use without a right over devices (`MKNOD`) or the kernel's log (`AUDIT_WRITE`).
const KEPT: [&str; 12] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "SETFCAP",
];
/// Numbers of capabilities by name, from `linux/capability.h`.
const CAPABILITIES: [(&str, u8); 24] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("DAC_READ_SEARCH", 2),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("LINUX_IMMUTABLE", 9),
    ("NET_BIND_SERVICE", 10),
    ("NET_BROADCAST", 11),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("IPC_LOCK", 14),
    ("IPC_OWNER", 15),
    ("SYS_CHROOT", 18),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("SYS_NICE", 23),
    ("SYS_RESOURCE", 24),
    ("MKNOD", 27),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];
/// The log of one attempt is rotated above this; one older part is kept.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// Where the pieces of a container come from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Its attempt.
    pub attempt: u32,
    /// Its image.
    pub image: Image,
    /// Its own variables.
    pub env: Vec<(String, String)>,
    /// The pod's volumes.
    pub volumes: &'a BTreeMap<String, Source>,
    /// The pod's host name.
    pub hostname: String,
    /// The pod's generated `hosts`, `hostname` and `resolv.conf`.
    pub etc: &'a Path,
    /// The file for the termination message.
    pub termination_log: &'a Path,
    /// Cgroups to run in.
    pub cgroups: Vec<String>,
    /// How apt it is to be killed for memory.
    pub oom_score_adj: i32,
}

/// The spec of one attempt. The error is a `CreateContainerConfigError`.
pub fn build(parts: Parts<'_>) -> Result<ContainerSpec, String> {
    let container = parts.container;
    let lookup = |name: &str| {
        let found = parts.env.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let expanded =
        |list: &[String]| -> Vec<String> { list.iter().map(|text| expand(text, lookup)).collect() };
    let command = container.command.clone().unwrap_or_default();
    let args = container.args.clone().unwrap_or_default();
    // A command replaces the image's arguments as well.
    let argv = match (command.is_empty(), args.is_empty()) {
        (false, _) => [expanded(&command), expanded(&args)].concat(),
        (true, false) => [parts.image.entrypoint.clone(), expanded(&args)].concat(),
        (true, true) => [parts.image.entrypoint.clone(), parts.image.args.clone()].concat(),
    };
    if argv.is_empty() {
        return Err("no command specified".into());
    }
    let user = user(&parts)?;
    let home = if user.uid == 0 { "/root" } else { "/" };
    let env = merge(parts.image.env.clone(), parts.env.clone(), &parts.hostname, home);
    let security = container.security_context.as_ref();
    if security.and_then(|security| security.privileged) == Some(true) {
        return Err("privileged containers are not allowed on this node".into());
    }
    let workdir =
        container.working_dir.clone().filter(|dir| !dir.is_empty()).unwrap_or(parts.image.workdir.clone());
    Ok(ContainerSpec {
        version: VERSION,
        name: container.name.clone(),
        attempt: parts.attempt,
        argv,
        env,
        workdir,
        hostname: parts.hostname.clone(),
        user,
        mounts: mounts(&parts, lookup)?,
        root: parts.image.root,
        read_only_root: security.and_then(|security| security.read_only_root_filesystem) == Some(true),
        capabilities: capabilities(container),
        stdin: container.stdin == Some(true),
        tty: container.tty == Some(true),
        oom_score_adj: Some(parts.oom_score_adj),
        cgroups: parts.cgroups,
        rlimits: Vec::new(),
        log_bytes_max: LOG_BYTES_MAX,
    })
}

fn merge(
    image: Vec<(String, String)>,
    own: Vec<(String, String)>,
    hostname: &str,
    home: &str,
) -> Vec<(String, String)> {
    let mut env = vec![("HOSTNAME".to_owned(), hostname.to_owned()), ("HOME".to_owned(), home.to_owned())];
    for (name, value) in image.into_iter().chain(own) {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    env
}

fn user(parts: &Parts<'_>) -> Result<User, String> {
    let of_pod = parts.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = parts.container.security_context.as_ref();
    let (mut uid, mut gid) = image_user(&parts.image.user)?;
    let wanted = own.and_then(|own| own.run_as_user).or(of_pod.and_then(|of_pod| of_pod.run_as_user));
    let wanted_group = own.and_then(|own| own.run_as_group).or(of_pod.and_then(|of_pod| of_pod.run_as_group));
    uid = wanted.map_or(uid, |wanted| wanted as u32);
    gid = wanted_group.map_or(gid, |wanted| wanted as u32);
    let not_root =
        own.and_then(|own| own.run_as_non_root).or(of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    if not_root == Some(true) && uid == 0 {
        let because = if wanted.is_some() {
            "container's runAsUser breaks non-root policy"
        } else {
            "container has runAsNonRoot and image will run as root"
        };
        let name = parts.pod.metadata.name.as_deref().unwrap_or("");
        return Err(format!("{because} (pod: \"{name}\", container: {})", parts.container.name));
    }
    let mut groups: Vec<u32> = Vec::new();
    if let Some(of_pod) = of_pod {
        groups.extend(of_pod.supplemental_groups.iter().flatten().map(|group| *group as u32));
        groups.extend(of_pod.fs_group.map(|group| group as u32));
    }
    Ok(User { uid, gid, groups })
}

fn image_user(user: &str) -> Result<(u32, u32), String> {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    let id = |text: &str| match text {
        "" | "root" => Ok(0),
        "nobody" | "nogroup" => Ok(65_534),
        other => other.parse::<u32>().map_err(|_| format!("the image's user \"{user}\" has no number")),
    };
    let uid = id(name)?;
    Ok((uid, if group.is_empty() && name == "nobody" { 65_534 } else { id(group)? }))
}

fn capabilities(container: &Container) -> Vec<u8> {
    let asked = container.security_context.as_ref().and_then(|security| security.capabilities.as_ref());
    let empty = Vec::new();
    let drop = asked.and_then(|asked| asked.drop.as_ref()).unwrap_or(&empty);
    let add = asked.and_then(|asked| asked.add.as_ref()).unwrap_or(&empty);
    let has = |list: &[String], name: &str| {
        list.iter().any(|entry| entry == "ALL" || entry.trim_start_matches("CAP_") == name)
    };
    let kept = |name: &str| has(add, name) || (KEPT.contains(&name) && !has(drop, name));
    CAPABILITIES.iter().filter(|(name, _)| kept(name)).map(|(_, number)| *number).collect()
}

fn mounts(parts: &Parts<'_>, lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for name in ["hosts", "hostname", "resolv.conf"] {
        mounts.push(Mount {
            name: name.into(),
            source: Some(parts.etc.join(name).to_string_lossy().into_owned()),
            target: format!("/etc/{name}"),
            ..Mount::default()
        });
    }
    for mount in parts.container.volume_mounts.iter().flatten() {
        let source = parts.volumes.get(&mount.name);
        let source = source.ok_or_else(|| format!("volume \"{}\" is not declared by the pod", mount.name))?;
        let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, &lookup)),
            (_, plain) => plain.clone(),
        };
        let target = if mount.mount_path.starts_with('/') {
            mount.mount_path.clone()
        } else {
            format!("/{}", mount.mount_path)
        };
        mounts.push(Mount {
            name: mount.name.clone(),
            source: Some(source.path.to_string_lossy().into_owned()),
            sub_path: sub_path.filter(|path| !path.is_empty()),
            target,
            read_only: source.read_only || mount.read_only == Some(true),
            size_bytes: 0,
        });
    }
    // Parents before what is mounted in them.
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    let path = parts.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push(Mount {
        name: "termination-log".into(),
        source: Some(parts.termination_log.to_string_lossy().into_owned()),
        target: path.to_owned(),
        ..Mount::default()
    });
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(container: &str, want: &str) {
        let pod: Pod = serde_json::from_str(r#"{"metadata":{"name":"p"},"spec":{"containers":[]}}"#).unwrap();
        let container: Container = serde_json::from_str(container).unwrap();
        let image = Image { entrypoint: vec!["entry".into()], args: vec!["cmd".into()], ..Image::default() };
        let built = build(Parts {
            pod: &pod,
            container: &container,
            attempt: 0,
            image,
            env: vec![("A".into(), "1".into())],
            volumes: &BTreeMap::from([("v".into(), Source { path: "/host/v".into(), read_only: false })]),
            hostname: "p".into(),
            etc: Path::new("/etc-of-pod"),
            termination_log: Path::new("/t"),
            cgroups: Vec::new(),
            oom_score_adj: 1000,
        });
        let got = match built {
            Err(message) => message,
            Ok(spec) => {
                let targets = spec.mounts.iter().map(|mount| mount.target.as_str());
                let mounts: Vec<&str> = targets.filter(|target| !target.starts_with("/etc/")).collect();
                format!("{} {}:{} {}", spec.argv.join(" "), spec.user.uid, spec.user.gid, mounts.join(" "))
            }
        };
        assert_eq!(got, want);
    }

    #[test]
    fn command_and_args_replace_the_images() {
        check(r#"{"name":"c"}"#, "entry cmd 0:0 /dev/termination-log");
        check(r#"{"name":"c","args":["x$(A)"]}"#, "entry x1 0:0 /dev/termination-log");
        check(r#"{"name":"c","command":["y"]}"#, "y 0:0 /dev/termination-log");
        check(
            r#"{"name":"c","command":["y"],"volumeMounts":[{"name":"v","mountPath":"/a/b"},{"name":"v","mountPath":"/a"}]}"#,
            "y 0:0 /a /a/b /dev/termination-log",
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        check(
            r#"{"name":"c","securityContext":{"runAsNonRoot":true}}"#,
            "container has runAsNonRoot and image will run as root (pod: \"p\", container: c)",
        );
        check(
            r#"{"name":"c","securityContext":{"privileged":true}}"#,
            "privileged containers are not allowed on this node",
        );
        check(
            r#"{"name":"c","volumeMounts":[{"name":"w","mountPath":"/a"}]}"#,
            "volume \"w\" is not declared by the pod",
        );
    }
}
