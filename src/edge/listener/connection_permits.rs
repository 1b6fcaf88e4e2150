//! Permits limit the concurrent connections, in total and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::peer::network;
use crate::telemetry::Metric;

/// The permits of one listener.
pub(super) struct ConnectionPermits {
    total: Arc<Semaphore>,
    addresses: Arc<PermitsByAddress>,
}

/// Connections per address. Addresses without connections have no entry, so the map stays small.
struct PermitsByAddress {
    max: u32,
    open_connections: Gauge,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

/// A permit that is not yet assigned to an address.
pub(super) struct AvailablePermit<'a>(&'a ConnectionPermits, OwnedSemaphorePermit);

/// A permit, held as long as its connection is open.
pub(super) struct ConnectionPermit {
    addresses: Arc<PermitsByAddress>,
    /// `None` when connections per address are not limited.
    address: Option<IpAddr>,
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
            addresses: Arc::new(addresses),
        }
    }

    /// Waits for a permit. Never `None`, because the semaphore is never closed.
    pub(super) async fn acquire(&self) -> Option<AvailablePermit<'_>> {
        self.total.clone().acquire_owned().await.ok().map(|permit| AvailablePermit(self, permit))
    }
}

impl AvailablePermit<'_> {
    /// The permit for a connection from `address`. `None` when the address has its maximum.
    pub(super) fn for_address(self, address: IpAddr) -> Option<ConnectionPermit> {
        let addresses = self.0.addresses.clone();
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
        Some(ConnectionPermit { addresses, address: counted, _permit: self.1 })
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
}
