//! Settings of `usher dev`: stores that it started itself, secrets that it made itself and keeps, so that tokens and keys outlive a
//! restart.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::args::DevArgs;
use super::check::{InvalidSettings, SettingsChecker, given};
use super::{HttpSettings, StoreSettings, TokenKey, UsherConfig};
use crate::dev::crowd::MOST_PEOPLE;
use crate::http::identity;

/// The file below the data directory.
const FILE: &str = "secrets.json";

/// What `usher dev` runs on.
#[derive(Debug, Clone)]
pub struct DevSettings {
    /// Listeners and bounds.
    pub http: HttpSettings,
    /// Where its servers keep their data.
    pub data_dir: PathBuf,
    /// How many people the demo crowd begins with.
    pub crowd: u32,
}

/// The secrets of one data directory.
#[derive(Debug, Clone)]
pub struct DevSecrets {
    /// The key of the admin listener.
    pub admin_key: SecretString,
    /// What signs queue tokens.
    pub token_key: TokenKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSecrets {
    admin_key: String,
    token_secret: String,
}

impl DevSettings {
    /// Checks what `usher dev` was given.
    ///
    /// # Errors
    /// All settings that are wrong.
    pub fn new(args: &DevArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let http = HttpSettings::read(&args.listen, &args.http, &mut check);
        let crowd = check.number("USHER_CROWD", args.crowd.as_deref(), 0..=MOST_PEOPLE, 0);
        check.finish()?;
        let data_dir = given(args.data_dir.as_deref()).unwrap_or(".usher").into();
        http.map(|http| Self { http, data_dir, crowd }).ok_or_else(InvalidSettings::default)
    }
}

impl DevSecrets {
    /// Those kept below `data_dir`, which must exist; made and written, readable by their owner alone, when there are none yet.
    ///
    /// # Errors
    /// When the file can't be read or written, or is not one of ours.
    pub fn load_or_make(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let stored = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| named(&path, error.into()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let stored = StoredSecrets { admin_key: random(), token_secret: random() };
                write(&path, &stored).map_err(|error| named(&path, error))?;
                stored
            }
            Err(error) => return Err(named(&path, error)),
        };
        Ok(Self {
            admin_key: stored.admin_key.into(),
            token_key: TokenKey { kid: "dev".to_owned(), secret: stored.token_secret.into() },
        })
    }

    /// The admin key in plain text, for the addresses and the tour that `usher dev` prints.
    pub fn admin_key_in_plain_text(&self) -> &str {
        self.admin_key.expose_secret()
    }
}

impl UsherConfig {
    /// The settings of `usher dev`: users are known by the header alone.
    pub fn for_dev(dev: &DevSettings, stores: StoreSettings, secrets: &DevSecrets) -> Self {
        Self {
            http: dev.http.clone(),
            identity: identity::IdentitySettings {
                header: true,
                ..identity::IdentitySettings::default()
            },
            admin_key: secrets.admin_key.clone(),
            token_keys: vec![secrets.token_key.clone()],
            stores,
            warnings: Vec::new(),
        }
    }
}

/// 256 bits as 64 hexadecimal digits.
fn random() -> String {
    let (high, low): (u128, u128) = rand::random();
    format!("{high:032x}{low:032x}")
}

/// `create_new`: two that start at once don't overwrite each other's secrets, one of them fails and says so.
fn write(path: &Path, stored: &StoredSecrets) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec_pretty(stored)?)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that is gone when the test is over.
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
    fn secrets_are_made_once_and_kept() {
        let directory = TestDirectory::new();
        let made = DevSecrets::load_or_make(&directory.0).unwrap();
        let kept = DevSecrets::load_or_make(&directory.0).unwrap();
        assert_eq!(made.admin_key_in_plain_text(), kept.admin_key_in_plain_text());
        assert_eq!(made.token_key.secret.expose_secret(), kept.token_key.secret.expose_secret());
        assert_ne!(made.admin_key_in_plain_text(), made.token_key.secret.expose_secret());
        assert_eq!(made.admin_key_in_plain_text().len(), 64);
        let mode = std::fs::metadata(directory.0.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let directory = TestDirectory::new();
        std::fs::write(directory.0.join(FILE), "{").unwrap();
        let error = DevSecrets::load_or_make(&directory.0).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        assert!(DevSecrets::load_or_make(&directory.0.join("missing")).is_err());
    }

    #[test]
    fn dev_has_a_directory_of_its_own() {
        assert_eq!(DevSettings::new(&DevArgs::default()).unwrap().data_dir, Path::new(".usher"));
        let args = DevArgs { data_dir: Some("/x".to_owned()), ..DevArgs::default() };
        assert_eq!(DevSettings::new(&args).unwrap().data_dir, Path::new("/x"));
    }

    #[test]
    fn the_crowd_comes_when_it_is_asked_for() {
        let crowd = |count: &str| {
            let args = DevArgs { crowd: Some(count.to_owned()), ..DevArgs::default() };
            DevSettings::new(&args)
                .map(|settings| settings.crowd)
                .map_err(|error| error.to_string())
        };
        assert_eq!(DevSettings::new(&DevArgs::default()).unwrap().crowd, 0);
        assert_eq!(crowd("5000"), Ok(5_000));
        assert!(
            crowd("5001")
                .unwrap_err()
                .contains("USHER_CROWD (--crowd): must be a number from 0 to 5000")
        );
    }
}
