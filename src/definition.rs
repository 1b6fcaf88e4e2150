//! What is wrong with a definition that an operator writes: the settings of a queue, a concert, a
//! coupon, a reward.

/// One rule that a definition breaks. A definition is written only when it breaks none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionViolation {
    /// The path of the field, such as `sections[0].price`; empty for the whole definition.
    pub field: String,
    /// Why its value is invalid: "must be from 1 to 100".
    pub message: String,
}

impl DefinitionViolation {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
