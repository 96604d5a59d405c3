//! Which globals a model file may name, and what is made of them.
//!
//! The list is closed: a name that is not here ends the load, because a file that asks for it wants Python
//! code to run. Names of classes under `sklearn.` are let in as inert labels; whether one can be evaluated is
//! decided later, so that the message can say which class it was.
//!
//! Not here: building the values (`build`).

/// What a call of a global makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    /// `numpy.dtype`.
    Dtype,
    /// `numpy…multiarray._reconstruct`: an array to be filled by its state.
    EmptyArray,
    /// `numpy…multiarray.scalar`.
    Scalar,
    /// `numpy…numeric._frombuffer`: an array over bytes (protocol 5).
    FromBuffer,
    /// A numpy scalar type called with a plain value.
    NumpyValue,
    /// `dict`, `OrderedDict`, `defaultdict`, `Counter`.
    Dict,
    /// `set`, `frozenset`.
    Set,
    /// `list`, `deque`.
    List,
    /// `tuple`.
    Tuple,
    /// `bytes`, `bytearray`, and `_codecs.encode` of Latin-1.
    Bytes,
    /// `int`, `float`, `bool`, `str`, called with one plain value.
    Plain,
    /// `copyreg._reconstructor` and `copyreg.__newobj__`: an instance of the class given as argument.
    Instance,
    /// joblib's marker: the array's bytes follow in the stream.
    JoblibArray,
    /// A class or function of a known library, kept as a label with its arguments.
    Label,
}

const NUMPY_VALUES: &[&str] = &[
    "bool",
    "bool_",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "str_",
    "intc",
    "uintc",
    "longlong",
    "ulonglong",
];

const NUMPY_FUNCTIONS: &[&str] = &[
    "ndarray",
    "nan",
    "abs",
    "absolute",
    "square",
    "sqrt",
    "log",
    "log1p",
    "log2",
    "log10",
    "exp",
    "expm1",
    "sin",
    "cos",
    "tan",
    "tanh",
    "mean",
    "median",
    "reciprocal",
    "cbrt",
    "sign",
    "exp2",
    "sinh",
    "cosh",
    "arcsin",
    "arccos",
    "arctan",
    "arcsinh",
    "arccosh",
    "arctanh",
    "negative",
    "positive",
    "floor",
    "ceil",
    "trunc",
    "rint",
    "deg2rad",
    "rad2deg",
    "degrees",
    "radians",
    "isnan",
    "logical_not",
];

/// The rule for `module.name`, or `None` if it is refused.
pub(super) fn admit(module: &str, name: &str) -> Option<Maker> {
    let maker = match (module, name) {
        ("numpy", "dtype") => Maker::Dtype,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Maker::EmptyArray,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Maker::Scalar,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Maker::FromBuffer,
        ("numpy", _) if NUMPY_VALUES.contains(&name) => Maker::NumpyValue,
        ("numpy", _) if NUMPY_FUNCTIONS.contains(&name) => Maker::Label,
        // The classes of `numpy.dtypes`, which some files name instead of a description.
        ("numpy.dtypes", _) if name.ends_with("DType") => Maker::Label,
        ("numpy.core._multiarray_umath" | "numpy._core._multiarray_umath", _)
            if NUMPY_FUNCTIONS.contains(&name) =>
        {
            Maker::Label
        }
        ("builtins" | "__builtin__", _) => return admit_builtin(name),
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Maker::Dict,
        ("collections", "deque") => Maker::List,
        ("copyreg" | "copy_reg", "_reconstructor" | "__newobj__") => Maker::Instance,
        ("_codecs", "encode") => Maker::Bytes,
        ("functools", "partial") => Maker::Label,
        ("joblib.numpy_pickle" | "sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper") => {
            Maker::JoblibArray
        }
        _ if is_label(module, name) => Maker::Label,
        _ => return None,
    };
    Some(maker)
}

fn admit_builtin(name: &str) -> Option<Maker> {
    let maker = match name {
        "dict" => Maker::Dict,
        "set" | "frozenset" => Maker::Set,
        "list" => Maker::List,
        "tuple" => Maker::Tuple,
        "bytes" | "bytearray" => Maker::Bytes,
        "int" | "long" | "float" | "bool" | "str" | "unicode" => Maker::Plain,
        "object" | "slice" | "range" | "complex" | "type" | "abs" | "len" | "max" | "min" => Maker::Label,
        _ => return None,
    };
    Some(maker)
}

/// Classes and functions of libraries whose estimators this crate looks at.
fn is_label(module: &str, name: &str) -> bool {
    // Attributes reached through a dotted name could lead out of the library again (`sklearn.os.system`).
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let parts: Vec<&str> = module.split('.').collect();
    let is_safe_path = parts
        .iter()
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let random = parts.len() == 3 && parts[0] == "numpy" && parts[1] == "random";
    let sparse = parts.len() >= 2 && parts[0] == "scipy" && parts[1] == "sparse";
    // Some builds of scikit-learn name these compiled modules without their package.
    let bare = ["_loss", "_sgd_fast"].contains(&module);
    // What searches remember of their candidates.
    let stats = parts.len() >= 2 && parts[0] == "scipy" && parts[1] == "stats";
    let masked =
        matches!(module, "numpy.ma" | "numpy.ma.core") && matches!(name, "_mareconstruct" | "MaskedArray");
    let index = module == "pandas.core.indexes.base" && matches!(name, "_new_Index" | "Index");
    // Wrappers of boosting libraries: their models are bytes in an attribute.
    let boosted = ["xgboost", "lightgbm", "catboost"].contains(&parts[0]);
    let known = boosted || parts[0] == "sklearn" || sparse || bare || random || stats || masked || index;
    is_plain && is_safe_path && known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_code_is_not_on_the_list() {
        for (module, name) in [
            ("posix", "system"),
            ("os", "system"),
            ("nt", "system"),
            ("builtins", "eval"),
            ("builtins", "exec"),
            ("builtins", "getattr"),
            ("builtins", "__import__"),
            ("subprocess", "Popen"),
            ("sklearn", "os.system"),
            ("sklearn..os", "system"),
            ("cloudpickle.cloudpickle", "_make_function"),
            ("numpy", "load"),
            ("numpy.testing._private.utils", "runstring"),
            ("scipy.os", "system"),
        ] {
            assert_eq!(admit(module, name), None, "{module}.{name}");
        }
    }

    #[test]
    fn both_numpy_majors_are_known() {
        for module in ["numpy.core.multiarray", "numpy._core.multiarray"] {
            assert_eq!(admit(module, "_reconstruct"), Some(Maker::EmptyArray));
        }
    }
}
