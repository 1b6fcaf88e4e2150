//! The settings of JWT verification.

use std::path::PathBuf;

use secrecy::SecretString;

#[derive(Debug, Clone)]
pub enum JwtKeySource {
    /// A secret shared with the issuer, for HS256.
    Secret(SecretString),
    /// A JWKS file, which is reloaded when it changes.
    File(PathBuf),
}

#[derive(Debug, Clone)]
pub struct JwtSettings {
    pub source: JwtKeySource,
    /// The required content of `aud`. `None`: not checked.
    pub audience: Option<String>,
    /// The required value of `iss`. `None`: not checked.
    pub issuer: Option<String>,
}
