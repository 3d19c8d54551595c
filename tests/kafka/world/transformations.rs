//! A file for `--transform`.

use std::io::Write as _;

/// The file. Deleted when dropped.
pub struct Transformations(tempfile::NamedTempFile);

impl Transformations {
    /// Writes a file with these steps.
    pub fn new(steps: &str) -> Transformations {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        file.write_all(steps.as_bytes()).expect("written");
        Transformations(file)
    }

    /// `--transform`
    pub fn path(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }
}
