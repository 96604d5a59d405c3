//! scikit-learn's estimators, evaluated natively.
//!
//! A file's values become one [`Estimator`]: what it answers is what the library answers (the same classes;
//! probabilities within 1e-12). Each family has a file that reads the attributes and evaluates; a class or a
//! setting that is not known is an error with its full name, never an approximation.
//!
//! * `tree` compiles trees for `forest` and `boost`; `linear`, `scale`, `pipeline` and so on are families.
//! * [`native::Native`] is the [`crate::Backend`] over any of them.
//!
//! Not here: the reading of files.

mod attrs;
mod bayes;
mod beside;
mod boost;
mod calibrate;
mod cluster;
mod codes;
mod columns;
mod coupling;
mod encode;
mod ensemble;
pub(crate) mod explain;
pub(crate) mod flow;
mod forest;
mod function;
mod hist;
mod impute;
mod impute_near;
mod isolation;
mod labels;
mod linear;
pub mod native;
mod neighbors;
mod network;
mod pipeline;
mod quantile;
mod rest;
mod scale;
mod several;
mod stacking;
mod svm;
mod text;
mod tree;

use crate::backend::BackendError;
use crate::booster::{self, Boost};
use crate::error::{LoadError, Result};
use crate::graph::View;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Wire, undrawn};
use attrs::Attrs;
use flow::Flow;
pub use labels::Labels;
use text::Texts;

/// How deep estimators may nest: pipelines in pipelines.
const NESTING_MAX: usize = 32;

/// Rows of numbers, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f64],
    pub(crate) width: usize,
    pub(crate) count: usize,
    /// What cells that are texts refer to.
    texts: Option<&'a Texts>,
}

impl<'a> Rows<'a> {
    fn new(data: &'a [f64], width: usize, count: usize) -> Self {
        debug_assert_eq!(data.len(), width * count);
        Self { data, width, count, texts: None }
    }

    /// Other columns of the same batch.
    fn with<'b>(self, data: &'b [f64], width: usize) -> Rows<'b>
    where
        'a: 'b,
    {
        debug_assert_eq!(data.len(), width * self.count);
        Rows { data, width, count: self.count, texts: self.texts }
    }

    /// Some of the rows.
    pub(crate) fn range(self, rows: std::ops::Range<usize>) -> Self {
        let data = &self.data[rows.start * self.width..rows.end * self.width];
        Self { data, count: rows.len(), ..self }
    }

    /// Calls `with` with the text of a cell; `None` for numbers and what is missing.
    pub(crate) fn text<T>(self, cell: f64, with: impl FnOnce(&str) -> T) -> Option<T> {
        self.texts?.read(cell, with)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [f64]> {
        // `chunks_exact` refuses a width of zero, which a model without features would have.
        (0..self.count).map(move |row| &self.data[row * self.width..(row + 1) * self.width])
    }
}

/// What says that an estimator, or one within it, does not draw itself.
pub(crate) const NO_SKETCH: &str = "an estimator within that has no form as operations on tables";

/// The answer of an evaluator.
pub(crate) type Evaluated<T = ()> = std::result::Result<T, BackendError>;

/// Tells classes apart. Buffers of the caller have `rows × classes` or `rows` elements.
pub(crate) trait Classify: Send + Sync {
    /// How many classes.
    fn classes(&self) -> usize;

    /// The index of each row's class.
    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated;

    /// Whether [`Classify::probabilities`] works, as the library's `predict_proba` would.
    fn has_probabilities(&self) -> bool;

    /// Each row's probabilities; `out` is zeroed.
    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated;

    /// How many numbers `decision_function` gives for a row; 0 where the library has none.
    fn decisions_width(&self) -> usize {
        0
    }

    /// The library's `decision_function`.
    fn decisions(&self, _rows: Rows<'_>, _out: &mut [f64]) -> Evaluated {
        Err(BackendError::Internal("this classifier has no decision_function".into()))
    }

    /// Draws picks, and probabilities and decisions where there are such.
    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Classes> {
        undrawn(NO_SKETCH)
    }
}

/// Predicts numbers.
pub(crate) trait Regress: Send + Sync {
    /// Numbers for each row.
    fn targets(&self) -> usize;

    /// The prediction; `out` has `rows × targets` elements and is zeroed.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated;

    /// Whether there is a `decision_function`, of one number for each row.
    fn has_decisions(&self) -> bool {
        false
    }

    /// The library's `decision_function`; `out` is zeroed.
    fn decisions(&self, _rows: Rows<'_>, _out: &mut [f64]) -> Evaluated {
        Err(BackendError::Internal("this estimator has no decision_function".into()))
    }

    /// How many shares `predict_proba` gives for a row (mixtures); 0 where the library has none.
    fn shares(&self) -> usize {
        0
    }

    /// The library's `predict_proba`; `out` is zeroed.
    fn probabilities(&self, _rows: Rows<'_>, _out: &mut [f64]) -> Evaluated {
        Err(BackendError::Internal("this estimator has no predict_proba".into()))
    }

    /// Draws the prediction, `[rows, targets]`.
    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Wire> {
        undrawn(NO_SKETCH)
    }

    /// Draws the decisions, `[rows, 1]`.
    fn draw_decisions(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Wire> {
        undrawn(NO_SKETCH)
    }
}

/// Turns rows into other rows.
pub(crate) trait Transform: Send + Sync {
    /// How wide a row is afterwards.
    fn width_out(&self) -> usize;

    /// Writes `rows × width_out` numbers; `out` is zeroed.
    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated;

    /// Draws the columns it makes.
    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Frame> {
        undrawn(NO_SKETCH)
    }
}

/// Answers several questions about a row at once, each with classes of its own.
pub(crate) trait Several: Send + Sync {
    /// The index of each answer's class: `rows × answers`.
    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated;

    /// The widths of the tables that `predict_proba` gives; none where there is no such method.
    fn tables(&self) -> Vec<usize>;

    /// The tables side by side; `out` is zeroed.
    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated;

    /// How many numbers `decision_function` gives for a row; 0 where the library has none.
    fn decisions_width(&self) -> usize {
        0
    }

    /// The library's `decision_function`; `out` is zeroed.
    fn decisions(&self, _rows: Rows<'_>, _out: &mut [f64]) -> Evaluated {
        Err(BackendError::Internal("this classifier has no decision_function".into()))
    }

    /// Draws each answer.
    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Vec<Classes>> {
        undrawn(NO_SKETCH)
    }
}

/// What an estimator does.
pub(crate) enum Role {
    Classifier(Box<dyn Classify>, Labels),
    /// Classes of several questions.
    Several(Box<dyn Several>, Vec<Labels>),
    Regressor(Box<dyn Regress>),
    /// Predictions are whole numbers: clusters, or 1 and -1 for in- and outliers.
    Assigner(Box<dyn Regress>),
    Transformer(Box<dyn Transform>),
    /// A boosted model of another library, in that library's own words.
    Booster(Box<dyn Boost>),
}

/// One line of the report about an estimator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// How deep it is nested.
    pub depth: usize,
    /// The step's name, where it has one.
    pub step: Option<String>,
    /// The class's full name.
    pub class: String,
    /// Sizes: trees, nodes, coefficients.
    pub detail: String,
}

/// An estimator that can be evaluated.
pub struct Estimator {
    pub(crate) role: Role,
    pub(crate) features: usize,
    pub(crate) feature_names: Vec<String>,
    pub(crate) class: String,
    pub(crate) version: Option<String>,
    pub(crate) parts: Vec<Part>,
    pub(crate) row_cost_ns: u64,
    /// Its columns, where not all are numbers.
    pub(crate) flow: Option<Flow>,
    /// What it does as an inner step of a pipeline, where its role is another.
    pub(crate) inner: Option<Box<dyn Transform>>,
    /// The widest table it makes on the way.
    pub(crate) width_max: usize,
}

impl Estimator {
    pub(crate) fn flow(&self) -> Flow {
        let gives = match &self.role {
            Role::Transformer(transform) => transform.width_out(),
            _ => self.inner.as_ref().map_or(0, |inner| inner.width_out()),
        };
        self.flow.clone().unwrap_or_else(|| Flow::numbers(self.features, gives))
    }
}

impl std::fmt::Debug for Estimator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Estimator")
            .field("class", &self.class)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// What one class's reader returns; the dispatcher adds what all have in common.
pub(crate) struct Read {
    role: Role,
    detail: String,
    row_cost_ns: u64,
    /// Estimators within, for the report.
    inner: Vec<Part>,
    /// How many columns it takes, where it is not `n_features_in_`.
    features: Option<usize>,
    /// Their names, where they are not `feature_names_in_`.
    feature_names: Vec<String>,
    /// Its columns, where not all are numbers.
    flow: Option<Flow>,
    /// What it does as an inner step of a pipeline, where its role is another.
    transform: Option<Box<dyn Transform>>,
    /// The widest table it makes on the way, where it makes one.
    width_max: usize,
}

impl Read {
    fn new(role: Role, detail: impl Into<String>, row_cost_ns: u64) -> Self {
        Self {
            role,
            detail: detail.into(),
            row_cost_ns,
            inner: Vec::new(),
            features: None,
            feature_names: Vec::new(),
            flow: None,
            transform: None,
            width_max: 0,
        }
    }

    /// Takes the place of the estimator within: a search, a frozen one.
    fn like(estimator: Estimator, role: Role) -> Self {
        Self {
            role,
            detail: "around the next".into(),
            row_cost_ns: estimator.row_cost_ns,
            inner: estimator.parts,
            features: Some(estimator.features),
            feature_names: estimator.feature_names,
            flow: estimator.flow,
            transform: estimator.inner,
            width_max: estimator.width_max,
        }
    }
}

/// Reads the estimator that a file holds.
pub fn read(root: View<'_>) -> Result<Estimator> {
    let mut estimator = read_at(root, 0)?;
    if let Some(flow) = estimator.flow.take() {
        let flow = flow.settle(&Attrs::new(root)?)?;
        estimator.flow = (!flow.is_numbers()).then_some(flow);
    }
    Ok(estimator)
}

pub(crate) fn read_at(view: View<'_>, depth: usize) -> Result<Estimator> {
    if depth > NESTING_MAX {
        return Err(LoadError::TooLarge { what: "nesting of estimators", limit: NESTING_MAX });
    }
    if let Some(wrapped) = booster::read_wrapper(view, depth) {
        return wrapped;
    }
    let attrs = Attrs::new(view)?;
    let read = dispatch(&attrs, depth)?;
    let features = match read.features {
        Some(features) => features,
        None => attrs.features()?,
    };
    let mut parts = vec![Part { depth, step: None, class: attrs.class.clone(), detail: read.detail }];
    parts.extend(read.inner);
    let width_out = match &read.role {
        Role::Transformer(transform) => transform.width_out(),
        _ => 0,
    };
    Ok(Estimator {
        width_max: read.width_max.max(features).max(width_out),
        flow: read.flow,
        inner: read.transform,
        role: read.role,
        features,
        feature_names: attrs.opt("feature_names_in_").and_then(View::texts).unwrap_or(read.feature_names),
        version: attrs.version(),
        class: attrs.class,
        parts,
        row_cost_ns: read.row_cost_ns,
    })
}

fn dispatch(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let Some(path) = attrs.class.strip_prefix("sklearn.") else {
        return Err(LoadError::unsupported(format!("{} is not evaluated natively", attrs.class)));
    };
    let name = path.rsplit('.').next().unwrap_or_default();
    match name {
        "DecisionTreeClassifier" | "ExtraTreeClassifier" => forest::single_classifier(attrs),
        "DecisionTreeRegressor" | "ExtraTreeRegressor" => forest::single_regressor(attrs),
        "RandomForestClassifier" | "ExtraTreesClassifier" => forest::classifier(attrs),
        "RandomForestRegressor" | "ExtraTreesRegressor" => forest::regressor(attrs),
        "GradientBoostingClassifier" => boost::classifier(attrs),
        "HistGradientBoostingClassifier" => boost::hist_classifier(attrs),
        "HistGradientBoostingRegressor" => boost::hist_regressor(attrs),
        "GradientBoostingRegressor" => boost::regressor(attrs),
        "LinearRegression"
        | "Ridge"
        | "RidgeCV"
        | "Lasso"
        | "LassoCV"
        | "ElasticNet"
        | "ElasticNetCV"
        | "Lars"
        | "LarsCV"
        | "LassoLars"
        | "LassoLarsCV"
        | "LassoLarsIC"
        | "OrthogonalMatchingPursuit"
        | "BayesianRidge"
        | "ARDRegression"
        | "HuberRegressor"
        | "TheilSenRegressor"
        | "QuantileRegressor"
        | "SGDRegressor"
        | "PassiveAggressiveRegressor"
        | "LinearSVR"
        | "MultiTaskLasso"
        | "MultiTaskElasticNet"
        | "MultiTaskLassoCV"
        | "MultiTaskElasticNetCV" => linear::regressor(attrs),
        "PoissonRegressor" | "GammaRegressor" => linear::log_regressor(attrs),
        "LogisticRegression" | "LogisticRegressionCV" => linear::logistic(attrs),
        "SGDClassifier" => linear::sgd_classifier(attrs),
        "LinearSVC"
        | "RidgeClassifier"
        | "RidgeClassifierCV"
        | "Perceptron"
        | "PassiveAggressiveClassifier" => linear::margin_classifier(attrs),
        "LinearDiscriminantAnalysis" => linear::discriminant(attrs),
        "StackingClassifier" => stacking::classifier(attrs, depth),
        "StackingRegressor" => stacking::regressor(attrs, depth),
        "FunctionTransformer" => function::function(attrs),
        "PowerTransformer" => function::power(attrs),
        "TruncatedSVD" => scale::truncated_svd(attrs),
        "StandardScaler" => scale::standard(attrs),
        "MinMaxScaler" => scale::min_max(attrs),
        "MaxAbsScaler" => scale::max_abs(attrs),
        "RobustScaler" => scale::robust(attrs),
        "Normalizer" => scale::normalizer(attrs),
        "PCA" => scale::pca(attrs),
        "KMeans" | "MiniBatchKMeans" => cluster::k_means(attrs),
        "GaussianNB" => bayes::gaussian(attrs),
        "MultinomialNB" => bayes::multinomial(attrs),
        "ComplementNB" => bayes::complement(attrs),
        "BernoulliNB" => bayes::bernoulli(attrs),
        "KNeighborsClassifier" => neighbors::classifier(attrs),
        "KNeighborsRegressor" => neighbors::regressor(attrs),
        "MLPClassifier" => network::classifier(attrs),
        "MLPRegressor" => network::regressor(attrs),
        "SVC" | "NuSVC" => svm::classifier(attrs),
        "SVR" | "NuSVR" => svm::regressor(attrs),
        "OneClassSVM" => svm::one_class(attrs),
        "IsolationForest" => isolation::read(attrs),
        "BaggingClassifier" => ensemble::bagging_classifier(attrs, depth),
        "BaggingRegressor" => ensemble::bagging_regressor(attrs, depth),
        "AdaBoostClassifier" => ensemble::ada_classifier(attrs, depth),
        "AdaBoostRegressor" => ensemble::ada_regressor(attrs, depth),
        "VotingClassifier" => ensemble::voting_classifier(attrs, depth),
        "VotingRegressor" => ensemble::voting_regressor(attrs, depth),
        "SimpleImputer" => impute::simple(attrs),
        "KNNImputer" => impute_near::nearest(attrs),
        "IterativeImputer" => impute::iterative(attrs, depth),
        "QuantileTransformer" => quantile::read(attrs),
        "CalibratedClassifierCV" => calibrate::read(attrs, depth),
        "OneVsRestClassifier" => rest::one_vs_rest(attrs, depth),
        "OneVsOneClassifier" => rest::one_vs_one(attrs, depth),
        "Binarizer" => columns::binarizer(attrs),
        "VarianceThreshold" => columns::variance_threshold(attrs),
        "PolynomialFeatures" => columns::polynomial(attrs),
        "OneHotEncoder" => encode::one_hot(attrs),
        "OrdinalEncoder" => encode::ordinal(attrs),
        "LabelEncoder" => codes::read(attrs),
        "TargetEncoder" => encode::target(attrs),
        "MultiOutputClassifier" => several::multi_classifier(attrs, depth),
        "MultiOutputRegressor" => several::multi_regressor(attrs, depth),
        "ClassifierChain" => several::chain_classifier(attrs, depth),
        "RegressorChain" => several::chain_regressor(attrs, depth),
        "GridSearchCV" | "RandomizedSearchCV" | "HalvingGridSearchCV" | "HalvingRandomSearchCV" => {
            around(attrs, "best_estimator_", depth)
        }
        "FrozenEstimator" => around(attrs, "estimator", depth),
        "DBSCAN"
        | "HDBSCAN"
        | "OPTICS"
        | "AgglomerativeClustering"
        | "SpectralClustering"
        | "TSNE"
        | "MDS" => {
            let what = "it answers only about the rows it was fitted on; fit a classifier on its labels";
            Err(attrs.unsupported(&format!("new rows: {what}")))
        }
        "FeatureUnion" => beside::union(attrs, depth),
        "ColumnTransformer" => beside::transformer(attrs, depth),
        "Pipeline" => pipeline::read(attrs, depth),
        "Tree" => Err(LoadError::unsupported(format!("{} alone, without its estimator", attrs.class))),
        _ => Err(LoadError::unsupported(format!("{} is not evaluated natively", attrs.class))),
    }
}

/// What only holds an estimator answers as it does.
fn around(attrs: &Attrs<'_>, name: &str, depth: usize) -> Result<Read> {
    let mut estimator = read_at(attrs.req(name)?, depth + 1)?;
    let nothing = Role::Transformer(Box::new(pipeline::Identity(0)));
    let role = std::mem::replace(&mut estimator.role, nothing);
    Ok(Read::like(estimator, role))
}

/// Refuses what the library's `check_array` refuses.
pub(crate) fn check_finite(rows: Rows<'_>, allow_nan: bool) -> Evaluated {
    for (index, row) in rows.iter().enumerate() {
        // A sum is finite only if all its terms are, up to overflow of huge values, which the slow path decides.
        let sum: f64 = row.iter().sum();
        if sum.is_finite() {
            continue;
        }
        for value in row {
            if value.is_nan() && !allow_nan {
                return Err(BackendError::Input(format!("Input X contains NaN (row {index})")));
            }
            if value.is_infinite() {
                return Err(BackendError::Input(format!("Input X contains infinity (row {index})")));
            }
        }
    }
    Ok(())
}

/// The first of the greatest, as numpy's `argmax`.
pub(crate) fn argmax(values: &[f64]) -> u32 {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best as u32
}

/// Logistic function without overflow.
pub(crate) fn expit(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// Turns scores into probabilities in place.
pub(crate) fn softmax(scores: &mut [f64]) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}
