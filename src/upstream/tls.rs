//! Whom the client trusts: the authorities of this machine and those of Mozilla's list, so that it works in a bare
//! container as well as behind a company's own authority. Verification cannot be turned off.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

pub(super) fn config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let own = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(own.certs);
    tracing::debug!(added, ignored, unreadable = own.errors.len(), "read the machine's certificate authorities");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}
