//! Mutants of the core: copies of its sources with one text replaced, a line or so, which the checks of a test target
//! must tell from the core as it stands.
//!
//! The production code knows nothing of this. Each mutant is a package of a scratch workspace in cargo's folder for
//! temporary files: the pure sources, and a `main` that runs the checks over them. One call of cargo builds them all.
//!
//! Test targets include it by `#[path]`; it is no target itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One mutation; `C` names what catches it.
pub struct Mutation<C: 'static> {
    pub name: &'static str,
    /// Below `src`.
    pub file: &'static str,
    /// Occurs exactly once there.
    pub before: &'static str,
    pub after: &'static str,
    /// Any of these may notice it first.
    pub caught_by: &'static [C],
}

/// All mutants of a test target.
pub struct Mutants<C: 'static> {
    /// The workspace's folder, and the package of the core as it stands.
    pub workspace: &'static str,
    pub mutations: &'static [Mutation<C>],
    /// The modules of the core that the checks need.
    pub core: &'static [&'static str],
    /// What these need beyond [`DEPENDENCIES`], as lines of a manifest.
    pub dependencies: &'static [&'static str],
    /// The modules of the checks: name and file or folder, below `tests`. They call the core `genwatch_core`, as they
    /// do here.
    pub checks: &'static [(&'static str, &'static str)],
    /// The body of `main`. It ends the process with an error when a check fails, and says on a line of its own that
    /// begins with [`CAUGHT`] which one. [`CHECKS`] has what should catch the mutant; it need not try more.
    pub main: &'static str,
    /// What that line has in it if this is what caught the mutant.
    pub says: fn(&C) -> String,
    /// The optimization of mutants.
    pub opt_level: u8,
    /// How many seeds a mutant may survive, as the checks are told by `GENWATCH_SIM_SEEDS`.
    pub seeds: u32,
    /// How many seeds show that the core as it stands is not caught.
    pub unmutated_seeds: u32,
}

/// The variable with what should catch the mutant, one a line; unset for the core as it stands.
pub const CHECKS: &str = "GENWATCH_MUTANT_CHECKS";

/// How the line begins that says what has failed.
pub const CAUGHT: &str = "caught: ";

/// What every mutant needs.
const DEPENDENCIES: [&str; 10] = [
    r#"foldhash = "0.2""#,
    r#"humantime = "2""#,
    r#"jiff = { version = "0.2", default-features = false, features = ["std"] }"#,
    r#"rand = { version = "0.9", default-features = false, features = ["std"] }"#,
    r#"rand_chacha = "0.9""#,
    r#"serde = { version = "1", features = ["derive"] }"#,
    r#"serde_json = { version = "1", features = ["float_roundtrip", "preserve_order", "raw_value"] }"#,
    r#"smallvec = { version = "1", features = ["serde"] }"#,
    r#"thiserror = "2""#,
    r#"toml = "1""#,
];

impl<C: Sync> Mutants<C> {
    /// Builds and runs all. Panics unless each mutant is caught by what it names, and the core as it stands by nothing.
    pub fn are_caught(&self) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.workspace);
        let mut packages = vec![self.workspace];
        packages.extend(self.mutations.iter().map(|mutation| mutation.name));
        self.write_workspace(&folder, &packages);
        for package in &packages {
            self.write_package(&folder, package);
        }
        build(&folder);

        let next = AtomicUsize::new(0);
        let work = || {
            let mut complaints = Vec::new();
            while let Some(package) = packages.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.judge(package, &self.run(package)) {
                    Ok(told) => println!("{package}: {}", told.chars().take(160).collect::<String>()),
                    Err(complaint) => complaints.push(complaint),
                }
            }
            complaints
        };
        let complaints = std::thread::scope(|scope| {
            [scope.spawn(work), scope.spawn(work)]
                .map(|thread| thread.join().expect("all are judged"))
                .concat()
        });
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    fn mutation(&self, package: &str) -> Option<&Mutation<C>> {
        self.mutations.iter().find(|mutation| mutation.name == package)
    }

    /// Runs a package's checks; what they said, and whether they passed.
    fn run(&self, package: &str) -> (bool, String) {
        let mut command = Command::new(target().join("debug").join(package));
        let seeds = match self.mutation(package) {
            Some(mutation) => {
                let checks: Vec<String> = mutation.caught_by.iter().map(self.says).collect();
                command.env(CHECKS, checks.join("\n"));
                self.seeds
            }
            None => self.unmutated_seeds,
        };
        let output = command
            .env("GENWATCH_SIM_SEEDS", seeds.to_string())
            .env_remove("GENWATCH_SIM_SEED")
            .env_remove("GENWATCH_SIM_FROM")
            // The first failure is enough, and always the same one.
            .envs([("PROPTEST_MAX_SHRINK_ITERS", "0"), ("PROPTEST_RNG_SEED", "1"), ("RUST_BACKTRACE", "0")])
            .output()
            .expect("the package was built");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Returns what caught a mutant, or why this isn't as it should be.
    fn judge<'s>(&self, package: &str, (passed, said): &'s (bool, String)) -> Result<&'s str, String> {
        let told = said.lines().find(|line| line.starts_with(CAUGHT)).unwrap_or(said);
        match self.mutation(package) {
            None if *passed => Ok("it is as it should be"),
            None => Err(format!("the core as it stands: {said}")),
            Some(_) if *passed => Err(format!("{package} survives {} seeds", self.seeds)),
            Some(mutation) if mutation.caught_by.iter().any(|one| told.contains(&(self.says)(one))) => {
                Ok(told)
            }
            Some(_) => Err(format!("{package} is caught by something else: {told}")),
        }
    }

    fn write_workspace(&self, folder: &Path, packages: &[&str]) {
        let manifest = format!(
            "[workspace]\nresolver = \"3\"\nmembers = {packages:?}\n\n\
             [profile.dev]\nopt-level = {}\ndebug = false\nincremental = false\ndebug-assertions = false\noverflow-checks = false\n",
            self.opt_level
        );
        write(&folder.join("Cargo.toml"), &manifest);
        // The versions that the project builds with: they are on this machine.
        let lock = std::fs::read_to_string(project().join("../../Cargo.lock")).expect("Cargo.lock");
        if !folder.join("Cargo.lock").exists() {
            write(&folder.join("Cargo.lock"), &lock);
        }
    }

    fn write_package(&self, workspace: &Path, package: &str) {
        let folder = workspace.join(package);
        write(&folder.join("Cargo.toml"), &self.manifest(package));
        write(&folder.join("src/main.rs"), &self.main_file());
        let source = project().join("src");
        for file in self.core.iter().flat_map(|module| sources(&source, &file_of(&source, module))) {
            let mut text = std::fs::read_to_string(source.join(&file)).expect("a source");
            if let Some(mutation) = self.mutation(package).filter(|mutation| Path::new(mutation.file) == file)
            {
                let found = text.matches(mutation.before).count();
                assert_eq!(
                    found, 1,
                    "{package}: {:?} occurs {found} times in {}",
                    mutation.before, mutation.file
                );
                text = text.replacen(mutation.before, mutation.after, 1);
            }
            write(&folder.join("src").join(file), &text);
        }
    }

    fn manifest(&self, package: &str) -> String {
        let oracle = format!("genwatch-oracle = {{ path = {:?} }}", project().join("../oracle"));
        let dependencies: Vec<&str> = [oracle.as_str()]
            .into_iter()
            .chain(DEPENDENCIES)
            .chain(self.dependencies.iter().copied())
            .collect();
        let head = format!(
            "[package]\nname = \"{package}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n"
        );
        format!("{head}\n[dependencies]\n{}\n", dependencies.join("\n"))
    }

    /// One crate of core and checks.
    fn main_file(&self) -> String {
        let core: String = self.core.iter().map(|name| format!("pub mod {name};\n")).collect();
        let tests = project().join("tests");
        let check = |(name, file): &(&str, &str)| {
            let file = tests.join(file_of(&tests, file));
            let path = if file.is_dir() { file.join("mod.rs") } else { file };
            format!("#[path = {path:?}]\nmod {name};\n")
        };
        let checks: String = self.checks.iter().map(check).collect();
        format!(
            "#![allow(warnings)]\nextern crate self as genwatch_core;\n{core}{checks}fn main() {{\n{}\n}}\n",
            self.main
        )
    }
}

fn build(workspace: &Path) {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "--workspace", "--manifest-path"])
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "a mutation doesn't build: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where all workspaces are built, so that what they depend on is compiled once.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants-target")
}

/// A module's file or folder, relative to `root`.
fn file_of(root: &Path, module: &str) -> PathBuf {
    let file = PathBuf::from(format!("{module}.rs"));
    if root.join(&file).exists() { file } else { PathBuf::from(module) }
}

/// The files at or below `part`, relative to `root`.
fn sources(root: &Path, part: &Path) -> Vec<PathBuf> {
    let path = root.join(part);
    if path.is_file() {
        return vec![part.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a folder of sources");
    entries.flat_map(|entry| sources(root, &part.join(entry.expect("an entry").file_name()))).collect()
}

/// The crate.
fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Writes a file unless it's there already, so that what hasn't changed isn't built again.
fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the mutations");
    std::fs::write(path, text).expect("a file of a mutation");
}
