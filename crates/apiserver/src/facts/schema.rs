//! One schema type for built-in kinds and custom ones.
//!
//! Pruning, unknown fields, defaults, type checks, patches, server-side apply and validation all read this type, so
//! a rule is written once. It is made from the table of facts ([`super::table`]) or from the `openAPIV3Schema` of a
//! CustomResourceDefinition ([`Schema::from_crd`]).
//!
//! Built-in definitions refer to each other, also in circles (`JSONSchemaProps`), hence [`Node`]: a schema in place or
//! the name of a definition.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

/// The JSON type that a schema asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Anything goes.
    #[default]
    Any,
    /// An object, by properties or as a map.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// true or false.
    Boolean,
    /// A whole number or a string: `IntOrString`.
    IntOrString,
    /// A quantity: a number or a string such as `500m`.
    Quantity,
}

/// How a list is merged and owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// As one value.
    #[default]
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects found by keys.
    Map,
}

/// A schema in place, or a built-in definition by its index in the table.
#[derive(Debug, Clone)]
pub enum Node {
    /// In place.
    Own(Box<Schema>),
    /// A definition of the built-in table.
    Builtin(usize),
}

impl Node {
    /// The schema itself.
    pub fn get(&self) -> &Schema {
        match self {
            Self::Own(schema) => schema,
            Self::Builtin(index) => super::table::definition(*index),
        }
    }
}

/// One property of an object.
#[derive(Debug, Clone)]
pub struct Field {
    /// What its value looks like.
    pub node: Node,
    /// Strategic merge: merge the list instead of replacing it.
    pub patch_merge: bool,
    /// Strategic merge: `$retainKeys` applies.
    pub retain_keys: bool,
    /// Strategic merge: the key that items of the list are found by.
    pub merge_key: Option<String>,
    /// What to put where it is absent.
    pub default: Option<Value>,
}

impl Field {
    /// The schema of the value.
    pub fn schema(&self) -> &Schema {
        self.node.get()
    }
}

/// A resolved schema.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Full name of a built-in definition, such as `io.k8s.api.core.v1.PodSpec`; empty for one in place.
    pub name: String,
    /// The JSON type.
    pub kind: Type,
    /// The named fields.
    pub properties: BTreeMap<String, Field>,
    /// The schema of all other fields: the object is a map.
    pub additional: Option<Node>,
    /// The schema of a list's items.
    pub items: Option<Node>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// How a list is merged.
    pub list: ListType,
    /// The keys of a list of type map.
    pub map_keys: Vec<String>,
    /// The object is owned as one value.
    pub map_atomic: bool,
    /// Fields not named here stay.
    pub preserve_unknown: bool,
    /// The object is a Kubernetes object of its own, with apiVersion, kind and metadata.
    pub embedded: bool,
    /// `null` is a value.
    pub nullable: bool,
    /// `int32`, `date-time`, `byte`, …; empty when none.
    pub format: String,
    /// What the author of a custom kind says about it; empty for built-in ones.
    pub description: Box<str>,
    /// Rules on values; only custom kinds have them.
    pub rules: Option<Box<Rules>>,
}

/// What a custom kind's schema says of values.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The allowed values; empty: all.
    pub enumeration: Vec<Value>,
    /// `pattern`, with its text.
    pub pattern: Option<Pattern>,
    /// Lower bound, and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// Upper bound, and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// A number must be a multiple of it.
    pub multiple_of: Option<f64>,
    /// `minLength`, `minItems` or `minProperties`, by type.
    pub length_min: Option<u64>,
    /// `maxLength`, `maxItems` or `maxProperties`, by type.
    pub length_max: Option<u64>,
    /// All must hold.
    pub all_of: Vec<Schema>,
    /// At least one must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one must hold.
    pub one_of: Vec<Schema>,
    /// Must not hold.
    pub not: Option<Box<Schema>>,
    /// CEL rules.
    pub validations: Vec<CelRule>,
}

/// A regular expression, compiled when first used.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As the author wrote it.
    pub text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// Whether the text matches; an expression that this server cannot compile matches all.
    pub fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// One of `x-kubernetes-validations`.
#[derive(Debug, Clone)]
pub struct CelRule {
    /// The expression.
    pub rule: String,
    /// What to say when it does not hold; empty: the rule itself.
    pub message: String,
    /// An expression that gives the message; empty: none.
    pub message_expression: String,
    /// `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueRequired` or `FieldValueDuplicate`; empty: Invalid.
    pub reason: String,
    /// Where to report it, relative; empty: here.
    pub field_path: String,
    /// `optionalOldSelf`.
    pub optional_old_self: bool,
}

impl Schema {
    /// Reads the `openAPIV3Schema` of a CustomResourceDefinition's version; `None` when there is none, then the kind
    /// keeps every field. apiVersion, kind and metadata are those of every object.
    pub fn from_crd(open_api_v3_schema: Option<&Value>) -> Self {
        let Some(value) = open_api_v3_schema else {
            let mut schema = Self { kind: Type::Object, preserve_unknown: true, ..Self::default() };
            schema.add_object_fields();
            return schema;
        };
        let mut schema = super::parse::crd(value);
        schema.add_object_fields();
        schema
    }

    /// apiVersion, kind and metadata, as every Kubernetes object has them.
    pub(crate) fn add_object_fields(&mut self) {
        let text = || Schema { kind: Type::String, ..Schema::default() };
        self.properties.insert("apiVersion".into(), Field::of(Node::Own(Box::new(text()))));
        self.properties.insert("kind".into(), Field::of(Node::Own(Box::new(text()))));
        if let Some(meta) = super::table::index_of("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
            self.properties.insert("metadata".into(), Field::of(Node::Builtin(meta)));
        }
    }

    /// The schema of a field, by name or as a map's value.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        match self.properties.get(name) {
            Some(field) => Some(field.schema()),
            None => self.additional.as_ref().map(Node::get),
        }
    }

    /// Whether the object takes a field of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.preserve_unknown || self.additional.is_some() || self.properties.contains_key(name)
    }

    /// The last part of the definition's name, such as `PodSpec`; `""` for one in place.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Whether the definition is built in.
    pub fn is_builtin(&self) -> bool {
        !self.name.is_empty()
    }
}

impl Field {
    /// A field without patch rules and default.
    pub fn of(node: Node) -> Self {
        Self { node, patch_merge: false, retain_keys: false, merge_key: None, default: None }
    }
}

impl Rules {
    pub(crate) fn pattern(text: &str) -> Pattern {
        Pattern::new(text)
    }
}
