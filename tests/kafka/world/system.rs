//! The certificates that the system trusts, as a test needs them.

use std::process::Command;

/// Where Debian and its derivatives keep the certificates of CAs.
const STORE: &str = "/etc/ssl/certs";

/// genwatch, without the variables that name other certificates.
pub fn genwatch() -> Command {
    without_variables(Command::new(env!("CARGO_BIN_EXE_genwatch")))
}

/// genwatch on a system that trusts only this CA. `None`, with a message, if that isn't possible: a mount namespace
/// takes root, or user namespaces.
pub fn genwatch_in_a_system_with(ca_file: &str) -> Option<Command> {
    // In memory, and gone with the namespace.
    let script =
        format!("mount -t tmpfs none {STORE} && cp \"$0\" {STORE}/ca-certificates.crt && exec \"$@\"");
    let unshared = |how: &[&str], what: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(how).args(["sh", "-c", &script, ca_file]).args(what);
        command
    };
    for how in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        if unshared(how, &["true"]).output().is_ok_and(|output| output.status.success()) {
            return Some(without_variables(unshared(how, &[env!("CARGO_BIN_EXE_genwatch")])));
        }
    }
    eprintln!("SKIPPED: no mount namespace can be made here, so no CA was put into the system's store");
    None
}

fn without_variables(mut command: Command) -> Command {
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command
}
