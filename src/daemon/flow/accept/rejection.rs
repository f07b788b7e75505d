//! Why a request was not accepted.

use crate::api::bodies::Candidate;
use crate::store::Error as StoreError;
use claudemesh_base::message::MetaError;
use claudemesh_fsm::id::IdError;

/// Why a request consumed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The header's id and the body's differ.
    IdsDisagree,
    /// The id cannot be one.
    BadId(IdError),
    /// A field has the right type and a bad value.
    BadField {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: String,
    },
    /// `meta` cannot be fingerprinted.
    BadMeta(MetaError),
    /// Several meshes are attached and nothing says which.
    MeshRequired {
        /// The attached meshes.
        attached: Vec<String>,
    },
    /// That mesh is not attached.
    MeshNotAttached(String),
    /// That mesh's broker will not have us.
    MeshRefused {
        /// The mesh.
        mesh: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Several members have that name.
    Ambiguous {
        /// The name.
        to: String,
        /// Who.
        candidates: Vec<Candidate>,
    },
    /// Nobody has ever had that name.
    Unknown {
        /// The name.
        to: String,
        /// The mesh that was searched.
        mesh: String,
    },
    /// No roster was ever fetched.
    Unresolvable {
        /// The name.
        to: String,
        /// The mesh.
        mesh: String,
    },
    /// The frame would be too heavy.
    TooLarge {
        /// The mesh.
        mesh: String,
        /// What it would weigh.
        frame_bytes: usize,
        /// What the mesh allows.
        frame_bytes_max: usize,
    },
    /// The outbox did not take it.
    Store(StoreError),
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
