//! Programs that end with this one, however it ends.

use std::process::Command;

/// The same command, run by `setpriv` (util-linux) so that it is killed when the thread that starts it is gone: what
/// polls must not be left behind by an interrupted measurement. Only program and arguments are taken over.
pub fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    bound
}
