//! A private certificate authority, and certificates for servers on this machine.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Signs certificates. Its own certificate is in a file.
pub(crate) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate (PEM).
    pub(crate) file: PathBuf,
}

/// Certificate and key of a server (PEM).
#[derive(Debug, Clone)]
pub(crate) struct TestCertificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl CertificateAuthority {
    /// A new authority. Its certificate is written to `dir`.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("the authority {name}"));
        let key = KeyPair::generate().unwrap();
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Writes a certificate for these host names or addresses to `dir`, over an existing one.
    pub(crate) fn sign(&self, dir: &Path, name: &str, hosts: &[&str]) -> TestCertificate {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).unwrap();
        let key = KeyPair::generate().unwrap();
        let files = TestCertificate {
            chain: dir.join(format!("{name}.cert.pem")),
            key: dir.join(format!("{name}.key.pem")),
        };
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.chain, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        files
    }
}
