//! A panic on any thread ends the process.

use super::stderr;

/// Makes a panic on any thread end the process, with exit code 101: half a worker is worse than none, and nothing past
/// the panic is committed. For programs that run a service as a library; the command line calls this itself.
pub fn end_at_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        stderr::say(format_args!(
            "genwatch: this is a bug; the process ends here, and nothing that was not finished is committed"
        ));
        std::process::exit(101);
    }));
}
