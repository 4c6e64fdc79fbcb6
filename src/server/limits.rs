//! How much one tenant may ask of this server: requests in a second, and at a time. None by default.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::keys::TenantName;
use super::rate::{Rate, Spent};
use crate::decision::Tenant;

/// What one tenant may do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TenantLimit {
    pub rate: Option<Rate>,
    /// Most requests that are answered at a time.
    pub in_flight: Option<usize>,
}

/// What every tenant may do, and some tenants of their own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantLimits {
    pub each: TenantLimit,
    pub own: HashMap<TenantName, TenantLimit>,
}

/// Who did how much.
pub struct Traffic {
    allowed: RwLock<Allowed>,
    started: Instant,
    tenants: Arc<Mutex<HashMap<Tenant, Load>>>,
}

/// How much.
struct Allowed {
    each: TenantLimit,
    own: HashMap<Tenant, TenantLimit>,
}

impl From<TenantLimits> for Allowed {
    fn from(limits: TenantLimits) -> Self {
        let TenantLimits { each, own } = limits;
        Self { each, own: own.into_iter().map(|(name, limit)| (name.tenant(), limit)).collect() }
    }
}

/// What a tenant has under way.
#[derive(Default)]
struct Load {
    spent: Spent,
    in_flight: usize,
}

/// Why a tenant has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMuch {
    pub(super) wait: Duration,
    /// What there is too much of.
    pub(super) what: &'static str,
}

impl Traffic {
    pub fn new(limits: TenantLimits) -> Self {
        Self { allowed: RwLock::new(limits.into()), started: Instant::now(), tenants: Arc::default() }
    }

    /// Other limits for requests to come. What was spent stays spent, but for what the new ones would not even have lent.
    pub(super) fn limit(&self, limits: TenantLimits) {
        *self.allowed.write() = limits.into();
        let now = self.started.elapsed();
        for (tenant, load) in &mut *self.tenants.lock() {
            if let Some(rate) = self.limit_of(tenant).rate {
                load.spent = load.spent.at_most(rate, now);
            }
        }
    }

    fn limit_of(&self, tenant: &Tenant) -> TenantLimit {
        let Allowed { each, own } = &*self.allowed.read();
        *own.get(tenant).unwrap_or(each)
    }

    /// Lets one more request of the tenant in, until the permit is dropped; `None` where nothing is limited.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn admit(&self, tenant: &Tenant) -> Result<Option<Permit>, TooMuch> {
        let limit = self.limit_of(tenant);
        if limit == TenantLimit::default() {
            return Ok(None);
        }
        let now = self.started.elapsed();
        let mut tenants = self.tenants.lock();
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(tenant) {
            // Whoever has nothing under way and nothing spent is as good as new.
            tenants.retain(|_, load| load.in_flight > 0 || !load.spent.is_over(now));
        }
        let load = tenants.entry(tenant.clone()).or_default();
        if limit.in_flight.is_some_and(|most| load.in_flight >= most) {
            return Err(TooMuch { wait: Duration::from_secs(1), what: "requests at a time" });
        }
        if let Some(rate) = limit.rate {
            load.spent = load.spent.and_one(rate, now).map_err(|wait| TooMuch { wait, what: "requests a second" })?;
        }
        load.in_flight += 1;
        Ok(Some(Permit { tenants: Arc::clone(&self.tenants), tenant: tenant.clone() }))
    }
}

/// A request under way, until it is dropped.
pub(super) struct Permit {
    tenants: Arc<Mutex<HashMap<Tenant, Load>>>,
    tenant: Tenant,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(load) = self.tenants.lock().get_mut(&self.tenant) {
            load.in_flight = load.in_flight.saturating_sub(1);
        }
    }
}

/// Beyond so many tenants those that do nothing are forgotten.
const TENANTS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(each: TenantLimit, acme: TenantLimit) -> Traffic {
        let acme = (TenantName::parse("acme").expect("a name"), acme);
        Traffic::new(TenantLimits { each, own: HashMap::from([acme]) })
    }

    fn acme() -> Tenant {
        TenantName::parse("acme").expect("a name").tenant()
    }

    #[test]
    fn a_permit_counts_until_it_is_dropped() {
        let most = |in_flight| TenantLimit { rate: None, in_flight: Some(in_flight) };
        let traffic = traffic(most(1), most(2));
        let permits: Vec<_> = (0..2).map(|_| traffic.admit(&acme()).expect("room")).collect();
        assert_eq!(traffic.admit(&acme()).map(drop).expect_err("full").what, "requests at a time");
        let other = traffic.admit(&Tenant::new("other")).expect("nobody's neighbour");
        assert!(traffic.admit(&Tenant::new("other")).is_err());
        drop((permits, other));
        assert!(traffic.admit(&acme()).is_ok() && traffic.admit(&Tenant::new("other")).is_ok());
    }

    #[test]
    fn a_tenant_has_its_own_rate() {
        // Slow enough that no time passes in which one comes back.
        let rate = |burst| TenantLimit { rate: Rate::new(0.001, burst), in_flight: None };
        let traffic = traffic(rate(1), rate(3));
        let admitted = |tenant: &Tenant| (0..10).filter(|_| traffic.admit(tenant).is_ok()).count();
        assert_eq!((admitted(&acme()), admitted(&Tenant::new("a")), admitted(&Tenant::new("b"))), (3, 1, 1));
    }

    #[test]
    fn tenants_that_do_nothing_are_forgotten() {
        let traffic = traffic(TenantLimit { rate: None, in_flight: Some(1) }, TenantLimit::default());
        assert!(traffic.admit(&acme()).expect("no limit").is_none());
        let busy = traffic.admit(&Tenant::new("busy")).expect("room");
        for n in 0..3 * TENANTS_MAX {
            assert!(traffic.admit(&Tenant::new(n.to_string())).is_ok());
        }
        assert!(traffic.tenants.lock().len() <= TENANTS_MAX);
        assert!(traffic.admit(&Tenant::new("busy")).is_err(), "it is still under way");
        drop(busy);
    }
}
