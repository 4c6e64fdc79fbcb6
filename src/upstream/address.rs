//! Which addresses are called. Models run on this machine and in private networks, so those are; addresses at which a
//! cloud gives a machine its credentials are not, whatever name leads there. What is judged is the address that is
//! connected to, after its name was resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::body::BoxError;

/// Resolves names to addresses that may be called.
#[derive(Debug, Clone)]
pub(super) struct Resolver(GaiResolver);

impl Resolver {
    pub(super) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let host = name.to_string();
        let resolved = self.0.call(name);
        Box::pin(async move {
            let all: Vec<SocketAddr> = resolved.await?.collect();
            let allowed: Vec<SocketAddr> = all.iter().copied().filter(|address| !is_refused(address.ip())).collect();
            if allowed.is_empty() && !all.is_empty() {
                return Err(Refused(host).into());
            }
            Ok(allowed.into_iter())
        })
    }
}

/// Connects within a time, and to no refused address that stands in the URL itself: nobody resolves that.
#[derive(Debug, Clone)]
pub struct Connector {
    inner: HttpsConnector<HttpConnector<Resolver>>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(inner: HttpsConnector<HttpConnector<Resolver>>, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default();
        if host.trim_matches(['[', ']']).parse().is_ok_and(is_refused) {
            let refused = Refused(host.to_owned());
            return Box::pin(async move { Err(refused.into()) });
        }
        let connected = tokio::time::timeout(self.timeout, self.inner.call(uri));
        Box::pin(async move { connected.await? })
    }
}

/// Why nothing was connected.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is a link-local address or one of a cloud's metadata service, which are never called")]
struct Refused(String);

/// Link-local addresses and those of metadata services, also where IPv6 carries them.
pub(super) fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_refused_v4(v4),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6 || carried(v6).is_some_and(is_refused_v4),
    }
}

fn is_refused_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || METADATA_V4.contains(&address)
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 or 6to4.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// Alibaba's, Oracle's (before it moved) and Azure's wire server; every other cloud's is link-local.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Amazon's over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |address: &str, refused: bool| {
            assert_eq!(is_refused(address.parse().expect("an address")), refused, "{address}");
        };
        for address in ["169.254.169.254", "169.254.0.1", "169.254.255.255", "100.100.100.200", "192.0.0.192"] {
            check(address, true);
            check(&format!("::ffff:{address}"), true);
            check(&format!("::{address}"), true);
            check(&format!("64:ff9b::{address}"), true);
        }
        for address in ["fe80::1", "febf::1", "fd00:ec2::254", "2002:a9fe:a9fe::1", "168.63.129.16"] {
            check(address, true);
        }
        for address in ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "169.253.0.1"] {
            check(address, false);
            check(&format!("::ffff:{address}"), false);
        }
        for address in ["::1", "fd00::1", "fec0::1", "2606:4700::1111", "fd00:ec2::253"] {
            check(address, false);
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_refused_address_is_refused() {
        let resolve = async |host: &str| {
            let found = Resolver::new().call(host.parse().expect("a name")).await;
            found.map(|addresses| addresses.count()).map_err(|error| error.to_string())
        };
        // The system's resolver reads numbers as addresses, in every notation.
        for host in ["2852039166", "0xa9fea9fe", "169.254.169.254", "0251.0376.0251.0376"] {
            let error = resolve(host).await.expect_err(host);
            assert!(error.contains("metadata") && error.contains(host), "{error}");
        }
        assert!(resolve("127.0.0.1").await.expect("loopback") > 0);
    }
}
