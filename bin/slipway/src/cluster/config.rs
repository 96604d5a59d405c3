//! From raw options to a checked configuration, before any port is opened.
//!
//! Options come from flags and, below them, from a file (`--config FILE`, YAML, unknown keys refused).

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use node::images::store::Entry as Image;

use super::folder::Folder;

/// What a user may say; all optional.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// A YAML file with these options (camelCase) and `images`; flags win over it.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Do not add a context to the user's kubeconfig.
    #[arg(long)]
    pub no_merge: bool,
    /// Start pods also where their requests exceed the machine.
    #[arg(long)]
    pub overcommit: bool,
    /// Refuse pods whose image cannot be had, instead of standing in the host's system folders.
    #[arg(long)]
    pub strict_images: bool,
    /// How pods are connected.
    #[arg(long, value_enum)]
    pub network: Option<NetworkKind>,
    /// Host folders that pods may mount by hostPath (repeatable).
    #[arg(long, value_name = "DIR")]
    pub allow_host_path: Vec<PathBuf>,
    /// SQL database of registry and pipelines [default: SQLite in the data folder].
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Port of the Kubernetes API [default: 7443, or a free one when taken; 0: any].
    #[arg(long, value_name = "PORT")]
    pub kubernetes_port: Option<u16>,
    /// Port of the pipelines API [default: 7888].
    #[arg(long, value_name = "PORT")]
    pub pipelines_port: Option<u16>,
    /// Port of the MLflow API [default: 7500].
    #[arg(long, value_name = "PORT")]
    pub mlflow_port: Option<u16>,
    /// Port of the serving gateway [default: 7080].
    #[arg(long, value_name = "PORT")]
    pub gateway_port: Option<u16>,
    /// Port of the artifact store [default: 7889].
    #[arg(long, value_name = "PORT")]
    pub artifacts_port: Option<u16>,
    /// Images that pods can use, as `slipway images add` makes them.
    #[arg(skip)]
    pub images: Vec<Image>,
}

/// How pods are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// Pods share the host's network; each has an address in 127.0.0.0/8.
    Loopback,
    /// A network namespace a pod (root).
    Bridge,
}

/// Checked: everything below uses this only.
#[derive(Debug)]
pub struct Config {
    /// See [`Options::no_merge`].
    pub merge_kubeconfig: bool,
    /// See [`Options::overcommit`].
    pub overcommit: bool,
    /// See [`Options::strict_images`].
    pub strict_images: bool,
    /// How pods are connected.
    pub network: NetworkKind,
    /// Host folders that pods may mount.
    pub host_paths: Vec<PathBuf>,
    /// SQL database of registry and pipelines.
    pub database_url: String,
    /// Ports by part.
    pub ports: Ports,
    /// Image entries of the configuration file.
    pub images: Vec<Image>,
}

/// Where each part listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The Kubernetes API.
    pub kubernetes: Port,
    /// The pipelines API.
    pub pipelines: Port,
    /// The MLflow API.
    pub mlflow: Port,
    /// The serving gateway.
    pub gateway: Port,
    /// The artifact store.
    pub artifacts: Port,
}

/// A port: what the user asked for must be had; a default may give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Exactly this one; 0 is any.
    Asked(u16),
    /// This one, or any when it is taken (a second cluster).
    Default(u16),
    /// The one that the last server of this folder had, so that pods which still run find it again; then `Default`.
    Again(u16, u16),
}

impl Port {
    fn from(asked: Option<u16>, default: u16, last: Option<u16>) -> Self {
        match (asked, last) {
            (Some(port @ 1..), _) => Self::Asked(port),
            (Some(0), None) => Self::Asked(0),
            (Some(0), Some(last)) => Self::Again(last, 0),
            (None, Some(last)) => Self::Again(last, default),
            (None, None) => Self::Default(default),
        }
    }

    /// Listens on loopback.
    pub fn listen(self, part: &str) -> Result<TcpListener> {
        let bind = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let listener = match self {
            Self::Asked(port) => bind(port)
                .with_context(|| format!("cannot listen on 127.0.0.1:{port} (--{part}-port; 0 takes any)"))?,
            Self::Default(port) => bind(port).or_else(|_| bind(0))?,
            Self::Again(last, default) => bind(last).or_else(|_| bind(default)).or_else(|_| bind(0))?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Config {
    /// Merges the file below the flags and checks the whole.
    pub fn checked(folder: &Folder, flags: Options) -> Result<Self> {
        let file = match &flags.config {
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                serde_yaml_ng::from_str(&text).with_context(|| format!("{}", path.display()))?
            }
            None => Options::default(),
        };
        let mut host_paths = flags.allow_host_path;
        host_paths.extend(file.allow_host_path);
        for path in &host_paths {
            if !path.is_absolute() {
                bail!("--allow-host-path {}: an absolute path was expected", path.display());
            }
        }
        let sqlite = format!("sqlite://{}", folder.path().join("platform.db").display());
        let database_url = flags.database_url.or(file.database_url).unwrap_or(sqlite);
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| database_url.starts_with(scheme)) {
            bail!("--database-url {database_url}: sqlite://PATH or postgres://USER@HOST/NAME was expected");
        }
        // The record stays when a server is killed; `down` removes it with the last pod.
        let last = folder.state().map(|state| state.addresses).unwrap_or_default();
        let last = |part: &str| last.get(part)?.rsplit_once(':')?.1.parse().ok();
        let ports = Ports {
            kubernetes: Port::from(flags.kubernetes_port.or(file.kubernetes_port), 7443, last("kubernetes")),
            pipelines: Port::from(flags.pipelines_port.or(file.pipelines_port), 7888, last("pipelines")),
            mlflow: Port::from(flags.mlflow_port.or(file.mlflow_port), 7500, last("mlflow")),
            gateway: Port::from(flags.gateway_port.or(file.gateway_port), 7080, last("gateway")),
            artifacts: Port::from(flags.artifacts_port.or(file.artifacts_port), 7889, last("artifacts")),
        };
        Ok(Self {
            merge_kubeconfig: !(flags.no_merge || file.no_merge),
            overcommit: flags.overcommit || file.overcommit,
            strict_images: flags.strict_images || file.strict_images,
            network: flags.network.or(file.network).unwrap_or(NetworkKind::Loopback),
            host_paths,
            database_url,
            ports,
            images: file.images,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(options: Options) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        Config::checked(&Folder::resolve(Some(dir.path())).unwrap(), options)
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("slipway.yaml");
        fs::write(&file, "mlflowPort: 1\ngatewayPort: 2\novercommit: true\n").unwrap();
        let options = Options { config: Some(file.clone()), mlflow_port: Some(9), ..Options::default() };
        let config = checked(options).unwrap();
        assert_eq!(config.ports.mlflow, Port::Asked(9));
        assert_eq!(config.ports.gateway, Port::Asked(2));
        assert_eq!(config.ports.pipelines, Port::Default(7888));
        assert!(config.overcommit);
        fs::write(&file, "overcomit: true\n").unwrap();
        let refused = checked(Options { config: Some(file), ..Options::default() }).unwrap_err();
        assert!(format!("{refused:#}").contains("overcomit"), "{refused:#}");
    }

    #[test]
    fn a_taken_default_gives_way_and_a_taken_wish_does_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(Port::Default(port).listen("mlflow").is_ok());
        let refused = format!("{:#}", Port::Asked(port).listen("mlflow").unwrap_err());
        assert!(refused.contains("--mlflow-port"), "{refused}");
    }

    #[test]
    fn a_port_of_the_last_server_is_taken_again_while_pods_may_still_use_it() {
        let cases = [
            (Some(5), Some(9), Port::Asked(5)),
            (Some(0), Some(9), Port::Again(9, 0)),
            (None, Some(9), Port::Again(9, 7500)),
            (Some(0), None, Port::Asked(0)),
            (None, None, Port::Default(7500)),
        ];
        for (asked, last, want) in cases {
            assert_eq!(Port::from(asked, 7500, last), want);
        }
    }

    #[test]
    fn a_database_of_another_kind_is_refused() {
        let refused =
            checked(Options { database_url: Some("mysql://x".into()), ..Options::default() }).unwrap_err();
        assert!(refused.to_string().contains("sqlite://PATH or postgres://"));
    }
}
