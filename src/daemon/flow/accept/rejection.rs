//! Why a request was not accepted.

use crate::mesh::roster::MemberMatch;
use crate::store::Error as StoreError;

/// Why a request consumed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
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
        candidates: Vec<MemberMatch>,
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
