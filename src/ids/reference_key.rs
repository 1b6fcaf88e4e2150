//! The key of a provider's reference: what a reference is claimed by, so that it pays once.

use sha2::{Digest, Sha256};

use crate::partition::HashSlot;

/// The first 16 bytes of the SHA-256 of provider and reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferenceKey([u8; 16]);

impl ReferenceKey {
    pub fn of(provider: &str, reference: &str) -> Self {
        let mut hash = Sha256::new();
        // A provider has no space, so the two can't be confused.
        hash.update(provider.as_bytes());
        hash.update(b" ");
        hash.update(reference.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The slot of the claim. `payments.reference_slot` has the same number.
    pub fn slot(&self) -> HashSlot {
        HashSlot::from_low_bits(u16::from_be_bytes([self.0[6], self.0[7]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_depends_on_provider_and_reference() {
        let key = ReferenceKey::of("toss", "pay_1");
        assert_eq!(key, ReferenceKey::of("toss", "pay_1"));
        for other in [ReferenceKey::of("stripe", "pay_1"), ReferenceKey::of("toss", "pay_2")] {
            assert_ne!(key, other);
        }
        assert!(key.slot().get() < crate::partition::HASH_SLOTS);
    }
}
