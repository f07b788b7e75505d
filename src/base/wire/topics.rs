//! The frames about topics (`specs/wire.md`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Creates a topic, or finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCreate {
    /// Without the `#`.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `public`, `private` or `dm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// Echoed in the answer.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Names a topic by id or name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRef {
    /// Id or name.
    pub topic: String,
    /// Echoed in the answer.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Asks for a topic's past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicHistory {
    /// Id or name.
    pub topic: String,
    /// 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only messages before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_id: Option<String>,
    /// Echoed in the answer.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A topic was created, or was there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicCreated {
    /// The topic.
    pub topic: Topic,
    /// Whether it is new.
    #[serde(default)]
    pub created: bool,
    /// The request it answers.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The mesh's topics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicListResponse {
    /// Every topic the client may see.
    pub topics: Vec<Topic>,
    /// The request it answers.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One topic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// What `targetSpec` names after the `#`.
    pub id: String,
    /// Without the `#`.
    pub name: String,
    /// Description, visibility, member count and more.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}
