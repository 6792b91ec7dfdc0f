//! Tells the binaries which commit they were built from.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let version = env!("CARGO_PKG_VERSION");
    // A source archive has no history: then the version alone must do.
    let commit = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit = commit.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match commit {
        Some(commit) => println!("cargo:rustc-env=TRUTINA_VERSION={version} ({commit})"),
        None => println!("cargo:rustc-env=TRUTINA_VERSION={version}"),
    }
}
