//! How graphs are run: what the operator may say.

use crate::error::Error;

/// How much a graph is rewritten at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Not at all.
    None,
    /// What changes no result.
    Basic,
    /// And fusions for the chosen providers.
    Extended,
    /// And the layout of memory.
    #[default]
    All,
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "basic" => Self::Basic,
            "extended" => Self::Extended,
            "all" => Self::All,
            other => return Err(format!("{other:?} is none of none, basic, extended, all")),
        })
    }
}

/// What computes nodes, with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The library's name for it: `CUDAExecutionProvider`.
    pub name: String,
    /// Its settings: `device_id` and so on.
    pub settings: Vec<(String, String)>,
}

/// The options of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Providers, the preferred first; the CPU is always behind them.
    pub providers: Vec<Provider>,
    /// Threads for one node; 0 is the library's choice, one for each core.
    pub intra_op_threads: u32,
    /// Threads for nodes beside each other, where `parallel`; 0 is the library's choice.
    pub inter_op_threads: u32,
    /// Nodes that do not depend on each other run at once.
    pub parallel: bool,
    /// How much the graph is rewritten.
    pub level: Level,
}

impl Options {
    /// Reads a list of providers: `CUDAExecutionProvider:device_id=0;gpu_mem_limit=1000,CPUExecutionProvider`.
    pub fn providers(text: &str) -> Result<Vec<Provider>, Error> {
        let wrong = |what: &str| Error::Option(format!("execution providers {text:?}: {what}"));
        let mut all: Vec<Provider> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, settings) = part.split_once(':').unwrap_or((part, ""));
            let pair = |setting: &str| {
                let (key, value) = setting.split_once('=').filter(|(key, _)| !key.trim().is_empty())?;
                Some((key.trim().to_owned(), value.trim().to_owned()))
            };
            let settings = settings.split(';').filter(|setting| !setting.trim().is_empty());
            let settings = settings.map(pair).collect::<Option<Vec<_>>>();
            let settings = settings.ok_or_else(|| wrong("settings are written key=value;key=value"))?;
            if all.iter().any(|known| known.name == name) {
                return Err(wrong(&format!("{name} is there twice")));
            }
            all.push(Provider { name: name.to_owned(), settings });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_read_with_their_settings() {
        let provider = |name: &str, settings: &[(&str, &str)]| Provider {
            name: name.into(),
            settings: settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        };
        type Case<'a> = (&'a str, Option<Vec<Provider>>);
        let cases: [Case<'_>; 6] = [
            ("", Some(vec![])),
            ("CPUExecutionProvider", Some(vec![provider("CPUExecutionProvider", &[])])),
            (
                "CUDAExecutionProvider:device_id=1; gpu_mem_limit = 5 , CPUExecutionProvider",
                Some(vec![
                    provider("CUDAExecutionProvider", &[("device_id", "1"), ("gpu_mem_limit", "5")]),
                    provider("CPUExecutionProvider", &[]),
                ]),
            ),
            ("A,A", None),
            ("A:device_id", None),
            ("A:=1", None),
        ];
        for (text, want) in cases {
            assert_eq!(Options::providers(text).ok(), want, "{text}");
        }
    }
}
