//! `wss://`, with a certificate authority of our own that lives until 2120.

use super::rig::{Peer, Rig, rig_at};
use crate::link::TlsRoots;
use async_tungstenite::accept_async;
use data_encoding::BASE64;
use futures_rustls::TlsAcceptor;
use futures_rustls::pki_types::PrivateKeyDer;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use std::sync::Arc;

/// The authority, DER.
const ROOT: &str = "\
    MIIBXDCCAQGgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAl0ZXN0IHJvb3QwIBcNMjAwMTAxMDAw\
    MDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCXRlc3Qgcm9vdDBZMBMGByqGSM49AgEGCCqGSM49\
    AwEHA0IABAQSR0o03C908hKNiTplOrnvd3wosFNcms1QolbBbh6wnsnlS0vCGw8b/OBZ0ltOvGq3qDT0b9WK\
    KWtVwkmwk8CjQjBAMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMB0GA1UdDgQWBBR1nQciMeE0\
    skV8dWiEBkAZgzzrjzAKBggqhkjOPQQDAgNJADBGAiEAqY5+WJE18B7r1VCRJcJ6LrkvBR7UozXW13/APgbw\
    sxgCIQCzYhOH1Vc1M6xRGii3ot6TtOBr7woMNBKSpoMlzyhfhQ==";
/// What it vouches for: `localhost`.
const LEAF: &str = "\
    MIIBkTCCATegAwIBAgIBAzAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAl0ZXN0IHJvb3QwIBcNMjAwMTAxMDAw\
    MDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49\
    AwEHA0IABGDaMX8wqYi+QvjCy+uWk+tyl/S4pG6vw0ibCUj8y/o6B+siPJIF3NrMhImNUVgiikh6nks3FWYF\
    Av5usy5mlYSjeDB2MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAJBgNVHRMEAjAAMBMGA1UdJQQMMAoGCCsGAQUF\
    BwMBMB0GA1UdDgQWBBRwyVs3/clUwrBw1FtUVEcjA1ZJ+zAfBgNVHSMEGDAWgBR1nQciMeE0skV8dWiEBkAZ\
    gzzrjzAKBggqhkjOPQQDAgNIADBFAiAsMtBFP6xcmUSYI8PLeT+QEcLfnAMgvSQG6Csx0og1KgIhALff7H2r\
    AJs3747N0t1hOzcSkf7j0q0rrbYxiE36Dqp7";
/// The leaf's key, PKCS#8.
const KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZfc3piO9fmb+TWhIul8Sw2EfNLr9i6o9cpIO\
    5+EWk9GhRANCAARg2jF/MKmIvkL4wsvrlpPrcpf0uKRur8NImwlI/Mv6OgfrIjySBdzazISJjVFYIopIep5L\
    NxVmBQL+brMuZpWE";

fn der(base64: &str) -> Vec<u8> {
    BASE64.decode(base64.as_bytes()).expect("base64")
}

fn acceptor() -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(der(KEY)).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![der(LEAF).into()], key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}

#[test]
fn a_broker_behind_tls_is_reached_when_its_authority_is_trusted() {
    let config = Rig::config(|config| config.tls_roots = TlsRoots::Only(vec![der(ROOT)]));
    rig_at(config, "wss://localhost:PORT/ws", |rig| async move {
        let tls = acceptor().accept(rig.accept_tcp().await).await.expect("TLS");
        let mut peer = Peer(accept_async(tls).await.expect("a WebSocket"));
        peer.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_broker_that_nobody_trusted_vouches_for_is_not_spoken_to() {
    for roots in [TlsRoots::Platform, TlsRoots::BuiltIn] {
        let config = Rig::config(|config| config.tls_roots = roots);
        rig_at(config, "wss://localhost:PORT/ws", |rig| async move {
            assert!(acceptor().accept(rig.accept_tcp().await).await.is_err());
            let reason = rig.waiting().await.reason.expect("reason");
            assert!(reason.contains("certificate"), "{reason}");
        });
    }
}

#[test]
fn a_certificate_for_another_name_is_not_good_enough() {
    let config = Rig::config(|config| config.tls_roots = TlsRoots::Only(vec![der(ROOT)]));
    rig_at(config, "wss://127.0.0.1:PORT/ws", |rig| async move {
        assert!(acceptor().accept(rig.accept_tcp().await).await.is_err());
        let reason = rig.waiting().await.reason.expect("reason");
        assert!(reason.contains("TLS"), "{reason}");
    });
}
