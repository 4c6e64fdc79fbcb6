//! Whose call is this? Decided before anything is looked up.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::App;
use super::error::ApiError;
use crate::decision::Tenant;
use crate::wire::problem::Problem;

/// Who shares entries with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenancy {
    /// Whoever calls with one provider key.
    PerKey,
    /// All callers.
    Single,
}

/// A random key of this installation, kept in its data folder.
pub struct Secret([u8; 32]);

impl Secret {
    /// For an installation without a data folder: other names after every start.
    ///
    /// # Errors
    /// The machine gives no random bytes.
    pub fn random() -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(SecretError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// The folder's secret, made at the first call. Only its owner can read it. It is kept twice, each with a check:
    /// without it no tenant finds its entries again.
    ///
    /// # Errors
    /// The files cannot be read or written, or both are damaged.
    pub fn open(folder: &Path) -> Result<Self, SecretError> {
        let paths = FILES.map(|name| folder.join(name));
        let mut found = None;
        let mut there = false;
        for path in &paths {
            match std::fs::read(path) {
                Ok(bytes) => {
                    there = true;
                    found = found.or(unchecked(&bytes));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(SecretError::Io { path: path.clone(), source }),
            }
        }
        match found {
            Some(bytes) => Self(bytes).write(folder),
            None if there => Err(SecretError::Damaged { path: paths[0].clone() }),
            None => Self::random()?.write(folder),
        }
    }

    /// Another secret in place of one that is lost.
    ///
    /// # Errors
    /// The files cannot be written, or the machine gives no random bytes.
    pub fn renew(folder: &Path) -> Result<Self, SecretError> {
        Self::random()?.write(folder)
    }

    fn write(self, folder: &Path) -> Result<Self, SecretError> {
        let checked = checked(&self.0);
        for path in &FILES.map(|name| folder.join(name)) {
            let is_whole = std::fs::read(path).is_ok_and(|bytes| bytes == checked);
            if !is_whole {
                write_private(path, &checked).map_err(|source| SecretError::Io { path: path.clone(), source })?;
            }
        }
        Ok(self)
    }

    /// The tenant of a caller's provider keys: a keyed hash of all of them.
    fn tenant(&self, provider_keys: &[&[u8]]) -> Tenant {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for key in provider_keys {
            hasher.update(&(key.len() as u64).to_le_bytes()).update(key);
        }
        Tenant::new(format!("key-{}", &hasher.finalize().to_hex()[..32]))
    }
}

const FILES: [&str; 2] = ["secret", "secret.copy"];

fn checked(secret: &[u8; 32]) -> Vec<u8> {
    [&secret[..], &blake3::hash(secret).as_bytes()[..8]].concat()
}

fn unchecked(bytes: &[u8]) -> Option<[u8; 32]> {
    let secret: [u8; 32] = bytes.get(..32)?.try_into().ok()?;
    (checked(&secret) == bytes).then_some(secret)
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;

    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Whole or not there: half a secret would be refused at every start.
    let partial = path.with_extension("partial");
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options.open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("secret file {}: {source}", path.display())]
    Io { path: std::path::PathBuf, source: std::io::Error },
    #[error("this machine gives no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    #[error("secret file {} and its copy are damaged", path.display())]
    Damaged { path: std::path::PathBuf },
}

/// Puts the caller's tenant into the request's extensions, or none where there is nobody to keep entries for.
pub(super) async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let local = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    match tenant_of(&app, request.headers(), local) {
        Ok(tenant) => {
            if let Some(tenant) = tenant {
                request.extensions_mut().insert(tenant);
            }
            next.run(request).await
        }
        Err(problem) => ApiError::from(problem).into_response(),
    }
}

fn tenant_of(app: &App, headers: &HeaderMap, local: bool) -> Result<Option<Tenant>, Problem> {
    let key_name = http::HeaderName::from_static("x-api-key");
    for name in [AUTHORIZATION, key_name.clone()] {
        if headers.get_all(&name).iter().count() > 1 {
            return Err(Problem::invalid(name.as_str(), format!("{name}: must be given once at most")));
        }
    }
    if app.tenancy == Tenancy::Single {
        return Ok(Some(Tenant::new("single")));
    }
    let keys: Vec<&[u8]> =
        [AUTHORIZATION, key_name].iter().filter_map(|name| headers.get(name)).map(provider_key).collect();
    if headers.contains_key("x-nearhit-key") || keys.iter().any(|key| key.starts_with(b"nh_")) {
        // Whoever sends one expects the tenant that it names, and must not get another.
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "this server has no keys of its own"));
    }
    Ok(match keys.as_slice() {
        [] if local => Some(Tenant::new("local")),
        [] => None,
        keys => Some(app.secret.tenant(keys)),
    })
}

/// The key in a header's value.
fn provider_key(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    value.strip_prefix(b"Bearer ").unwrap_or(value)
}

/// Refuses names that are not this machine's: a listener that only this machine reaches is reached by web pages too,
/// under names of their own (DNS rebinding).
pub(super) async fn local_names_only(request: Request, next: Next) -> Response {
    let in_uri = request.uri().authority().map(|authority| authority.as_str());
    let host = in_uri.or_else(|| request.headers().get(HOST)?.to_str().ok());
    if let Some(host) = host.filter(|host| !is_local_name(host)) {
        let message = format!("host: {host:?} is not a name of this machine; this listener is for local callers only");
        let problem = Problem::new(StatusCode::FORBIDDEN, "foreign_host", message);
        return ApiError::from(Problem { param: Some("host".into()), ..problem }).into_response();
    }
    // A page from elsewhere may send what needs no preflight; it cannot leave its origin out.
    let origin = request.headers().get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned());
    if let Some(origin) = origin.filter(|origin| !is_local_origin(origin)) {
        let message = format!("origin: {origin:?} is not this machine; this listener is for local callers only");
        let problem = Problem::new(StatusCode::FORBIDDEN, "foreign_origin", message);
        return ApiError::from(Problem { param: Some("origin".into()), ..problem }).into_response();
    }
    next.run(request).await
}

fn is_local_origin(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, host)| is_local_name(host))
}

/// `localhost` or a loopback address, with or without a port.
fn is_local_name(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let name = if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// The caller's tenant, for handlers that need one.
pub(super) struct Caller(pub(super) Tenant);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Tenant>().cloned().map(Self).ok_or(ApiError::NoTenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_origins() {
        fn check(origin: &str, local: bool) {
            assert_eq!(is_local_origin(origin), local, "{origin}");
        }
        check("http://localhost:3000", true);
        check("https://127.0.0.1", true);
        check("https://example.com", false);
        check("http://localhost.example.com:8080", false);
        check("null", false);
        check("", false);
    }

    #[test]
    fn local_names() {
        fn check(host: &str, local: bool) {
            assert_eq!(is_local_name(host), local, "{host}");
        }
        check("localhost", true);
        check("LocalHost:8080", true);
        check("127.0.0.1:8080", true);
        check("127.9.9.9", true);
        check("[::1]:8080", true);
        check("[::1]", true);
        check("example.com", false);
        check("example.com:8080", false);
        check("localhost.example.com:8080", false);
        check("127.0.0.1.example.com", false);
        check("192.168.0.1:8080", false);
        check("x/?", false);
        check("", false);
    }
}
