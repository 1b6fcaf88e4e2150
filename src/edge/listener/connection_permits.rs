//! Permits limit the concurrent connections, in total and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::peer::network;
use crate::telemetry::Metric;

/// Connections above the total that are accepted at one time, each for one response. They need no
/// more than the descriptors that are reserved for them ([`crate::edge::file_descriptors`]).
const MAX_OVERFLOW_CONNECTIONS: usize = 100;

/// The permits of one listener.
pub(super) struct ConnectionPermits {
    total: Arc<Semaphore>,
    /// For connections above the total.
    overflow: Arc<Semaphore>,
    addresses: Arc<PermitsByAddress>,
}

/// Connections per address. Addresses without connections have no entry, so the map stays small.
struct PermitsByAddress {
    max: u32,
    open_connections: Gauge,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

/// A permit that is not yet assigned to an address.
pub(super) struct AvailablePermit<'a> {
    permits: &'a ConnectionPermits,
    permit: OwnedSemaphorePermit,
    is_overflow: bool,
}

/// A permit, held as long as its connection is open.
pub(super) struct ConnectionPermit {
    addresses: Arc<PermitsByAddress>,
    /// `None` when connections per address are not limited.
    address: Option<IpAddr>,
    /// Whether the connection is above the total, so that it must end after one response.
    pub(super) is_overflow: bool,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermits {
    /// At most `total` connections, and `per_address` from one address; 0 disables the limit per
    /// address.
    pub(super) fn new(total: usize, per_address: u32) -> Self {
        let open_connections = Metric::Connections.gauge(&[]);
        let addresses =
            PermitsByAddress { max: per_address, open_connections, counts: Mutex::default() };
        Self {
            total: Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))),
            overflow: Arc::new(Semaphore::new(MAX_OVERFLOW_CONNECTIONS)),
            addresses: Arc::new(addresses),
        }
    }

    /// Waits for a permit, of the total if one is free. Never `None`, because the semaphores are
    /// never closed.
    pub(super) async fn acquire(&self) -> Option<AvailablePermit<'_>> {
        let (permit, is_overflow) = tokio::select! {
            biased;
            permit = self.total.clone().acquire_owned() => (permit.ok()?, false),
            permit = self.overflow.clone().acquire_owned() => (permit.ok()?, true),
        };
        Some(AvailablePermit { permits: self, permit, is_overflow })
    }
}

impl AvailablePermit<'_> {
    /// The permit for a connection from `address`. `None` when the address has its maximum.
    pub(super) fn for_address(mut self, address: IpAddr) -> Option<ConnectionPermit> {
        // A connection may have ended since this permit was acquired.
        if self.is_overflow
            && let Ok(permit) = self.permits.total.clone().try_acquire_owned()
        {
            (self.permit, self.is_overflow) = (permit, false);
        }
        let addresses = self.permits.addresses.clone();
        let counted = (addresses.max > 0).then(|| network(address.to_canonical()));
        if let Some(address) = counted {
            let mut counts = addresses.counts();
            let count = counts.entry(address).or_default();
            if *count >= addresses.max {
                return None;
            }
            *count += 1;
        }
        addresses.open_connections.increment(1.0);
        let (is_overflow, permit) = (self.is_overflow, self.permit);
        Some(ConnectionPermit { addresses, address: counted, is_overflow, _permit: permit })
    }
}

impl PermitsByAddress {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.addresses.open_connections.decrement(1.0);
        let Some(address) = self.address else { return };
        let mut counts = self.addresses.counts();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn address_has_its_maximum_and_leaves_no_entry() {
        let permits = ConnectionPermits::new(4, 2);
        let connect = async |address: &str| {
            permits.acquire().await.unwrap().for_address(address.parse().unwrap())
        };
        let (one, two) =
            (connect("2001:db8::1").await.unwrap(), connect("2001:db8::2").await.unwrap());
        assert!(connect("2001:db8::3").await.is_none(), "a /64 counts as one address");
        let other = connect("2001:db8:0:1::1").await.unwrap();
        drop(one);
        let again = connect("2001:db8::3").await.unwrap();
        let mapped = connect("::ffff:192.0.2.1").await.unwrap();
        assert!(permits.addresses.counts().contains_key(&"192.0.2.1".parse().unwrap()));
        drop((two, other, again, mapped));
        assert!(permits.addresses.counts().is_empty());
        assert_eq!(permits.total.available_permits(), 4);
    }

    #[tokio::test]
    async fn connections_above_the_total_are_marked_until_one_ends() {
        let permits = ConnectionPermits::new(1, 0);
        let address = "192.0.2.1".parse().unwrap();
        let first = permits.acquire().await.unwrap().for_address(address).unwrap();
        let second = permits.acquire().await.unwrap().for_address(address).unwrap();
        assert_eq!((first.is_overflow, second.is_overflow), (false, true));
        let third = permits.acquire().await.unwrap();
        drop(first);
        assert!(!third.for_address(address).unwrap().is_overflow, "a connection has ended");
    }
}
