//! What scores become, by the name of the loss.
//!
//! Not here: the scores (`model`).

use crate::error::{LoadError, Result};
use crate::sklearn::{expit, softmax};

/// How scores become predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The scores are the prediction.
    Raw,
    Exp,
    /// A mean and a logarithm of a deviation, which becomes a variance.
    Uncertain,
    /// Two classes.
    Binary,
    /// Classes whose probabilities add up to one.
    Softmax,
    /// Classes, each against all others.
    OneVsAll,
    /// Several questions of yes and no.
    Labels,
}

impl Link {
    pub(super) fn of(loss: &str) -> Result<Self> {
        Ok(match loss {
            "Logloss" | "CrossEntropy" | "Focal" => Self::Binary,
            "MultiClass" => Self::Softmax,
            "MultiClassOneVsAll" => Self::OneVsAll,
            "MultiLogloss" | "MultiCrossEntropy" => Self::Labels,
            "Poisson" | "Tweedie" => Self::Exp,
            "RMSEWithUncertainty" => Self::Uncertain,
            // A model without parameters, and those whose objective is code, say their scores.
            "" | "PythonUserDefinedPerObject" | "PythonUserDefinedMultiTarget" => Self::Raw,
            "RMSE"
            | "MAE"
            | "MAPE"
            | "Quantile"
            | "MultiQuantile"
            | "GroupQuantile"
            | "LogLinQuantile"
            | "Lq"
            | "Huber"
            | "Expectile"
            | "LogCosh"
            | "RMSPE"
            | "MultiRMSE"
            | "MultiRMSEWithMissingValues"
            | "PairLogit"
            | "PairLogitPairwise"
            | "YetiRank"
            | "YetiRankPairwise"
            | "QueryRMSE"
            | "QuerySoftMax"
            | "QueryCrossEntropy"
            | "StochasticFilter"
            | "StochasticRank"
            | "LambdaMart"
            | "Cox"
            | "SurvivalAft" => Self::Raw,
            _ => return Err(LoadError::unsupported(format!("CatBoost's loss {loss:?}"))),
        })
    }

    pub(super) fn is_classifier(self) -> bool {
        matches!(self, Self::Binary | Self::Softmax | Self::OneVsAll)
    }

    /// Turns a row's scores into a prediction of numbers.
    pub(super) fn predict(self, scores: &mut [f64]) {
        match (self, scores) {
            (Self::Exp, scores) => scores.iter_mut().for_each(|score| *score = score.exp()),
            (Self::Uncertain, [_, spread, ..]) => *spread = (*spread * 2.0).exp(),
            _ => {}
        }
    }

    /// Turns a row's scores into probabilities, one for each score.
    pub(super) fn probabilities(self, scores: &mut [f64]) {
        match self {
            Self::Softmax => softmax(scores),
            _ => scores.iter_mut().for_each(|score| *score = expit(*score)),
        }
    }
}
