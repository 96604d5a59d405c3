//! Traces: where a call comes from (`traceparent`), whether it is sampled, and its ids.
//!
//! Not here: sending spans (`otlp`).

use std::fmt;

use super::random::{self, Share};

/// What `traceparent` says: the trace, the caller's span, and whether the caller is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) is_sampled: bool,
}

impl Parent {
    /// Reads `00-<32 hex digits>-<16>-<2>`; `None` for what the standard calls invalid.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        // A later version may have more fields; the first four keep their meaning.
        let is_version = value.len() == 55 || value.get(55) == Some(&b'-') && value.get(..2) != Some(b"00");
        let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
        if !is_version || !dashes || value.get(..2)? == b"ff" {
            return None;
        }
        hex(value.get(..2)?)?;
        let (trace, span) = (hex(value.get(3..35)?)?, hex(value.get(36..52)?)? as u64);
        let flags = hex(value.get(53..55)?)?;
        (trace != 0 && span != 0).then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// Lower-case digits only, as the standard has it.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Which calls are traced, in the words of `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// The caller's word counts where there is one.
    pub parent_based: bool,
    /// Of all other calls, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { parent_based: true, ratio: 0.01 }
    }
}

impl Sampler {
    /// From the names and the argument of OpenTelemetry's variables.
    ///
    /// # Errors
    /// Names the value that is not known.
    pub fn parse(name: &str, argument: Option<f64>) -> Result<Self, String> {
        let (parent_based, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, name),
        };
        let ratio = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => argument.unwrap_or(if parent_based { Self::default().ratio } else { 1.0 }),
            _ => {
                let known = "always_on, always_off, traceidratio, each also with parentbased_ before it";
                return Err(format!("the sampler of traces is {name:?}, expected {known}"));
            }
        };
        if !(0.0..=1.0).contains(&ratio) {
            return Err(format!("the share of sampled traces is {ratio}, expected 0 to 1"));
        }
        Ok(Self { parent_based, ratio })
    }
}

/// A span's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    /// The caller's span.
    pub(crate) parent: Option<u64>,
}

impl Ids {
    /// The trace's id in its usual form.
    pub(crate) fn trace_text(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:016x}", self.trace, self.span)
    }
}

/// Draws the sample.
#[derive(Debug)]
pub(crate) struct Drawn {
    sampler: Sampler,
    share: Share,
}

impl Drawn {
    pub(crate) fn new(sampler: Sampler) -> Self {
        Self { sampler, share: Share::new(sampler.ratio) }
    }

    /// The ids of a call's span, where the call is sampled.
    pub(crate) fn ids(&self, parent: Option<Parent>) -> Option<Ids> {
        let Some(parent) = parent else {
            let low = random::word();
            // The lower half of the id decides, so that all servers that see a trace agree.
            return (self.sampler.ratio > 0.0 && self.share.has(low)).then(|| Ids {
                trace: u128::from(random::word() | 1) << 64 | u128::from(low),
                span: random::word() | 1,
                parent: None,
            });
        };
        let is_sampled = match self.sampler.parent_based {
            true => parent.is_sampled,
            false => self.sampler.ratio > 0.0 && self.share.has(parent.trace as u64),
        };
        is_sampled.then(|| Ids { trace: parent.trace, span: random::word() | 1, parent: Some(parent.span) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_are_read_as_the_standard_says() {
        let legal = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Parent::parse(legal.as_bytes()).expect("legal");
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span, parent.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        for (text, is_legal) in [
            (legal.replace("-01", "-00").as_str(), true),
            (&legal.replace("00-4b", "01-4b"), true),
            (&format!("{}-more", legal.replace("00-4b", "01-4b")), true),
            (&format!("{legal}-more"), false),
            (&legal.replace("00-4b", "ff-4b"), false),
            (&legal.to_uppercase(), false),
            (&legal.replace("00f067aa0ba902b7", "0000000000000000"), false),
            (&legal.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"), false),
            (&legal[..54], false),
            ("", false),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()).is_some(), is_legal, "{text}");
        }
    }

    #[test]
    fn samplers_do_what_their_names_say() {
        let parent = |is_sampled| Some(Parent { trace: 1 << 100 | 7, span: 9, is_sampled });
        for (name, argument, alone, sampled, unsampled) in [
            ("always_on", None, true, true, true),
            ("always_off", None, false, false, false),
            ("parentbased_always_on", None, true, true, false),
            ("parentbased_always_off", None, false, true, false),
            ("traceidratio", Some(0.0), false, false, false),
            ("traceidratio", Some(0.5), false, true, true),
            ("parentbased_traceidratio", Some(0.0), false, true, false),
        ] {
            let drawn = Drawn::new(Sampler::parse(name, argument).expect("known"));
            let seen = [drawn.ids(parent(true)).is_some(), drawn.ids(parent(false)).is_some()];
            assert_eq!(seen, [sampled, unsampled], "{name} {argument:?}");
            if argument != Some(0.5) {
                assert_eq!(drawn.ids(None).is_some(), alone, "{name} {argument:?}");
            }
        }
        assert!(Sampler::parse("jaeger_remote", None).expect_err("unknown").contains("jaeger_remote"));
        assert!(Sampler::parse("traceidratio", Some(1.5)).expect_err("too much").contains("1.5"));
        let ids = Drawn::new(Sampler { parent_based: false, ratio: 1.0 }).ids(parent(true)).expect("sampled");
        assert_eq!((ids.trace, ids.parent), (1 << 100 | 7, Some(9)));
    }
}
