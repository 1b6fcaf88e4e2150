//! The reason that an operator gives for a call.

use super::ProblemDetails;

/// In characters.
const MAX_LENGTH: usize = 500;

/// # Errors
/// 422 for a reason that is empty, too long or has control characters.
pub fn check(reason: &str) -> Result<(), ProblemDetails> {
    let length = reason.chars().count();
    if !(1..=MAX_LENGTH).contains(&length) || reason.chars().any(char::is_control) {
        return Err(ProblemDetails::invalid_field("reason", "must have 1 to 500 characters"));
    }
    Ok(())
}
