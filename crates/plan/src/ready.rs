//! When a task may start: a condition over the ends of the tasks before it.

use std::collections::BTreeSet;

use crate::Error;
use crate::model::{Phase, Task};

/// What is asked of one predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Argo's bare name: succeeded, skipped, daemoned, or failed in a way its `continueOn` accepts.
    Fine,
    /// Succeeded.
    Succeeded,
    /// Failed.
    Failed,
    /// Errored.
    Errored,
    /// Skipped.
    Skipped,
    /// Omitted.
    Omitted,
    /// Daemoned (never, so far).
    Daemoned,
    /// A loop of which one item succeeded.
    AnySucceeded,
    /// A loop of which every item failed.
    AllFailed,
    /// Ended, however.
    Finished,
}

/// The condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// All hold; empty: at once.
    All(Vec<Ready>),
    /// One holds.
    Any(Vec<Ready>),
    /// It does not hold.
    Not(Box<Ready>),
    /// The task at this place of the dag passes the test.
    Is(usize, Test),
}

/// The end of a predecessor.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How it ended.
    pub phase: Phase,
    /// One of its items succeeded (or itself).
    pub any_succeeded: bool,
    /// All of its items failed (or itself).
    pub all_failed: bool,
    /// Its failure is accepted.
    pub accepted: bool,
}

impl Ready {
    /// Whether the condition holds, given how each predecessor ended.
    pub fn holds(&self, ended: &dyn Fn(usize) -> Ended) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(ended)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(ended)),
            Self::Not(part) => !part.holds(ended),
            Self::Is(task, test) => {
                let end = ended(*task);
                match test {
                    Test::Fine => {
                        matches!(end.phase, Phase::Succeeded | Phase::Skipped)
                            || (end.accepted && matches!(end.phase, Phase::Failed | Phase::Error))
                    }
                    Test::Succeeded => end.phase == Phase::Succeeded,
                    Test::Failed => end.phase == Phase::Failed,
                    Test::Errored => end.phase == Phase::Error,
                    Test::Skipped => end.phase == Phase::Skipped,
                    Test::Omitted => end.phase == Phase::Omitted,
                    Test::Daemoned => false,
                    Test::AnySucceeded => end.any_succeeded,
                    Test::AllFailed => end.all_failed,
                    Test::Finished => true,
                }
            }
        }
    }

    /// The tasks it looks at.
    pub fn tasks(&self, into: &mut BTreeSet<usize>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.tasks(into)),
            Self::Not(part) => part.tasks(into),
            Self::Is(task, _) => {
                into.insert(*task);
            }
        }
    }
}

/// Deepest nesting of a `depends` expression.
const DEPTH_MAX: usize = 100;

/// Reads Argo's `depends`: names with results, `&&`, `||`, `!`, parentheses.
pub fn parse(text: &str, place: &dyn Fn(&str) -> Option<usize>) -> Result<Ready, Error> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('!', " ! ");
    let spaced = spaced.replace("&&", " && ").replace("||", " || ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, at: 0, place, depth: 0 };
    let ready = parser.any().map_err(|why| Error::new(format!("invalid depends '{text}': {why}")))?;
    if parser.at != tokens.len() {
        return Err(Error::new(format!("invalid depends '{text}': unexpected '{}'", tokens[parser.at])));
    }
    Ok(ready)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    at: usize,
    place: &'a dyn Fn(&str) -> Option<usize>,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let here = self.tokens.get(self.at) == Some(&token);
        self.at += usize::from(here);
        here
    }

    fn any(&mut self) -> Result<Ready, String> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Ready::Any(parts) })
    }

    fn all(&mut self) -> Result<Ready, String> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Ready::All(parts) })
    }

    fn one(&mut self) -> Result<Ready, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deep".into());
        }
        let part = self.inner();
        self.depth -= 1;
        part
    }

    fn inner(&mut self) -> Result<Ready, String> {
        if self.take("!") {
            return Ok(Ready::Not(Box::new(self.one()?)));
        }
        if self.take("(") {
            let inner = self.any()?;
            return if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".into()) };
        }
        let Some(word) = self.tokens.get(self.at).copied() else { return Err("it ends too early".into()) };
        self.at += 1;
        let (name, result) = word.split_once('.').unwrap_or((word, ""));
        let task = (self.place)(name).ok_or_else(|| format!("dependency '{name}' not defined"))?;
        let test = match result {
            "" => Test::Fine,
            "Succeeded" => Test::Succeeded,
            "Failed" => Test::Failed,
            "Errored" => Test::Errored,
            "Skipped" => Test::Skipped,
            "Omitted" => Test::Omitted,
            "Daemoned" => Test::Daemoned,
            "AnySucceeded" => Test::AnySucceeded,
            "AllFailed" => Test::AllFailed,
            other => return Err(format!("unknown task result '{other}' of '{name}'")),
        };
        Ok(Ready::Is(task, test))
    }
}

/// For each task, the tasks whose readiness looks at it.
pub fn dependents(tasks: &[std::sync::Arc<Task>]) -> Vec<Vec<usize>> {
    let mut following = vec![Vec::new(); tasks.len()];
    for (index, task) in tasks.iter().enumerate() {
        for before in &task.needs {
            following[*before].push(index);
        }
    }
    following
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_is_a_logic_over_ends() {
        let place = |name: &str| ["a", "b-1"].iter().position(|known| *known == name);
        let ended = |task: usize| Ended {
            phase: if task == 0 { Phase::Succeeded } else { Phase::Failed },
            any_succeeded: task == 0,
            all_failed: task == 1,
            accepted: false,
        };
        for (text, want) in [
            ("a", true),
            ("a && b-1", false),
            ("a && b-1.Failed", true),
            ("!(a||b-1.Succeeded)", false),
            ("b-1.AllFailed && !a.Failed", true),
        ] {
            assert_eq!(parse(text, &place).unwrap().holds(&ended), want, "{text}");
        }
        for text in ["", "a &&", "c", "a.Sad", "(a", "a b-1"] {
            assert!(parse(text, &place).is_err(), "{text}");
        }
    }
}
