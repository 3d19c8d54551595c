//! A test's own certificate authority.

use std::path::PathBuf;
use std::process::Command;

/// Its folder is deleted when it's dropped.
pub struct Authority(tempfile::TempDir);

impl Authority {
    /// Creates an unknown one.
    pub fn new() -> Authority {
        let authority = Authority(tempfile::tempdir().unwrap());
        let (key, certificate) = (authority.path("ca.key"), authority.path("ca.pem"));
        let about = ["-subj", "/CN=a test's authority", "-days", "2"];
        openssl(
            &[&["req", "-x509"], &NEW_KEY[..], &["-keyout", &key, "-out", &certificate], &about].concat(),
        );
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> String {
        self.path("ca.pem")
    }

    /// A file with certificate and key, both in PEM, for this name and these addresses (`DNS:localhost,IP:127.0.0.1`).
    pub fn issue(&self, name: &str, addresses: &str) -> String {
        let file = |ending: &str| self.path(&format!("{name}.{ending}"));
        let (key, request, certificate, more) = (file("key"), file("csr"), file("crt"), file("ext"));
        std::fs::write(&more, format!("subjectAltName={addresses}\n")).unwrap();
        let subject = format!("/CN={name}");
        openssl(&[&["req"], &NEW_KEY[..], &["-keyout", &key, "-out", &request, "-subj", &subject]].concat());
        let (ca, ca_key) = (self.certificate(), self.path("ca.key"));
        let signed = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
        openssl(&[&signed[..], &["-days", "2", "-extfile", &more, "-out", &certificate]].concat());
        let both = [std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap()].concat();
        std::fs::write(file("pem"), both).unwrap();
        file("pem")
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.display().to_string()
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("there is an openssl");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
