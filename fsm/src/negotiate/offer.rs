//! What a broker offers, as neutral data, and what is said of a parameter that will not do.

use super::{NegotiationError, NegotiationErrorKind};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// One parameter of a feature, as far as this file cares about JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// A whole number.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// A string.
    Text(String),
    /// Anything else: never what a parameter should be.
    Other,
}

/// One feature a broker supports, with its parameters; `version` is one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its parameters, by name.
    pub params: Vec<(String, Param)>,
}

impl Feature {
    pub(super) fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.param(name) {
            Some(Param::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.param(name) {
            Some(Param::Text(value)) => Some(value),
            _ => None,
        }
    }
}

/// A broker's `feature_negotiation_response`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// What it supports.
    pub features: Vec<Feature>,
    /// What we required and it does not support, in its own words.
    pub missing_required: Vec<String>,
}

/// A required whole number that has a floor.
pub(super) fn at_least(
    feature: &Feature,
    param: &str,
    floor: i64,
) -> Result<u64, NegotiationError> {
    match feature.param(param) {
        Some(Param::Int(value)) if *value >= floor => Ok(value.unsigned_abs()),
        Some(Param::Int(value)) => {
            let detail = format!("{param} is {value}; at least {floor} is required");
            Err(NegotiationError::of(NegotiationErrorKind::ParamBelowFloor, &feature.name, detail))
        }
        other => Err(invalid(&feature.name, param, other)),
    }
}

pub(super) fn invalid(feature: &str, param: &str, found: Option<&Param>) -> NegotiationError {
    let detail = match found {
        None => format!("{param} is missing"),
        Some(value) => format!("{param} is {}", shown(value)),
    };
    NegotiationError::of(NegotiationErrorKind::ParamInvalid, feature, detail)
}

pub(super) fn note(feature: &Feature, param: &str, done: &str) -> String {
    let value = feature.param(param).map_or_else(String::new, shown);
    format!("{}: invalid {param} ({value}), {done}", feature.name)
}

fn shown(param: &Param) -> String {
    match param {
        Param::Int(value) => value.to_string(),
        Param::Bool(value) => value.to_string(),
        Param::Text(value) => format!("{:?}", value.chars().take(64).collect::<String>()),
        Param::Other => "neither a whole number, a string nor a boolean".to_owned(),
    }
}
