//! Settings of `usher dev`, which starts its own stores and generates its secrets. The secrets are
//! stored, so that keys and tokens survive a restart.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::args::DevArgs;
use super::check::{InvalidSettings, SettingsChecker, given};
use super::{HttpSettings, StoreSettings, TokenKey, UsherConfig};
use crate::dev::simulated_users::MAX_PEOPLE;
use crate::edge::admin_key::{AdminKey, AdminRole};
use crate::http::identity;
use crate::money::Money;

/// In the data directory.
const SECRETS_FILE: &str = "secrets.json";

#[derive(Debug, Clone)]
pub struct DevSettings {
    pub http: HttpSettings,
    /// Directory for the data of the private servers.
    pub data_dir: PathBuf,
    /// Simulated users at the start.
    pub simulated_users: u32,
    /// What charges and rewards may bring a balance to.
    pub wallet_limit: Money,
}

/// The generated secrets of one data directory.
#[derive(Debug, Clone)]
pub struct DevSecrets {
    pub admin_key: SecretString,
    /// Derived from the secret of the tokens.
    pub service_key: SecretString,
    pub token_key: TokenKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSecrets {
    admin_key: String,
    token_secret: String,
}

impl DevSettings {
    /// Validates the settings of `usher dev`.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn new(args: &DevArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let http = HttpSettings::read(&args.listen, &args.http, &mut check);
        let wallet_limit = args.wallet.limit(&mut check);
        let users = check.number("USHER_CROWD", args.crowd.as_deref(), 0..=MAX_PEOPLE, 0);
        check.finish()?;
        let data_dir = given(args.data_dir.as_deref()).unwrap_or(".usher").into();
        http.zip(wallet_limit)
            .map(|(http, wallet_limit)| Self {
                http,
                data_dir,
                simulated_users: users,
                wallet_limit,
            })
            .ok_or_else(InvalidSettings::default)
    }
}

impl DevSecrets {
    /// Loads the secrets from `data_dir`, which must exist. Generates and stores them, readable by
    /// the owner only, if the file is missing.
    ///
    /// # Errors
    /// When the file can't be read or written, or is invalid.
    pub fn load_or_create(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SECRETS_FILE);
        let stored = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| with_path(&path, error.into()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let stored =
                    StoredSecrets { admin_key: random_secret(), token_secret: random_secret() };
                write_new(&path, &stored).map_err(|error| with_path(&path, error))?;
                stored
            }
            Err(error) => return Err(with_path(&path, error)),
        };
        let service_key = Sha256::digest(format!("service key {}", stored.token_secret));
        Ok(Self {
            admin_key: stored.admin_key.into(),
            service_key: service_key
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
            token_key: TokenKey { kid: "dev".to_owned(), secret: stored.token_secret.into() },
        })
    }

    /// The service key in plain text, for the banner of `usher dev`.
    pub fn service_key_in_plain_text(&self) -> &str {
        self.service_key.expose_secret()
    }

    /// The admin key in plain text, for the banner of `usher dev`.
    pub fn admin_key_in_plain_text(&self) -> &str {
        self.admin_key.expose_secret()
    }
}

impl UsherConfig {
    /// The settings of `usher dev`. Users are identified by the header `Usher-User` alone. The
    /// service key is for what only a booking backend may do.
    pub fn for_dev(dev: &DevSettings, stores: StoreSettings, secrets: &DevSecrets) -> Self {
        Self {
            http: dev.http.clone(),
            identity: identity::IdentitySettings {
                header: true,
                service_keys: vec![secrets.service_key.clone()],
                anyone_charges: true,
                ..identity::IdentitySettings::default()
            },
            admin_keys: vec![AdminKey {
                name: "admin".to_owned(),
                role: AdminRole::Admin,
                secret: secrets.admin_key.clone(),
            }],
            token_keys: vec![secrets.token_key.clone()],
            stores,
            warnings: Vec::new(),
        }
    }
}

/// 256 bits as 64 hexadecimal digits.
fn random_secret() -> String {
    let (high, low): (u128, u128) = rand::random();
    format!("{high:032x}{low:032x}")
}

/// Fails if the file exists, so that two processes that start together do not overwrite each
/// other's secrets.
fn write_new(path: &Path, stored: &StoredSecrets) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec_pretty(stored)?)
}

fn with_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that is removed at the end of the test.
    struct TestDirectory(PathBuf);

    impl TestDirectory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("usher-{:032x}", rand::random::<u128>()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn secrets_are_generated_once() {
        let directory = TestDirectory::new();
        let made = DevSecrets::load_or_create(&directory.0).unwrap();
        let kept = DevSecrets::load_or_create(&directory.0).unwrap();
        assert_eq!(made.admin_key_in_plain_text(), kept.admin_key_in_plain_text());
        assert_eq!(made.token_key.secret.expose_secret(), kept.token_key.secret.expose_secret());
        assert_ne!(made.admin_key_in_plain_text(), made.token_key.secret.expose_secret());
        assert_eq!(made.service_key_in_plain_text(), kept.service_key_in_plain_text());
        assert_eq!(made.service_key_in_plain_text().len(), 64);
        assert_eq!(made.admin_key_in_plain_text().len(), 64);
        let mode = std::fs::metadata(directory.0.join(SECRETS_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn invalid_file_is_an_error_with_its_path() {
        let directory = TestDirectory::new();
        std::fs::write(directory.0.join(SECRETS_FILE), "{").unwrap();
        let error = DevSecrets::load_or_create(&directory.0).unwrap_err();
        assert!(error.to_string().contains(SECRETS_FILE), "{error}");
        assert!(DevSecrets::load_or_create(&directory.0.join("missing")).is_err());
    }

    #[test]
    fn data_directory_has_a_default() {
        assert_eq!(DevSettings::new(&DevArgs::default()).unwrap().data_dir, Path::new(".usher"));
        let args = DevArgs { data_dir: Some("/x".to_owned()), ..DevArgs::default() };
        assert_eq!(DevSettings::new(&args).unwrap().data_dir, Path::new("/x"));
    }

    #[test]
    fn number_of_simulated_users_is_range_checked() {
        let users = |count: &str| {
            let args = DevArgs { crowd: Some(count.to_owned()), ..DevArgs::default() };
            DevSettings::new(&args)
                .map(|settings| settings.simulated_users)
                .map_err(|error| error.to_string())
        };
        assert_eq!(DevSettings::new(&DevArgs::default()).unwrap().simulated_users, 0);
        assert_eq!(users("5000"), Ok(5_000));
        assert!(
            users("5001")
                .unwrap_err()
                .contains("USHER_CROWD (--crowd): must be a number from 0 to 5000")
        );
    }
}
