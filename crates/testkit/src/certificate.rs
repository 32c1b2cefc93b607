//! Certificates that are made in the test, by `openssl`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// An authority, and a server's certificate of it for `localhost` and `127.0.0.1`, as files in PEM.
#[derive(Debug)]
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes new ones.
    pub fn make() -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary directory"));
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509", "-days", "2"];
        let make = |subject: &str, key: PathBuf, certificate: PathBuf, more: &[&OsStr]| {
            let mut openssl = Command::new("openssl");
            openssl.arg("req").args(new_key).args(["-subj", subject]).args(more);
            let made = openssl.arg("-keyout").arg(key).arg("-out").arg(certificate).output();
            let made = made.expect("openssl is installed");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        };
        let (authority, authority_key) = (files.authority(), files.path("authority.key"));
        make("/CN=an authority", authority_key.clone(), authority.clone(), &[]);
        let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"].map(OsStr::new);
        let is_server = ["-addext", "basicConstraints=critical,CA:FALSE"].map(OsStr::new);
        let signer = ["-CA".as_ref(), authority.as_os_str(), "-CAkey".as_ref(), authority_key.as_os_str()];
        make("/CN=localhost", files.key(), files.certificate(), &[&names[..], &is_server, &signer].concat());
        files
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's key.
    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
