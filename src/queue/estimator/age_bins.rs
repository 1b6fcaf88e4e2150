//! Durations in bins that are narrow for short durations and wide for long ones.

use crate::redis::constants;

/// Ages below this many units have one bin per unit; above, each octave has as many bins.
const BINS_PER_OCTAVE: u64 = 16;
/// The width of the narrowest age bin in milliseconds.
const BIN_UNIT_MS: u64 = 250;
/// The number of age bins: they cover 90,000 seconds, the longest visit and one hold.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) const AGE_BINS: usize = constants::AGE_BINS as usize;

/// The number of the age bin of a duration. `lua/lib/turnover.lua` computes the same.
pub(super) fn age_bin(age_ms: u64) -> usize {
    let units = age_ms / BIN_UNIT_MS;
    if units < BINS_PER_OCTAVE {
        return usize::try_from(units).unwrap_or(0);
    }
    let shift = u64::from(units.ilog2() - BINS_PER_OCTAVE.ilog2());
    let bin = shift * BINS_PER_OCTAVE + (units >> shift);
    usize::try_from(bin).map_or(AGE_BINS - 1, |bin| bin.min(AGE_BINS - 1))
}

/// The lower bound of an age bin in seconds.
pub(super) fn bin_start(bin: usize) -> f64 {
    let unit = BIN_UNIT_MS as f64 / 1_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let per_octave = BINS_PER_OCTAVE as usize;
    if bin < per_octave {
        return bin as f64 * unit;
    }
    let shift = (bin - per_octave) / per_octave;
    (per_octave + bin % per_octave) as f64 * (1_u64 << shift) as f64 * unit
}

pub(super) fn bin_width(bin: usize) -> f64 {
    bin_start(bin + 1) - bin_start(bin)
}

pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is right")]
pub(super) fn bin_of_seconds(age: f64) -> usize {
    age_bin((age * 1_000.0) as u64)
}
