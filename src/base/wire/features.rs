//! Feature negotiation (§15): the two frames, and their bridge to `fsm::negotiate`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a daemon needs and what it would like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRequest {
    /// Without these there is no link.
    #[serde(default)]
    pub require: Vec<String>,
    /// These are used where they exist.
    #[serde(default)]
    pub optional: Vec<String>,
}

/// What a broker offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureResponse {
    /// Feature name to its parameters.
    #[serde(default)]
    pub supported: BTreeMap<String, Feature>,
    /// Those of `require` it lacks.
    #[serde(default)]
    pub missing_required: Vec<String>,
}

/// One feature's parameters; `version` is one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Name to value.
    #[serde(default)]
    pub params: Map<String, Value>,
}
