//! Which certificate authorities a `wss://` broker may be vouched for by.
//!
//! Builds the TLS client and nothing else: no certificate is ever accepted unchecked.

use claudemesh_base::runtime::Runtime;
use futures_rustls::TlsConnector;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The certificate authorities to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TlsRoots {
    /// Mozilla's, compiled in, and those of this host's own store.
    #[default]
    Platform,
    /// Mozilla's alone.
    BuiltIn,
    /// These alone, each a DER certificate.
    Only(Vec<Vec<u8>>),
}

/// Why there is no TLS client. The text is the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A certificate of [`TlsRoots::Only`] is none.
    #[error("a trusted root is no certificate: {0}")]
    BadRoot(String),
    /// The cryptography at hand speaks no TLS version.
    #[error("no usable TLS version: {0}")]
    NoVersion(String),
}

/// The TLS client of one link, made when it is first needed.
pub(super) struct Tls {
    roots: TlsRoots,
    connector: Option<TlsConnector>,
}

impl Tls {
    pub(super) fn new(roots: TlsRoots) -> Self {
        Self { roots, connector: None }
    }

    /// The client. Reading the host's store takes long, so another thread does it, once.
    ///
    /// # Errors
    /// When a root of [`TlsRoots::Only`] is no certificate.
    pub(super) async fn connector(&mut self, runtime: &Runtime) -> Result<&TlsConnector, TlsError> {
        let made = match self.connector.take() {
            Some(made) => made,
            None => {
                let roots = self.roots.clone();
                let gone = || Err(TlsError::NoVersion("the roots could not be read".to_owned()));
                runtime.unblock(move || connector(&roots)).await.unwrap_or_else(gone)?
            }
        };
        Ok(self.connector.insert(made))
    }
}

fn connector(roots: &TlsRoots) -> Result<TlsConnector, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::NoVersion(error.to_string()))?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn store(roots: &TlsRoots) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        TlsRoots::Only(certificates) => {
            for certificate in certificates {
                let added = store.add(certificate.clone().into());
                added.map_err(|error| TlsError::BadRoot(error.to_string()))?;
            }
        }
        TlsRoots::BuiltIn => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        TlsRoots::Platform => {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            // A host without a store, or with a broken certificate in it, still has Mozilla's.
            let native = rustls_native_certs::load_native_certs();
            let (added, ignored) = store.add_parsable_certificates(native.certs);
            tracing::debug!(added, ignored, errors = native.errors.len(), "native TLS roots");
        }
    }
    Ok(store)
}
