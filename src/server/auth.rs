//! Whose call is this? Decided before anything is looked up.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HOST, HeaderValue, ORIGIN, RETRY_AFTER};

use super::credentials::Credentials;
use super::error::ApiError;
use super::keys::{KeyRecord, KeyScope, KeysInForce};
use super::limits::{Permit, TooMuch};
use super::{App, scopes};
use crate::body::{Holding, discard, problem_response};
use crate::decision::Tenant;
use crate::upstream::WithOperatorsKey;
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

pub(super) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
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
    give_to_owner_of_folder(&file, path);
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

/// A file that root writes beside those of a server's user is for that user. Whoever may not give it away keeps it.
#[cfg(unix)]
pub(super) fn give_to_owner_of_folder(file: &std::fs::File, path: &Path) {
    use std::os::unix::fs::{MetadataExt, fchown};

    let give = || {
        let folder = std::fs::metadata(path.parent().unwrap_or(path))?;
        if file.metadata()?.uid() != folder.uid() {
            fchown(file, Some(folder.uid()), Some(folder.gid()))?;
        }
        Ok::<_, std::io::Error>(())
    };
    if let Err(error) = give() {
        tracing::debug!(%error, file = %path.display(), "it keeps its writer as owner");
    }
}

/// Elsewhere files have no such owner.
#[cfg(not(unix))]
pub(super) fn give_to_owner_of_folder(_: &std::fs::File, _: &Path) {}

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

/// Lets a caller in that may make this call: puts its tenant into the request's extensions, or none where there is
/// nobody to keep entries for.
pub(super) async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // A gRPC route serves all calls of its service.
    let route = route.map(|route| if route.ends_with("/{*method}") { uri.path() } else { route });
    let scope = scopes::needed(request.method(), route);
    match let_in(&app, &mut request, scope) {
        Ok(None) => next.run(request).await,
        Ok(Some(permit)) => next.run(request).await.map(|body| Body::new(Holding { body, _held: permit })),
        Err(refusal) => {
            discard(pin!(request.into_body()), app.live().settings().layer.body_bytes_max).await;
            refusal.into_response()
        }
    }
}

/// The same for a call of which somebody else has the body; what is returned is to be held until it is answered.
///
/// # Errors
/// Why the caller is not let in.
pub(super) fn let_in<B>(app: &App, request: &mut http::Request<B>, scope: KeyScope) -> Result<Option<Permit>, Refusal> {
    match admit(app, request, scope)? {
        Some(tenant) => Ok(app.traffic.admit(&tenant)?),
        None => Ok(None),
    }
}

/// Lets nobody but administrators in, where there is any key for them.
pub(super) async fn administrators_only(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let keys = app.keys.in_force();
    let allowed = Credentials::take(request.headers_mut()).map_err(Refusal::from).and_then(|credentials| {
        if keys.is_required_for_admin() {
            valid_key(&app, &keys, &credentials, KeyScope::Admin)?;
        }
        Ok(())
    });
    match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The caller's tenant. What the request then carries is for its handlers and the provider.
fn admit<B>(app: &App, request: &mut http::Request<B>, scope: KeyScope) -> Result<Option<Tenant>, Refusal> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let is_local = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    let credentials = Credentials::take(request.headers_mut())?;
    let keys = app.keys.in_force();
    let named = if keys.is_required() {
        let key = valid_key(app, &keys, &credentials, scope)?;
        request.extensions_mut().insert(Standing { key: Some(key.clone()), scope });
        if credentials.provider().is_empty() {
            request.extensions_mut().insert(WithOperatorsKey);
        }
        Some(key.tenant.tenant())
    } else if credentials.shown().is_some() {
        // Whoever sends one expects the tenant that it names, and must not get another.
        let problem = Problem::new(StatusCode::UNAUTHORIZED, INVALID_KEY, "this server has no keys of its own");
        return Err(problem.into());
    } else {
        request.extensions_mut().insert(Standing { key: None, scope });
        match credentials.provider().as_slice() {
            [] => is_local.then(|| Tenant::new("local")),
            keys => Some(app.secret.tenant(keys)),
        }
    };
    let tenant = match app.tenancy {
        Tenancy::Single => Some(Tenant::new("single")),
        Tenancy::PerKey => named,
    };
    if let Some(tenant) = &tenant {
        request.extensions_mut().insert(tenant.clone());
    }
    Ok(tenant)
}

/// The caller's key, if it is valid and for this. Why it is not valid is nobody's business: one refusal for all.
fn valid_key<'a>(
    app: &App,
    keys: &'a KeysInForce,
    credentials: &Credentials,
    scope: KeyScope,
) -> Result<&'a KeyRecord, Refusal> {
    let key = keys.check(credentials.shown().unwrap_or_default(), app.cache.now_ms()).ok_or_else(no_valid_key)?;
    if !key.allows(scope) {
        let message = format!("this key lacks the scope {:?}, which this call needs", scope.as_str());
        return Err(Problem::new(StatusCode::FORBIDDEN, "permission_denied", message).into());
    }
    Ok(key)
}

fn no_valid_key() -> Problem {
    let message = "a valid nearhit key is needed: x-nearhit-key: nh_..., or Authorization: Bearer nh_...";
    Problem::new(StatusCode::UNAUTHORIZED, INVALID_KEY, message)
}

/// By what a caller was let in: a call that goes on asks whether that still holds.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// `None` where calls needed none.
    key: Option<KeyRecord>,
    scope: KeyScope,
}

impl Standing {
    /// # Errors
    /// The caller would not be let in now.
    pub(super) fn check(&self, app: &App) -> Result<(), Problem> {
        let Self { key, scope } = self;
        let keys = app.keys.in_force();
        let holds = match key {
            Some(key) => keys.has(key, *scope, app.cache.now_ms()),
            None => !keys.is_required(),
        };
        if holds { Ok(()) } else { Err(no_valid_key()) }
    }
}

/// Why a call goes no further.
pub(super) struct Refusal {
    problem: Problem,
    /// How long it would be refused.
    wait: Option<Duration>,
}

impl Refusal {
    pub(super) fn into_response(self) -> Response {
        let mut response = problem_response(&self.problem);
        if let Some(wait) = self.wait {
            let whole_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_s.max(1)));
        }
        response.map(Body::new)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, wait: None }
    }
}

impl From<TooMuch> for Refusal {
    fn from(TooMuch { wait, what }: TooMuch) -> Self {
        let message =
            format!("too many {what} of this tenant; this is nearhit's own limit, the provider was not asked");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message);
        Self { problem, wait: Some(wait) }
    }
}

const INVALID_KEY: &str = "invalid_api_key";

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
