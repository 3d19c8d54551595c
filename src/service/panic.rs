//! A panic on any thread ends the process.

use super::stderr;

/// From now on a panic on any thread ends the process, with exit code 101: half a worker would be worse than none, and
/// nothing past it is committed. For a program that runs a service by the library; the command line does it by itself.
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
