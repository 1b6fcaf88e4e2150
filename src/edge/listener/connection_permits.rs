//! How many connections stand, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::peer::network;
use crate::telemetry::Metric;

/// The places of one listener.
pub(super) struct ConnectionPermits {
    all: Arc<Semaphore>,
    addresses: Arc<PermitsByAddress>,
}

/// Who has how many. An address without connections has no entry, so there are never more entries than connections.
struct PermitsByAddress {
    most: u32,
    standing: Gauge,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

/// A place that nobody has yet.
pub(super) struct AvailablePermit<'a>(&'a ConnectionPermits, OwnedSemaphorePermit);

/// A place, held as long as its connection stands.
pub(super) struct ConnectionPermit {
    addresses: Arc<PermitsByAddress>,
    /// None where addresses are not counted.
    address: Option<IpAddr>,
    _room: OwnedSemaphorePermit,
}

impl ConnectionPermits {
    /// So many in all, and from one address; 0 of an address is any number.
    pub(super) fn new(all: usize, per_address: u32) -> Self {
        let standing = Metric::Connections.gauge(&[]);
        let addresses = PermitsByAddress { most: per_address, standing, counts: Mutex::default() };
        Self {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            addresses: Arc::new(addresses),
        }
    }

    /// Waits until there is room for one more. Never none: the semaphore is not closed.
    pub(super) async fn room(&self) -> Option<AvailablePermit<'_>> {
        self.all.clone().acquire_owned().await.ok().map(|permit| AvailablePermit(self, permit))
    }
}

impl AvailablePermit<'_> {
    /// For a connection from this address, unless it has its share already.
    pub(super) fn of(self, address: IpAddr) -> Option<ConnectionPermit> {
        let addresses = self.0.addresses.clone();
        let counted = (addresses.most > 0).then(|| network(address.to_canonical()));
        if let Some(address) = counted {
            let mut counts = addresses.counts();
            let count = counts.entry(address).or_default();
            if *count >= addresses.most {
                return None;
            }
            *count += 1;
        }
        addresses.standing.increment(1.0);
        Some(ConnectionPermit { addresses, address: counted, _room: self.1 })
    }
}

impl PermitsByAddress {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.addresses.standing.decrement(1.0);
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
    async fn an_address_has_its_share_and_leaves_nothing_behind() {
        let slots = ConnectionPermits::new(4, 2);
        let of = async |address: &str| slots.room().await.unwrap().of(address.parse().unwrap());
        let (one, two) = (of("2001:db8::1").await.unwrap(), of("2001:db8::2").await.unwrap());
        assert!(of("2001:db8::3").await.is_none(), "a /64 is one");
        let other = of("2001:db8:0:1::1").await.unwrap();
        drop(one);
        let again = of("2001:db8::3").await.unwrap();
        let mapped = of("::ffff:192.0.2.1").await.unwrap();
        assert!(slots.addresses.counts().contains_key(&"192.0.2.1".parse().unwrap()));
        drop((two, other, again, mapped));
        assert!(slots.addresses.counts().is_empty());
        assert_eq!(slots.all.available_permits(), 4);
    }
}
